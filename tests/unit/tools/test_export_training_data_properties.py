"""Whatever tile, stride, block and labels: each chip is there once and holds what it should."""

from __future__ import annotations

import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from geodl.formats import count_labels, open_export
from geodl.formats.images import open_image
from geodl.tools.export_training_data import export_training_data

ROWS, COLS = 60, 76
LEAST_PX = 0.02


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raster") / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=ROWS, width=COLS, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(0, ROWS, 1, 1),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 255, (1, ROWS, COLS), np.uint8))
    return path


# In pixels, on quarters: edges on chip borders, half pixels, and slivers across them.
quarters = st.integers(-8, 4 * COLS + 8).map(lambda n: n / 4)
labels = st.lists(
    st.tuples(quarters, quarters, st.integers(1, 80), st.integers(1, 80), st.integers(1, 3)),
    min_size=1, max_size=12,
)  # fmt: skip
pairs = st.tuples(st.integers(15, 50), st.integers(15, 50))


@pytest.mark.filterwarnings("ignore:Labels. .* lie outside the raster")
@settings(max_examples=10)
@given(
    boxes=labels, tile=pairs, stride=pairs, block=st.integers(16, 90), first=st.sampled_from([0, 7])
)
def test_each_feature_is_once_in_each_chip_that_it_reaches(
    raster: Path,
    boxes: list[tuple[float, float, int, int, int]],
    tile: tuple[int, int],
    stride: tuple[int, int],
    block: int,
    first: int,
) -> None:
    bounds = np.array([(x, y, x + w / 4, y + h / 4) for x, y, w, h, _ in boxes])
    values = np.array([value for *_, value in boxes])
    # The one pixel around the corner keeps some label on the raster, and in the first chip.
    bounds = np.concatenate([bounds, [(0, 0, 1, 1)]])
    values = np.append(values, 1)
    x0, y0, x1, y1 = bounds.T
    frame = gpd.GeoDataFrame(
        {"classvalue": values}, geometry=shapely.box(x0, ROWS - y1, x1, ROWS - y0), crs=32633
    )
    with tempfile.TemporaryDirectory() as folder:
        export = open_export(
            export_training_data(
                raster, frame, metadata_format="PASCAL_VOC_rectangles", progress=False,
                tile_size={"x": tile[1], "y": tile[0]},
                stride_size={"x": stride[1], "y": stride[0]}, block_size=block,
                context={"startIndex": first}, output_location=folder,
            )
        )  # fmt: skip
        expected = []
        for row in range(0, ROWS - tile[0] + 1, stride[0]):
            for col in range(0, COLS - tile[1] + 1, stride[1]):
                corner = np.array([col, row, col, row])
                inside = np.clip(bounds - corner, 0, [tile[1], tile[0], tile[1], tile[0]])
                kept = ((inside[:, 2:] - inside[:, :2]) >= LEAST_PX).all(axis=1)
                if kept.any():
                    expected.append(((row, col), inside[kept], values[kept]))
        assert [ref.name for ref in export.chips] == [
            f"{first + number:09d}" for number in range(len(expected))
        ]
        for ref, (corner, inside, classes) in zip(export.chips, expected, strict=True):
            with open_image(ref.image) as dataset:
                here = dataset.transform
            assert (ROWS - here.f, here.c) == corner
            label = export.chip_format.read_label(ref, export)
            assert np.array_equal(label.boxes, inside)
            assert np.array_equal(label.values, classes)
        assert export.class_counts == count_labels(export)
        assert sum(export.class_counts.values()) == sum(len(values) for *_, values in expected)
