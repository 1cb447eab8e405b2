from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr

from geodl.base.errors import OutputError, PlanError, SourceError
from geodl.core.grid import GeoGrid, Window
from geodl.io import regions as regions_module
from geodl.io.crs import crs_text
from geodl.io.regions import RegionStore
from geodl.io.source import open_source

GRID = GeoGrid(
    width=100, height=70, transform=(0.5, 0, 500000.25, 0, -0.5, 5000000), crs=crs_text(32633)
)


def window(row, col, height, width):
    return Window(row=row, col=col, height=height, width=width)


@pytest.fixture
def store(tmp_path):
    return RegionStore.create(tmp_path / "r.zarr", (2, 70, 100), 32, "uint8", 255, GRID)


def test_regions_come_back_and_the_rest_is_fill(store, noise):
    data = noise(2, 64, 36)
    pickle.loads(pickle.dumps(store)).write(window(0, 64, 64, 36), data)
    np.testing.assert_array_equal(store.read(window(0, 64, 64, 36)), data)
    np.testing.assert_array_equal(store.read(window(60, 60, 8, 8))[:, :4, 4:], data[:, 60:, :4])
    assert (store.read(window(64, 0, 6, 100)) == 255).all()


def test_writing_twice_keeps_the_last(store, noise):
    for seed in (1, 2):
        store.write(window(32, 32, 32, 32), noise(2, 32, 32, seed=seed))
    np.testing.assert_array_equal(store.read(window(32, 32, 32, 32)), noise(2, 32, 32, seed=2))
    store.write(window(32, 32, 32, 32), np.full((2, 32, 32), 255, np.uint8))
    assert (store.read(window(0, 0, 70, 100)) == 255).all()


@pytest.mark.parametrize(
    "bad",
    [
        window(1, 0, 31, 32),
        window(0, 0, 32, 31),
        window(0, 0, 33, 32),
        window(0, 96, 32, 5),
        window(64, 0, 5, 32),
        window(0, 0, 0, 32),
        window(-32, 0, 32, 32),
    ],
)
def test_a_region_that_cuts_a_chunk_is_refused(store, bad):
    with pytest.raises(PlanError):
        store.write(bad, np.zeros((2, bad.height, bad.width), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((1, 32, 32), np.uint8),
        np.zeros((2, 32, 31), np.uint8),
        np.zeros((2, 32, 32), np.int16),
    ],
)
def test_an_array_that_does_not_fit_is_refused(store, data):
    with pytest.raises(PlanError, match="region"):
        store.write(window(0, 0, 32, 32), data)


def test_the_last_chunks_may_end_at_the_edge(store):
    store.write(window(64, 96, 6, 4), np.full((2, 6, 4), 7, np.uint8))
    assert (store.read(window(64, 96, 6, 4)) == 7).all()


def test_an_opened_store_equals_the_made_one(store):
    assert RegionStore.open(store.path) == store


def test_xarray_and_our_sources_see_crs_transform_and_nodata(store, noise):
    store.write(window(0, 0, 32, 32), noise(2, 32, 32))
    dataset = xr.open_zarr(store.path, consolidated=False, decode_coords="all", chunks=None)
    assert dataset["raster"].rio.crs.to_epsg() == 32633
    assert dataset["raster"].rio.encoded_nodata == 255
    np.testing.assert_allclose(dataset.x[:2], [500000.5, 500001.0])
    source = open_source(store.path)
    assert source.grid == GRID
    assert source.nodata == 255
    block = source.read(window(0, 0, 40, 40))
    assert block.mask.sum() == 32 * 32


@pytest.mark.parametrize(
    ("dtype", "fill"), [("float32", math.nan), ("float64", -1.5), ("int32", -(2**31))]
)
def test_other_dtypes_keep_their_fill(tmp_path, dtype, fill):
    store = RegionStore.create(tmp_path / "f.zarr", (1, 70, 100), 50, dtype, fill, GRID)
    np.testing.assert_array_equal(store.read(window(0, 0, 2, 2)), np.full((1, 2, 2), fill, dtype))
    opened = RegionStore.open(store.path)
    np.testing.assert_equal(opened.fill, fill)
    source = open_source(store.path)
    assert not source.read(window(0, 0, 2, 2)).mask.any()


def test_pixel_space_and_band_names(tmp_path):
    grid = GeoGrid(width=5, height=4, transform=(1, 0, 0, 0, 1, 0))
    store = RegionStore.create(
        tmp_path / "p.zarr", (2, 4, 5), 512, "uint8", 255, grid, band_names=("a", "b")
    )
    assert store.chunk == (4, 5)
    assert RegionStore.open(store.path).band_names == ("a", "b")
    assert RegionStore.open(store.path).grid == grid


@pytest.mark.parametrize(
    ("shape", "chunk", "fill"),
    [((1, 70, 99), 32, 0), ((1, 70, 100), 0, 0), ((1, 70, 100), 32, 256)],
)
def test_a_store_that_cannot_be_is_refused(tmp_path, shape, chunk, fill):
    with pytest.raises(PlanError):
        RegionStore.create(tmp_path / "x.zarr", shape, chunk, "uint8", fill, GRID)


def test_what_is_no_store_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.zarr"):
        RegionStore.open(tmp_path / "none.zarr")


def test_a_full_disk_is_told_and_finished_regions_stay(store, noise, monkeypatch):
    store.write(window(0, 0, 32, 32), noise(2, 32, 32))

    class Full:
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(regions_module.RegionStore, "_array", lambda self: Full())
        with pytest.raises(OutputError, match="kept"):
            store.write(window(32, 0, 32, 32), noise(2, 32, 32))
    np.testing.assert_array_equal(store.read(window(0, 0, 32, 32)), noise(2, 32, 32))


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        RegionStore.create(tmp_path / "file" / "r.zarr", (2, 70, 100), 32, "uint8", 255, GRID)
