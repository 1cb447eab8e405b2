"""Outlines of instances: whole however tiles and blocks lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.testing.tiny import tiny_model
from geodl.tools.detect_objects import detect_objects

CELL = 0.5
LEFT, TOP = 500_000.0, 4_000_000.0
LARGE = (20, 30, 60, 190)  # rows 20..60, columns 30..190: over several tiles of 64 px
SMALL = (100, 40, 112, 55)
EDGE = (170, 185, 200, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    place = tmp_path_factory.mktemp("instances")
    image = np.zeros((3, 200, 200), np.uint8)
    for r0, c0, r1, c1 in (LARGE, SMALL, EDGE):
        image[:, r0:r1, c0:c1] = 250
    # A turned square.
    rows, cols = np.indices((200, 200))
    image[:, np.abs(rows - 130) + np.abs(cols - 130) < 14] = 230
    profile = {
        "driver": "GTiff", "width": 200, "height": 200, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": from_origin(LEFT, TOP, CELL, CELL),
    }  # fmt: skip
    with rasterio.open(place / "scene.tif", "w", **profile) as file:
        file.write(image)
    tiny_model(place / "model", "instances", classes={1: "roof"})
    return place


def found_in(folder: Path, tmp_path: Path, **arguments: Any) -> Any:
    options = {"threshold": 0.5, **arguments.pop("options", {})}
    return detect_objects(
        str(folder / "scene.tif"), str(folder / "model"), options, tmp_path / "found.parquet",
        progress=False, **arguments,
    )  # fmt: skip


def rectangle(rows_cols: tuple[int, int, int, int]) -> shapely.Polygon:
    r0, c0, r1, c1 = rows_cols
    return shapely.box(LEFT + c0 * CELL, TOP - r1 * CELL, LEFT + c1 * CELL, TOP - r0 * CELL)


def test_an_object_over_many_tiles_is_one_outline(folder: Path, tmp_path: Path) -> None:
    found = found_in(folder, tmp_path)
    assert len(found) == 4
    assert set(found.columns) == {"Class", "ClassValue", "Confidence", "geometry"}
    assert found.crs.to_epsg() == 32633
    for truth in (LARGE, SMALL, EDGE):
        wanted = rectangle(truth)
        overlap = found.geometry.intersection(wanted).area / found.geometry.union(wanted).area
        assert overlap.max() > 0.999
    turned = 2 * 13 * 14 + 1
    assert np.isclose(found.area, turned * CELL**2).sum() == 1


def test_blocks_do_not_matter(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = found_in(folder, tmp_path / "a", block_size=32)
    two = found_in(folder, tmp_path / "b", block_size=512)
    assert one.drop(columns="geometry").equals(two.drop(columns="geometry"))
    assert one.geometry.geom_equals_exact(two.geometry, 0).all()


def test_bounds_and_turned_rectangles_on_request(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    boxes = found_in(folder, tmp_path / "a", options={"return_bboxes": True})
    assert np.allclose(boxes.area, boxes.envelope.area)
    turned = found_in(folder, tmp_path / "b", options={"rotated_bboxes": "True"})
    assert (shapely.get_num_coordinates(turned.geometry) == 5).all()
    diamond = turned.area[(turned.area / turned.envelope.area) < 0.8]
    assert len(diamond) == 1
    assert diamond.iloc[0] < boxes.area.sort_values().iloc[-2]


def test_augmentation_finds_the_same(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="merge_policy"):
        found_in(folder, tmp_path, options={"merge_policy": "median"})
    with pytest.raises(UnknownOptionError, match="exclude"):
        found_in(folder, tmp_path, options={"exclude_pad_detections": True})
    with pytest.raises(OptionError, match="return_bboxes"):
        found_in(folder, tmp_path, options={"return_bboxes": True, "rotated_bboxes": True})
