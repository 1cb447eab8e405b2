"""Zarr products in both formats: what rioxarray, GDAL and the conventions for Zarr make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - the accessor .rio
import xarray as xr
import zarr

from geodl.base.errors import OptionError
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_text
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.io.writers import write_raster

GRID = GeoGrid(
    width=100, height=70, transform=(0.5, 0, 500000.25, 0, -0.5, 5000000), crs=crs_text(32633)
)
CLASSES = ClassTable.from_mapping({3: "big tree"})


def regions(folder: Path) -> tuple[RegionStore, np.ndarray]:
    store = RegionStore.create(
        folder / "regions.zarr", (1, 70, 100), 32, "uint8", 255, GRID, band_names=("Class",)
    )
    pixels = np.full((1, 70, 100), 255, np.uint8)
    pixels[:, :64, :96] = np.random.default_rng(0).integers(0, 4, (1, 64, 96))
    for row in (0, 32):
        window = Window(row=row, col=0, height=32, width=96)
        store.write(window, pixels[:, row : row + 32, :96])
    return store, pixels


def product(folder: Path, zarr_format: int) -> tuple[Path, np.ndarray]:
    store, pixels = regions(folder)
    path = write_raster(store, folder / "map.zarr", classes=CLASSES, zarr_format=zarr_format)
    return path, pixels


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_rioxarray_sees_crs_transform_nodata_and_classes(tmp_path: Path, zarr_format: int) -> None:
    path, pixels = product(tmp_path, zarr_format)
    # Warnings are errors: the metadata are consolidated, or xarray would warn.
    with xr.open_zarr(path, decode_coords="all", mask_and_scale=False) as dataset:
        raster = dataset["raster"]
        assert raster.rio.crs.to_epsg() == 32633
        stated = dataset["spatial_ref"].attrs["GeoTransform"]
        assert list(map(float, stated.split())) == [500000.25, 0.5, 0, 5000000, 0, -0.5]
        np.testing.assert_allclose(raster.x[:2], [500000.5, 500001.0])
        np.testing.assert_array_equal(raster.to_numpy(), pixels)
        assert raster.attrs["flag_meanings"] == "background big_tree"
        assert raster.attrs["long_name"] == ["Class"]
    with xr.open_zarr(path, decode_coords="all") as dataset:
        assert dataset["raster"].rio.encoded_nodata == 255
        assert np.isnan(dataset["raster"].to_numpy()).sum() == (pixels == 255).sum()
    assert zarr.open_group(path, mode="r").metadata.zarr_format == zarr_format


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_our_sources_read_what_was_written(tmp_path: Path, zarr_format: int) -> None:
    path, pixels = product(tmp_path, zarr_format)
    source = open_source(path)
    assert (source.grid, source.nodata) == (GRID, 255)
    block = source.read(Window(row=10, col=20, height=60, width=80))
    np.testing.assert_array_equal(block.data, pixels[:, 10:, 20:])
    np.testing.assert_array_equal(block.mask, pixels[0, 10:, 20:] != 255)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_conventions_for_zarr_are_stated(tmp_path: Path, zarr_format: int) -> None:
    path, _ = product(tmp_path, zarr_format)
    facts = zarr.open_group(path, mode="r").attrs.asdict()
    assert facts["Conventions"].startswith("CF-")
    assert [entry["name"] for entry in facts["zarr_conventions"]] == ["proj", "spatial"]
    assert facts["proj:code"] == "EPSG:32633"
    assert rasterio.crs.CRS.from_wkt(facts["proj:wkt2"]).to_epsg() == 32633
    assert facts["spatial:dimensions"] == ["y", "x"]
    assert facts["spatial:shape"] == [70, 100]
    assert facts["spatial:transform"] == [0.5, 0, 500000.25, 0, -0.5, 5000000]
    assert facts["spatial:bbox"] == [500000.25, 4999965, 500050.25, 5000000]


def read_by_gdal(path: Path, pixels: np.ndarray) -> None:
    with rasterio.open(f'ZARR:"{path}":/raster') as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform[:6] == GRID.transform
        assert file.nodata == 255
        np.testing.assert_array_equal(file.read(), pixels)


def test_gdal_reads_format_2(tmp_path: Path) -> None:
    read_by_gdal(*product(tmp_path, 2))


@pytest.mark.skipif(
    tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < (3, 12),
    reason="GDAL reads these Zarr v3 stores from 3.12; wheels for Python 3.11 hold 3.10",
)
def test_gdal_reads_format_3(tmp_path: Path) -> None:
    read_by_gdal(*product(tmp_path, 3))


def test_floats_keep_their_missing_pixels_in_format_2(tmp_path: Path) -> None:
    store = RegionStore.create(tmp_path / "r.zarr", (2, 70, 100), 64, "float32", np.nan, GRID)
    square = Window(row=0, col=0, height=64, width=64)
    store.write(square, np.full((2, 64, 64), 0.25, np.float32))
    path = write_raster(store, tmp_path / "scores.zarr", zarr_format=2)
    with rasterio.open(f'ZARR:"{path}":/raster') as file:
        assert np.isnan(file.nodata)
        assert (file.count, np.nansum(file.read())) == (2, 2 * 64 * 64 * 0.25)


def test_a_format_that_is_none_or_a_file_that_has_none_is_refused(tmp_path: Path) -> None:
    store, _ = regions(tmp_path)
    with pytest.raises(OptionError, match="zarr_format"):
        write_raster(store, tmp_path / "a.zarr", zarr_format=4)
    with pytest.raises(OptionError, match="no Zarr store"):
        write_raster(store, tmp_path / "a.tif", zarr_format=2)


def test_a_store_left_half_made_is_none(tmp_path: Path) -> None:
    store, _ = regions(tmp_path)
    assert RegionStore.exists(store.path)
    assert not RegionStore.exists(tmp_path / "none.zarr")
    group = zarr.open_group(store.path, mode="r+")
    del group.attrs["Conventions"]
    assert not RegionStore.exists(store.path)
