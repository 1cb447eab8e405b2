"""Two rasters as one: on the first's pixels, data where both have data."""

import pickle

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geodl.base.errors import GridMismatchError, PlanError
from geodl.core.grid import Window
from geodl.io.raster_pair import PairedRaster
from geodl.io.source import open_source


def write(path, data, x=0.0, y=0.0, cell=1.0, **profile):
    with rasterio.open(
        path, "w", driver="GTiff", count=len(data), height=data.shape[1], width=data.shape[2],
        dtype=data.dtype, crs="EPSG:32633", transform=from_origin(5e5 + x, 5e6 - y, cell, cell),
        **profile,
    ) as file:  # fmt: skip
        file.write(data)
    return open_source(path)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(1, 200, (2, 20, 30)).astype(np.uint8), rng.integers(
        1, 2000, (1, 15, 25)
    ).astype(np.uint16)


def test_bands_follow_each_other_on_the_firsts_pixels(tmp_path, images):
    one, two = images
    one[:, 0] = 0
    two[:, :, -1] = 0
    pair = PairedRaster.of(
        write(tmp_path / "a.tif", one, nodata=0), write(tmp_path / "b.tif", two, 4, 7, nodata=0)
    )
    assert (pair.count, pair.dtype, pair.grid.shape) == (3, np.uint16, (20, 30))
    block = pair.read(pair.grid.window)
    assert np.array_equal(block.data[:2], one)
    placed = np.zeros((20, 30), np.uint16)
    placed[7:, 4:29] = two[0, :13]
    assert np.array_equal(block.data[2], placed)
    assert np.array_equal(block.mask, (one[0] > 0) & (placed > 0))
    part = Window(row=3, col=2, height=9, width=20)
    again = pickle.loads(pickle.dumps(pair)).read(part)
    assert np.array_equal(again.data, block.data[:, 3:12, 2:22])
    assert np.array_equal(again.mask, block.mask[3:12, 2:22])
    with pytest.raises(PlanError, match=r"a\.tif"):
        pair.read(Window(row=-1, col=0, height=2, width=2))


def test_a_coarser_second_is_resampled_and_each_place_is_told_apart(tmp_path, images):
    one, two = images
    first = write(tmp_path / "a.tif", one)
    pair = PairedRaster.of(first, write(tmp_path / "b.tif", two, cell=2.0))
    assert pair.read(pair.grid.window).mask.all()
    moved = PairedRaster.of(first, write(tmp_path / "c.tif", two, 2, 0, cell=2.0))
    assert pair.identity() != moved.identity()
    assert [source.name for source in pair.inputs] == [
        str(tmp_path / "a.tif"), str(tmp_path / "b.tif")
    ]  # fmt: skip


def test_rasters_of_other_ground_are_refused(tmp_path, images):
    one, two = images
    with pytest.raises(GridMismatchError, match=r"far\.tif nowhere overlaps"):
        PairedRaster.of(write(tmp_path / "a.tif", one), write(tmp_path / "far.tif", two, 30, 0))
