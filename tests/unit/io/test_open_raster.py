from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import rasterio

import geodl
from geodl.base.errors import DataWarning, OptionError
from geodl.core.grid import Window
from geodl.functions import extract_band
from geodl.io.known import known_source
from geodl.io.raster import as_array, open_raster
from geodl.io.raster_array import ArrayRaster
from geodl.io.raster_file import RasterFile
from geodl.io.source import open_source

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def test_the_array_carries_what_the_file_states(make_tif, noise):
    path = make_tif(noise(3, 30, 40), nodata=0, descriptions=("red", "green", "blue"))
    array = geodl.open_raster(path)
    assert array.dims == ("band", "y", "x")
    assert dask.is_dask_collection(array.data)
    assert array.dtype == np.uint8
    assert array.band.values.tolist() == [1, 2, 3]
    assert array.band.attrs["long_name"] == ["red", "green", "blue"]
    assert array.coords["long_name"].values.tolist() == ["red", "green", "blue"]
    with rasterio.open(path) as dataset:
        assert array.rio.crs == dataset.crs
        assert array.rio.transform() == dataset.transform
        assert array.rio.nodata == 0
        np.testing.assert_allclose(array.x[:2], [500005, 500015])
        np.testing.assert_allclose(array.y[:2], [4999995, 4999985])
        np.testing.assert_array_equal(array.values, dataset.read())
        np.testing.assert_array_equal(array.mask.values, dataset.dataset_mask() > 0)
    assert array.mask.dims == ("y", "x")
    assert array.mask.dtype == bool
    assert dask.is_dask_collection(array.mask.data)


def test_bands_without_names_get_none(make_tif, noise):
    array = open_raster(make_tif(noise(2, 5, 5)))
    assert "long_name" not in array.coords
    assert array.band.attrs == {}


def test_scale_and_offset_stay_in_the_attributes(make_tif):
    path = make_tif(np.ones((2, 3, 3), np.int16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5, 0.5), (1.0, 2.0)
    array = open_raster(path)
    assert array.attrs["scale_factor"] == 0.5
    assert array.attrs["add_offset"] == (1.0, 2.0)
    assert (array.values == 1).all()


def test_masked_is_float_with_nan(make_tif):
    array = open_raster(make_tif(np.array([[0, 2]], np.uint8), nodata=0), masked=True)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.values, [[[np.nan, 2]]])
    assert np.isnan(array.rio.nodata)


def test_options_reach_the_source(make_tif, noise):
    path = make_tif(noise(3, 30, 40))
    array = open_raster(
        path, bands=[2], bounds=(500000, 4999800, 500200, 5000000), resolution=20, nodata=9
    )
    assert array.shape == (1, 10, 10)
    assert array.rio.nodata == 9
    assert open_raster(path, crs=4326).rio.crs.to_epsg() == 4326


def test_without_a_crs_there_is_one_warning(make_tif, noise):
    path = make_tif(noise(5, 6), crs=None)
    with pytest.warns(DataWarning) as caught:
        array = open_raster(path)
    assert len(caught) == 1
    assert array.rio.crs is None
    np.testing.assert_allclose(array.y, [0.5, 1.5, 2.5, 3.5, 4.5])
    assert open_source(array).grid.crs is None


@pytest.mark.parametrize(
    ("chunks", "rows", "cols"),
    [
        (16, (16, 14), (16, 16, 8)),
        ((30, 20), (30,), (20, 20)),
        ((3, 10, 40), (10, 10, 10), (40,)),
        ({"y": 15}, (15, 15), (40,)),
        ("auto", (30,), (40,)),
    ],
)
def test_chunks(make_tif, noise, chunks, rows, cols):
    data = noise(3, 30, 40)
    array = open_raster(make_tif(data), chunks=chunks)
    assert array.chunks == ((3,), rows, cols)
    assert array.mask.chunks == (rows, cols)
    np.testing.assert_array_equal(array.values, data)


