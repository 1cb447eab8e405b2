from __future__ import annotations

import pickle
import warnings

import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr

from geodl.base.errors import DataWarning, OptionError, SourceError, SourceNotFoundError
from geodl.core.grid import Window
from geodl.io import datasets
from geodl.io.crs import crs_text
from geodl.io.raster import open_raster
from geodl.io.source import open_source


@pytest.fixture
def scene(noise):
    def make(**extra: np.ndarray) -> xr.Dataset:
        data = noise(2, 30, 40, dtype="int16")
        data[:, 0, 0] = -1
        coords = {"y": 4999995.0 - 10 * np.arange(30), "x": 500005.0 + 10 * np.arange(40)}
        variables = {"scene": (("band", "y", "x"), data, {"_FillValue": np.int16(-1)})}
        variables |= {name: (("y", "x"), values) for name, values in extra.items()}
        return xr.Dataset(variables, coords).rio.write_crs(32633)

    return make


def save(dataset: xr.Dataset, path, kind: str):
    if kind == "netcdf":
        target = path / "a.nc"
        dataset.to_netcdf(target, engine="h5netcdf")
    else:
        target = path / "a.zarr"
        version = int(kind[-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in dataset.data_vars:
                if dataset[name].ndim == 3:
                    dataset[name].encoding["chunks"] = (2, 16, 16)
            dataset.to_zarr(target, zarr_format=version, consolidated=version == 2)
    return target


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "netcdf"])
def test_stores_are_read_raw_with_crs_transform_and_nodata(scene, tmp_path, kind):
    dataset = scene()
    source = open_source(save(dataset, tmp_path, kind))
    assert source.dtype == np.int16
    assert source.nodata == -1
    assert source.grid.crs == crs_text(32633)
    assert source.grid.transform == (10, 0, 500000, 0, -10, 5000000)
    block = source.read(Window(row=0, col=0, height=20, width=7))
    np.testing.assert_array_equal(block.data, dataset["scene"].values[:, :20, :7])
    assert not block.mask[0, 0]
    assert block.mask.sum() == 139
    again = pickle.loads(pickle.dumps(source))
    datasets._opened.clear()
    np.testing.assert_array_equal(
        again.read(Window(row=29, col=39, height=1, width=1)).data,
        dataset["scene"].values[:, 29:, 39:],
    )
    assert len(pickle.dumps(source)) < 6000


def test_chunks_of_a_store_guide_the_array(scene, tmp_path):
    path = save(scene(), tmp_path, "zarr3")
    assert open_source(path).block_shape == (16, 16)


def test_packed_values_stay_packed(tmp_path):
    values = np.array([[1.5, 2.0], [2.5, 3.0]])
    array = xr.DataArray(values, dims=("lat", "lon"), coords={"lat": [2.0, 1.0], "lon": [5.0, 6.0]})
    array.name = "t"
    array.encoding = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -99}
    array.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    source = open_source(tmp_path / "p.nc")
    assert source.nodata == -99
    np.testing.assert_array_equal(source.read(source.grid.window).data, [[[1, 2], [3, 4]]])


def test_several_variables_are_listed_and_chosen(scene, tmp_path, noise):
    path = save(scene(quality=noise(30, 40)), tmp_path, "zarr3")
    with pytest.raises(SourceError, match=r"a\.zarr holds several.*quality, scene"):
        open_source(path)
    with pytest.raises(OptionError, match="quality"):
        open_source(path, variable="qualty")
    chosen = open_source(path, variable="quality")
    np.testing.assert_array_equal(chosen.read(chosen.grid.window).data[0], noise(30, 40))


def test_a_series_opens_along_time(tmp_path, noise):
    data = noise(3, 4, 5)
    times = np.array(["2020-01-01", "2020-01-11", "2020-01-21"], "datetime64[ns]")
    coords = {"time": times, "lat": [1.0, 2.0, 3.0, 4.0], "lon": np.arange(5.0)}
    xr.Dataset({"ndvi": (("time", "lat", "lon"), data)}, coords).to_netcdf(
        tmp_path / "s.nc", engine="h5netcdf"
    )
    with pytest.raises(SourceError, match="3 times"):
        open_source(tmp_path / "s.nc")
    one = open_source(tmp_path / "s.nc", time="2020-01-11")
    np.testing.assert_array_equal(one.read(one.grid.window).data[0], data[1, ::-1])
    series = open_raster(tmp_path / "s.nc")
    assert series.dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(series.time.values, times)
    np.testing.assert_array_equal(series.values[:, 0], data[:, ::-1])
    assert series.mask.shape == (3, 4, 5)
    assert series.rio.crs.to_epsg() == 4326
    assert open_raster(tmp_path / "s.nc", time=2).dims == ("band", "y", "x")


def test_identity_changes_with_the_store(scene, tmp_path):
    path = save(scene(), tmp_path, "zarr3")
    first = open_source(path).identity()
    assert open_source(path).identity() == first
    (path / "scene" / "c" / "0" / "0" / "0").write_bytes(b"")
    assert open_source(path).identity() != first


def test_a_damaged_chunk_names_store_and_window(scene, tmp_path):
    path = save(scene(), tmp_path, "zarr3")
    (path / "scene" / "c" / "0" / "1" / "1").write_bytes(b"nonsense")
    source = open_source(path)
    source.read(Window(row=0, col=0, height=16, width=16))
    with pytest.raises(SourceError, match=r"a\.zarr: rows 16\.\.20"):
        source.read(Window(row=16, col=16, height=4, width=4))


def test_arrays_in_groups_of_a_zarr_store_are_told_where_they_lie(scene, tmp_path):
    scene().to_zarr(tmp_path / "deep.zarr", group="measured/r10m", consolidated=False)
    with pytest.raises(SourceError, match=r"give one of them: \S*deep\.zarr/measured/r10m$"):
        open_source(tmp_path / "deep.zarr")
    assert open_source(tmp_path / "deep.zarr" / "measured" / "r10m").count == 2


def test_a_bare_zarr_array_opens_as_the_error_advises(tmp_path, noise):
    data = noise(2, 8, 9)
    zarr.create_array(tmp_path / "bare.zarr", data=data)
    with pytest.raises(SourceError, match=r"dask\.array\.from_zarr"):
        open_source(tmp_path / "bare.zarr")
    array = xr.DataArray(da.from_zarr(tmp_path / "bare.zarr"), dims=("band", "y", "x"))
    with pytest.warns(DataWarning, match="states no CRS"):
        np.testing.assert_array_equal(open_raster(array), data)


def test_stores_that_cannot_be_opened_are_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.zarr"):
        open_source(tmp_path / "none.zarr")
    (tmp_path / "bad.nc").write_bytes(b"text, not data")
    with pytest.raises(SourceError, match=r"bad\.nc cannot be opened as a NetCDF"):
        open_source(tmp_path / "bad.nc")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{]")
    with pytest.raises(SourceError, match=r"bad\.zarr cannot be opened as a Zarr store"):
        open_source(tmp_path / "bad.zarr")
