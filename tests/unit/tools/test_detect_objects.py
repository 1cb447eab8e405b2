"""detect_objects finds each object once, wherever blocks and tiles part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin

from geodl.base.errors import DataWarning, OptionError, OutputExistsError, UnknownOptionError
from geodl.testing.tiny import tiny_model
from geodl.tools.detect_objects import detect_objects

X0, Y0, CELL = 500000.0, 5000000.0, 0.5


def field(
    height: int, width: int, count: int, seed: int, most: int = 12
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """uint8 (3, H, W) with bright boxes that do not touch, and the boxes (x0, y0, x1, y1)."""
    rng = np.random.default_rng(seed)
    data = np.full((3, height, width), 20, np.uint8)
    taken = np.zeros((height, width), bool)
    boxes = []
    for _ in range(count * 5):
        h, w = rng.integers(2, most, 2)
        if h >= height or w >= width or len(boxes) == count:
            continue
        y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        if taken[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2].any():
            continue
        taken[y : y + h, x : x + w] = True
        data[:, y : y + h, x : x + w] = rng.integers(160, 255)
        boxes.append((x, y, int(x + w), int(y + h)))
    return data, boxes


def pixels(features: gpd.GeoDataFrame) -> list[tuple[int, int, int, int]]:
    bounds = features.bounds.to_numpy()
    x0, x1 = (bounds[:, 0] - X0) / CELL, (bounds[:, 2] - X0) / CELL
    y0, y1 = (Y0 - bounds[:, 3]) / CELL, (Y0 - bounds[:, 1]) / CELL
    return [tuple(map(round, row)) for row in np.stack([x0, y0, x1, y1], axis=1)]  # type: ignore[misc]


def go(raster: Any, model: Path, path: Path, arguments: Any = None, **more: Any) -> Any:
    return detect_objects(raster, str(model), arguments, path, progress=False, **more)


@settings(max_examples=10)
@given(draw=st.data())
def test_every_object_is_found_whole_and_once(
    draw: st.DataObject, write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    height, width = draw.draw(st.integers(20, 150)), draw.draw(st.integers(20, 150))
    data, boxes = field(height, width, 25, draw.draw(st.integers(0, 99)))
    arguments = {"tile_size": draw.draw(st.integers(48, 80)), "padding": 16}
    found = go(
        write_raster(data),
        object_model,
        tmp_path / "boxes.parquet",
        arguments,
        block_size=draw.draw(st.integers(1, 200)),
        overwrite=True,
    )
    assert sorted(pixels(found)) == sorted(boxes)


def test_the_product_has_the_documented_columns(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, _ = field(100, 100, 12, 3)
    path = tmp_path / "boxes.parquet"
    found = go(write_raster(data), object_model, path)
    assert list(found.columns) == ["Class", "ClassValue", "Confidence", "geometry"]
    assert found.crs.to_epsg() == 32633
    assert found.attrs["path"] == str(path)
    assert found["Confidence"].between(60, 100).all()
    assert found["Confidence"].is_monotonic_decreasing
    assert set(zip(found["Class"], found["ClassValue"], strict=True)) <= {("one", 1), ("two", 2)}
    again = gpd.read_parquet(path)
    assert again.geometry.geom_equals_exact(found.geometry, 0).all()
    manifest = json.loads((tmp_path / "boxes.parquet.manifest.json").read_text())
    assert manifest["blocks"]["done"] == 1
    assert not (tmp_path / "boxes.parquet.run").exists()


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".shp"])
def test_features_are_written_in_the_format_of_the_suffix(
    write_raster: Any, object_model: Path, tmp_path: Path, suffix: str
) -> None:
    data, boxes = field(100, 100, 12, 3)
    go(write_raster(data), object_model, tmp_path / f"boxes{suffix}")
    again = gpd.read_file(tmp_path / f"boxes{suffix}")
    assert len(again) == len(boxes)
    assert again.crs.to_epsg() == (4326 if suffix == ".geojson" else 32633)


def test_an_extent_holds_the_objects_centred_in_it(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(200, 200, 60, 5)
    extent = {"xmin": X0 + 20, "ymin": Y0 - 80, "xmax": X0 + 70, "ymax": Y0 - 15}
    found = go(
        write_raster(data),
        object_model,
        tmp_path / "part.parquet",
        context={"extent": extent},
        block_size=32,
    )
    inside = [b for b in boxes if 40 <= (b[0] + b[2]) / 2 < 140 and 30 <= (b[1] + b[3]) / 2 < 160]
    assert sorted(pixels(found)) == sorted(inside)


def test_a_mask_keeps_the_objects_centred_in_it(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(100, 100, 25, 6)
    mask = gpd.GeoDataFrame(geometry=[shapely.box(X0, Y0 - 50, X0 + 25, Y0)], crs="EPSG:32633")
    found = go(write_raster(data), object_model, tmp_path / "in.parquet", context={"mask": mask})
    assert sorted(pixels(found)) == sorted(b for b in boxes if (b[0] + b[2]) / 2 < 50)


def test_objects_cut_by_the_raster_are_clipped_to_it(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data = np.full((3, 70, 70), 20, np.uint8)
    data[:, :4, 10:20] = data[:, 30:40, 64:] = data[:, 66:, 66:] = 200
    found = go(write_raster(data), object_model, tmp_path / "edge.parquet")
    assert sorted(pixels(found)) == [(10, 0, 20, 4), (64, 30, 70, 40), (66, 66, 70, 70)]


def test_objects_too_large_for_a_tile_are_warned_of(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(200, 200, 10, 8)
    data[:, 60:140, 60:140] = 250
    with pytest.warns(DataWarning, match="detections were cut"):
        go(write_raster(data), object_model, tmp_path / "big.parquet")
    kept = go(
        write_raster(data),
        object_model,
        tmp_path / "kept.parquet",
        {"exclude_pad_detections": False},
    )
    assert len(kept) > len(boxes) - 5


def test_thresholds_and_augmentation(write_raster: Any, object_model: Path, tmp_path: Path) -> None:
    data, boxes = field(120, 120, 30, 9)
    raster = write_raster(data)
    plain = go(raster, object_model, tmp_path / "plain.parquet")
    turned = go(raster, object_model, tmp_path / "turned.parquet", {"test_time_augmentation": True})
    assert sorted(pixels(turned)) == sorted(pixels(plain)) == sorted(boxes)
    median = float(plain["Confidence"].median()) / 100
    few = go(raster, object_model, tmp_path / "few.parquet", {"threshold": median})
    assert 0 < len(few) < len(plain)
    assert few["Confidence"].min() >= median * 100 - 1e-4


def test_the_users_own_suppression_takes_the_best_of_each_class(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(100, 100, 10, 2)
    raster = write_raster(data)
    found = go(raster, object_model, tmp_path / "nms.parquet", run_nms=True)
    assert len(found) == len(boxes)
    with pytest.raises(OptionError, match="confidence_score_field='Score'"):
        go(
            raster,
            object_model,
            tmp_path / "x.parquet",
            run_nms=True,
            confidence_score_field="Score",
        )


def test_a_turned_grid_turns_the_boxes(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(60, 60, 5, 1)
    turned = Affine.translation(X0, Y0) @ Affine.rotation(30) @ Affine.scale(CELL, -CELL)
    found = go(write_raster(data, transform=turned), object_model, tmp_path / "turned.parquet")
    wanted = {tuple(np.round(turned @ ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2), 3)) for b in boxes}
    centres = found.geometry.centroid
    assert {(round(p.x, 3), round(p.y, 3)) for p in centres} == wanted


def test_rasters_one_by_one_are_put_together(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(80, 80, 10, 4)
    paths = [
        write_raster(data, "a.tif"),
        write_raster(data, "b.tif", transform=from_origin(X0 + 1000, Y0, CELL, CELL)),
    ]
    found = go(paths, object_model, tmp_path / "all.parquet", process_all_raster_items=True)
    assert len(found) == 2 * len(boxes)
    assert [Path(p).name for p in found.attrs["path"]] == ["all_0.parquet", "all_1.parquet"]


def test_rasters_in_several_zones_are_put_together_in_the_first(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data, boxes = field(80, 80, 10, 4)
    paths = [write_raster(data, "a.tif"), write_raster(data, "b.tif", crs="EPSG:32632")]
    found = go(paths, object_model, tmp_path / "all.parquet", process_all_raster_items=True)
    assert found.crs.to_epsg() == 32633
    there = found.iloc[len(boxes) :].to_crs(32632).geometry.centroid
    here = found.iloc[: len(boxes)].geometry.centroid
    assert there.geom_equals_exact(
        here.set_crs(32632, allow_override=True), 1e-3, align=False
    ).all()


def test_nothing_found_is_an_empty_product(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "none.parquet"
    found = go(write_raster(np.full((3, 64, 64), 20, np.uint8)), object_model, path)
    assert len(found) == 0
    again = gpd.read_parquet(path)
    assert list(again.columns) == ["Class", "ClassValue", "Confidence", "geometry"]
    assert again.crs.to_epsg() == 32633


def test_ground_without_data_gives_no_objects(write_raster: Any, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny", "objects")
    data, boxes = field(100, 100, 20, 7)
    data[:, :, :50] = 255
    found = go(write_raster(data, nodata=255), model, tmp_path / "half.parquet")
    alive = [(max(x0, 50), y0, x1, y1) for x0, y0, x1, y1 in boxes if x1 > 50]
    assert sorted(pixels(found)) == sorted(alive)


def test_names_and_standing_products_are_refused(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(field(64, 64, 3, 1)[0])
    with pytest.raises(UnknownOptionError, match="'threshold'"):
        go(raster, object_model, tmp_path / "a.parquet", {"treshold": 0.3})
    with pytest.raises(UnknownOptionError, match="detect_objects"):
        go(raster, object_model, tmp_path / "a.parquet", colour="red")
    go(raster, object_model, tmp_path / "a.parquet")
    with pytest.raises(OutputExistsError):
        go(raster, object_model, tmp_path / "a.parquet")
