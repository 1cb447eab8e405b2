from __future__ import annotations

import os
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr

from geodl.base.errors import DataWarning, OptionError, SourceError
from geodl.core.grid import Window
from geodl.io.crs import crs_text
from geodl.io.source import open_source

UTM = "EPSG:32633"
MONTHS = np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "datetime64[ns]")


def raster(data, *, upwards: bool = False, crs: str | None = UTM, dims=("band", "y", "x")):
    rows, cols = data.shape[-2:]
    y = 4999995.0 - 10 * np.arange(rows)
    if upwards:
        y, data = y[::-1], data[..., ::-1, :]
    array = xr.DataArray(
        data, dims=dims, coords={"y": y, "x": 500005.0 + 10 * np.arange(cols)}, name="scene"
    )
    return array if crs is None else array.rio.write_crs(crs)


def whole(source):
    return source.read(source.grid.window).data


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_rows_run_downwards_whatever_the_array_does(noise, upwards, lazy):
    data = noise(3, 6, 7)
    array = raster(data, upwards=upwards)
    source = open_source(array.chunk({"y": 4, "x": 3}) if lazy else array)
    assert source.grid.transform == (10, 0, 500000, 0, -10, 5000000)
    assert source.grid.crs == crs_text(UTM)
    np.testing.assert_array_equal(whole(source), data)
    part = source.read(Window(row=2, col=1, height=3, width=4))
    np.testing.assert_array_equal(part.data, data[:, 2:5, 1:5])


def test_dimensions_in_any_order_and_of_two_or_three(noise):
    data = noise(3, 6, 7)
    np.testing.assert_array_equal(
        whole(open_source(raster(data).transpose("y", "x", "band"))), data
    )
    np.testing.assert_array_equal(whole(open_source(raster(data[0], dims=("y", "x")))), data[:1])
    one_time = raster(data).expand_dims(time=[np.datetime64("2020-01-01")])
    np.testing.assert_array_equal(whole(open_source(one_time)), data)


def test_longitude_and_latitude_are_degrees(noise):
    data = noise(4, 5)
    array = xr.DataArray(
        data, dims=("lat", "lon"), coords={"lat": 50.0 - np.arange(4), "lon": 10.0 + np.arange(5)}
    )
    source = open_source(array)
    assert source.grid.crs == crs_text(4326)
    assert source.grid.bounds == (9.5, 46.5, 14.5, 50.5)


def test_of_a_dask_array_only_the_chunks_of_the_window_are_computed(noise):
    computed: list[tuple[int, ...]] = []

    def note(block):
        computed.append(block.shape)
        return block

    data = noise(1, 8, 8)
    lazy = da.from_array(data, chunks=(1, 4, 4))
    lazy = lazy.map_blocks(note, dtype="uint8", meta=np.zeros((0, 0, 0), "uint8"))
    source = open_source(raster(lazy))
    part = source.read(Window(row=0, col=5, height=3, width=3))
    np.testing.assert_array_equal(part.data, data[:, :3, 5:])
    assert computed == [(1, 4, 4)]
    assert source.block_shape == (4, 4)


def test_the_synchronous_scheduler_reads_inside_a_task(noise):
    schedulers: list[str] = []

    def note(block):
        import threading

        schedulers.append(threading.current_thread().name)
        return block

    lazy = da.from_array(noise(1, 8, 8), chunks=(1, 2, 2)).map_blocks(note, dtype="uint8")
    open_source(raster(lazy)).read(Window(row=0, col=0, height=8, width=8))
    assert set(schedulers[-16:]) == {"MainThread"}


def test_nodata_nan_and_the_mask_coordinate_count(noise):
    data = np.ones((2, 3, 3), np.float32)
    data[:, 0, 0] = np.nan
    data[:, 1, 1] = -1
    stated = np.ones((3, 3), bool)
    stated[2, 2] = False
    array = raster(data).rio.write_nodata(-1).assign_coords(mask=(("y", "x"), stated))
    block = open_source(array).read(Window(row=0, col=0, height=3, width=3))
    expected = stated.copy()
    expected[0, 0] = expected[1, 1] = False
    np.testing.assert_array_equal(block.mask, expected)


def test_a_cut_array_keeps_the_exact_transform(make_tif, noise):
    cell = 0.1
    path = make_tif(noise(50, 60), cell=cell, origin=(500000.3, 5000000.7))
    with rioxarray.open_rasterio(path) as array:
        source = open_source(array[:, 7:40, 13:50])
    full = open_source(path).grid
    assert source.grid == full.crop(Window(row=7, col=13, height=33, width=37))


def test_rotated_arrays_take_the_stored_transform(noise):
    turned = rasterio.Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5000000.0)
    array = xr.DataArray(noise(1, 5, 6), dims=("band", "y", "x"))
    array = array.rio.write_crs(UTM).rio.write_transform(turned)
    assert open_source(array).grid.transform == tuple(turned)[:6]


