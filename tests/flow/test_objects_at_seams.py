"""Objects that cross blocks come out whole and once: what the whole image in memory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from scipy import ndimage

from geodl.core.grid import Window
from geodl.ops.polygons import Polygonizer
from geodl.testing.tiny import tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

SIZE, TILE = 150, 64
# Blocks of one tile stride and of several, and the whole image as one.
BLOCKS = (32, 48, 64, 96, 4096)


def small_boxes() -> np.ndarray:
    """bool (SIZE, SIZE): rectangles that do not touch, none larger than what tiles share."""
    rng = np.random.default_rng(6)
    taken = np.zeros((SIZE, SIZE), bool)
    shown = taken.copy()
    for _ in range(400):
        height, width = rng.integers(1, 14, 2)
        row, col = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
        around = np.s_[max(row - 1, 0) : row + height + 1, max(col - 1, 0) : col + width + 1]
        if not taken[around].any():
            taken[around] = True
            shown[row : row + height, col : col + width] = True
    return shown


def large_shapes(*, comb: bool) -> np.ndarray:
    """bool (SIZE, SIZE): larger than tiles; a ring, a staircase, bars, and perhaps a comb.

    Masks of a comb are no test: of two tiles one sees its teeth as objects of their own.
    """
    shown = np.zeros((SIZE, SIZE), bool)
    shown[5:75, 5:85] = True
    shown[15:65, 15:75] = False
    shown[30:40, 30:50] = True
    shown[90:145, 10:14] = True
    for row in range(90, 145, 9 if comb else 100):
        shown[row : row + 4, 10:100] = True
    for step in range(40):
        shown[10 + step : 12 + step, 95 + step : 98 + step] = True
    shown[100:103, 120:149] = True
    return shown


def write(path: Path, shown: np.ndarray) -> Path:
    data = np.where(shown, 250, 10).astype(np.uint8)[None].repeat(3, axis=0)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(0, SIZE, 1, 1),
    ) as file:  # fmt: skip
        file.write(data)
    return path


def outlines(shown: np.ndarray) -> np.ndarray:
    """Polygons of the edge-connected regions, of the whole image, in the scene's CRS."""
    work = Polygonizer(SIZE, SIZE, connectivity=4)
    whole = Window(row=0, col=0, height=SIZE, width=SIZE)
    work.add(shown.astype(np.int32), shown, whole)
    found: np.ndarray = shapely.transform(
        work.finish().polygons, lambda xy: np.stack([xy[:, 0], SIZE - xy[:, 1]], axis=1)
    )
    return found


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether both hold the same areas, each once."""
    if len(found) != len(expected):
        return False
    pairs = shapely.STRtree(expected).query(found, predicate="intersects")
    equal = shapely.equals(found[pairs[0]], expected[pairs[1]])
    one, two = pairs[:, equal]
    return len(np.unique(one)) == len(np.unique(two)) == len(equal.nonzero()[0]) == len(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("seams")
    for kind in ("objects", "instances", "pixels"):
        tiny_model(place / kind, kind, classes={1: "one"}, tile_px=TILE)
    write(place / "small.tif", small_boxes())
    write(place / "large.tif", large_shapes(comb=False))
    write(place / "comb.tif", large_shapes(comb=True))
    return place


def detect(folder: Path, kind: str, scene: str, path: Path, **arguments: Any) -> Any:
    block = arguments.pop("block_size")
    return detect_objects(
        folder / scene, str(folder / kind), {"padding": 24, **arguments}, path, progress=False,
        block_size=block,
    )  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
def test_boxes_are_those_of_the_whole_image(folder: Path, tmp_path: Path, block: int) -> None:
    shown = small_boxes()
    places = ndimage.find_objects(ndimage.label(shown)[0])
    expected = shapely.box(
        [c.start for _, c in places], [SIZE - r.stop for r, _ in places],
        [c.stop for _, c in places], [SIZE - r.start for r, _ in places],
    )  # fmt: skip
    assert len(expected) > 80
    found = detect(folder, "objects", "small.tif", tmp_path / "a.parquet", block_size=block)
    assert same(found.geometry.to_numpy(), expected)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("scene", ["small.tif", "large.tif"])
def test_masks_are_those_of_the_whole_image(
    folder: Path, tmp_path: Path, block: int, scene: str
) -> None:
    expected = outlines(small_boxes() if scene == "small.tif" else large_shapes(comb=False))
    found = detect(folder, "instances", scene, tmp_path / "a.parquet", block_size=block)
    assert same(found.geometry.to_numpy(), expected)


@pytest.mark.parametrize("block", BLOCKS)
def test_polygons_of_classes_are_those_of_the_whole_image(
    folder: Path, tmp_path: Path, block: int
) -> None:
    arguments = {"padding": 8, "predict_background": True}
    found = classify_pixels(
        folder / "comb.tif", str(folder / "pixels"), arguments, tmp_path / "a.parquet",
        progress=False, block_size=block,
    )  # fmt: skip
    classes = classify_pixels(
        folder / "comb.tif", str(folder / "pixels"), arguments, tmp_path / "a.tif",
        progress=False, block_size=4096,
    )  # fmt: skip
    labels, count = ndimage.label(classes.to_numpy()[0] == 1, np.ones((3, 3)))
    assert len(found) == count > 3
    rows, cols = np.indices(labels.shape)
    points = shapely.points(cols[labels > 0] + 0.5, SIZE - rows[labels > 0] - 0.5)
    inside, polygon = shapely.STRtree(found.geometry.to_numpy()).query(points, predicate="within")
    assert len(inside) == (labels > 0).sum() == found.area.sum()
    # All pixels of a region lie in one polygon, and of two regions in two.
    assert len(np.unique(np.stack([labels[labels > 0][inside], polygon]), axis=1)[0]) == count