def test_chunks_that_fit_nothing_are_refused(make_tif, noise):
    with pytest.raises(OptionError, match="chunks"):
        open_raster(make_tif(noise(5, 5)), chunks=(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("size", "profile", "rows", "cols"),
    [
        ((1, 3000, 3000), {"tiled": True, "blockxsize": 512, "blockysize": 512}, 2048, 2048),
        ((1, 3000, 3000), {"tiled": True, "blockxsize": 768, "blockysize": 768}, 1536, 1536),
        ((1, 5000, 600), {"tiled": False, "blockysize": 100}, 2000, 600),
        ((40, 64, 64), {"tiled": True, "blockxsize": 16, "blockysize": 16}, 64, 64),
    ],
)
def test_auto_chunks_are_whole_tiles(make_tif, size, profile, rows, cols):
    path = make_tif(np.zeros(size, np.uint8), compress="deflate", sparse_ok=True, **profile)
    array = open_raster(path)
    assert array.chunks[1][0] == rows
    assert array.chunks[2][0] == cols


def test_task_names_are_readable_and_pixels_and_mask_share_a_read(make_tif, noise, monkeypatch):
    array = open_raster(make_tif(noise(3, 30, 40), "my scene-1.tif"), chunks=16)
    names = {dask.utils.key_split(name) for name in array.data.dask.layers}
    assert names == {"geodl_read_my_scene_1", "geodl_pixels_my_scene_1"}
    windows: list[Window] = []
    original = RasterFile.read

    def counted(self, window):
        windows.append(window)
        return original(self, window)

    monkeypatch.setattr(RasterFile, "read", counted)
    dask.compute(array.data, array.mask.data, scheduler="sync")
    assert len(windows) == 6


def test_nothing_is_read_until_it_is_computed(make_tif, noise, monkeypatch):
    def fail(self, window):
        raise AssertionError("read")

    monkeypatch.setattr(RasterFile, "read", fail)
    array = open_raster(make_tif(noise(3, 30, 40), nodata=0), masked=True, chunks=8)
    _ = (array * 2)[:, :3].mask


def test_threads_and_processes_read_the_same(make_tif, noise):
    data = noise(3, 60, 60)
    array = open_raster(make_tif(data, tiled=True, blockxsize=16, blockysize=16), chunks=16)
    np.testing.assert_array_equal(array.compute(scheduler="threads").values, data)
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again.values, data)


def test_a_tool_reads_windows_of_the_source_behind_an_array(make_tif, noise):
    path = make_tif(noise(3, 30, 40), nodata=0)
    array = open_raster(path, bands=[3, 1])
    source = open_source(array)
    assert isinstance(source, RasterFile)
    assert source == open_source(path, bands=[3, 1])
    assert isinstance(open_source(array, bands=[2]), RasterFile)
    assert open_source(array, nodata=7).nodata == 7


@pytest.mark.parametrize(
    "touch",
    [
        lambda a: a + 1,
        lambda a: a[:, 3:],
        lambda a: a.isel(band=[0]),
        lambda a: a.assign_coords(x=a.x + 5),
        lambda a: a.rio.write_crs(32634),
        lambda a: a.rio.write_nodata(3),
        lambda a: a.drop_vars("mask"),
        lambda a: a.compute(),
    ],
)
def test_a_touched_array_is_no_longer_its_source(make_tif, noise, touch):
    array = touch(open_raster(make_tif(noise(3, 30, 40), nodata=0)))
    assert known_source(array) is None
    source = open_source(array)
    assert isinstance(source, ArrayRaster)
    block = source.read(source.grid.window)
    np.testing.assert_array_equal(block.data, array.values)
    if "mask" in array.coords:
        np.testing.assert_array_equal(
            block.mask, array.mask.values & (block.data != (source.nodata or 0)).any(axis=0)
        )


def test_masks_survive_arithmetic(make_tif, noise):
    data = noise(1, 6, 6)
    data[0, 2:, :] = 0
    ndvi = open_raster(make_tif(data, nodata=0)).astype("float32") / 2.0 + 1.0
    ndvi.attrs.pop("_FillValue", None)
    source = open_source(ndvi)
    np.testing.assert_array_equal(source.read(source.grid.window).mask, data[0] > 0)


def test_rotated_rasters_have_a_transform_and_no_axes(make_tif, noise):
    turned = rasterio.Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5000000.0)
    array = open_raster(make_tif(noise(5, 6), transform=turned))
    assert "x" not in array.coords
    assert array.rio.transform() == turned
    assert isinstance(open_source(array), RasterFile)
    assert open_source(array + 0).grid.transform == tuple(turned)[:6]


def test_extracted_bands_count_from_one_and_read_no_others(make_tif, noise):
    data = noise(4, 8, 9)
    path = make_tif(data, descriptions=("b", "g", "r", "n"))
    array = extract_band(path, [3, 2, 1])
    np.testing.assert_array_equal(array.values, data[[2, 1, 0]])
    assert array.band.values.tolist() == [1, 2, 3]
    again = extract_band(array, 1)
    np.testing.assert_array_equal(again.values, data[[2]])
    source = open_source(again)
    assert isinstance(source, RasterFile)
    assert source.band_numbers == (3,)
    np.testing.assert_array_equal(extract_band(array.compute(), "g").values, data[[1]])
    with pytest.raises(OptionError, match="no band 5"):
        extract_band(path, [5])


def test_any_source_becomes_an_array(make_tif, noise):
    source = open_source(make_tif(noise(2, 8, 8)))
    array = as_array(source)
    assert open_source(array) is source