def test_without_a_crs_arrays_lie_in_pixel_space(noise):
    array = xr.DataArray(noise(3, 5, 6), dims=("band", "y", "x"))
    with pytest.warns(DataWarning, match="pixel space"):
        source = open_source(array)
    assert source.grid.transform == (1, 0, 0, 0, 1, 0)
    np.testing.assert_array_equal(whole(source), noise(3, 5, 6))
    assert open_source(raster(noise(1, 5, 6), crs=None), assume_crs=UTM).grid.bounds == (
        500000, 4999950, 500060, 5000000,
    )  # fmt: skip


def test_names_of_bands_come_from_the_array(noise):
    array = raster(noise(2, 4, 4)).assign_coords(band=["red", "nir"])
    assert open_source(array).band_names == ("red", "nir")
    np.testing.assert_array_equal(whole(open_source(array, bands="nir")), noise(2, 4, 4)[1:])
    attributed = raster(noise(2, 4, 4)).assign_attrs(long_name=("a", "b"))
    assert open_source(attributed).band_names == ("a", "b")


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (raster(np.zeros((2, 3, 3))).astype(str), SourceError, "numbers"),
        (xr.DataArray(np.zeros(4), dims="x"), SourceError, "y and x"),
        (
            xr.DataArray(np.zeros((2, 3, 4, 5)), dims=("model", "band", "y", "x")),
            SourceError,
            "model",
        ),
        (raster(np.zeros((1, 4, 3))).assign_coords(x=[0.0, 1.0, 5.0]), SourceError, "evenly"),
        (
            xr.DataArray(np.zeros((1, 4, 3)), dims=("b", "y", "x")).rio.write_crs(UTM),
            SourceError,
            "transform",
        ),
        (
            xr.DataArray(np.zeros((3, 4, 3)), {"time": MONTHS}, ("time", "y", "x")),
            SourceError,
            r"3 times \(2020-01-01T00:00:00 .. 2020-03-01T00:00:00\)",
        ),
    ],
)
def test_arrays_that_are_no_raster_say_why(array, error, message):
    with pytest.raises(error, match=message):
        open_source(array)


def test_one_time_of_a_series_by_date_or_position(noise):
    data = noise(3, 2, 4, 5)
    times = np.array(["2020-01-05", "2020-02-05", "2021-02-05"], "datetime64[ns]")
    series = raster(data, dims=("time", "band", "y", "x")).assign_coords(time=times)
    for time, position in (("2020-02", 1), ("2021", 2), (0, 0), (-1, 2), (times[1], 1)):
        np.testing.assert_array_equal(whole(open_source(series, time=time)), data[position])
    for wrong in ("2020", "1999", 7):
        with pytest.raises(OptionError, match="3"):
            open_source(series, time=wrong)
    with pytest.raises(OptionError, match="no time axis"):
        open_source(raster(data[0]), time=0)


def test_a_dataset_of_several_rasters_lists_them(noise):
    dataset = xr.Dataset(
        {
            "red": raster(noise(4, 4), dims=("y", "x")),
            "cloud": raster(noise(4, 4, seed=1), dims=("y", "x")),
        }
    )
    with pytest.raises(SourceError, match=r"variable=...\): cloud, red"):
        open_source(dataset)
    with pytest.raises(OptionError, match="cloud"):
        open_source(dataset, variable="clouds")
    np.testing.assert_array_equal(
        whole(open_source(dataset, variable="cloud"))[0], noise(4, 4, seed=1)
    )
    assert open_source(dataset[["red"]]).grid.crs == crs_text(UTM)


def test_identity_is_the_content(noise):
    one, same, other = (open_source(raster(noise(1, 4, 4, seed=s))) for s in (0, 0, 1))
    assert one.identity() == same.identity() != other.identity()
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(whole(again), whole(one))
    assert again.identity() == one.identity()


def test_a_file_behind_an_array_is_not_read_to_know_it(make_tif, noise, monkeypatch):
    data = noise(2, 20, 20)
    path = make_tif(data)
    with rioxarray.open_rasterio(path, cache=False) as array:
        first = open_source(array)
        assert not array.variable._in_memory
        np.testing.assert_array_equal(whole(first), data)
        assert open_source(array[:, 3:]).identity() != first.identity()
    with rioxarray.open_rasterio(path) as array:
        assert open_source(array).identity() == first.identity()
    os.utime(path, ns=(1, 1))
    with rioxarray.open_rasterio(path) as array:
        assert open_source(array).identity() != first.identity()


def test_an_array_that_cannot_be_computed_names_itself(noise):
    def fail(block):
        raise OSError("disk gone")

    lazy = da.from_array(noise(1, 4, 4)).map_blocks(
        fail, dtype="uint8", meta=np.zeros((0, 0, 0), "uint8")
    )
    with pytest.raises(SourceError, match=r"scene.*disk gone"):
        open_source(raster(lazy)).read(Window(row=0, col=0, height=2, width=2))
    assert dask.is_dask_collection(lazy)


def test_an_array_that_a_cluster_holds_is_refused(noise, workers):
    lazy = raster(da.from_array(noise(1, 4, 4), chunks=2))
    held = workers.persist(lazy)
    with pytest.raises(SourceError, match=r"scene.*persisted on a Dask cluster"):
        open_source(held + 1)
    open_source(lazy)
