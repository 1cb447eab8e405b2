"""Sources on real files: odd TIFFs, NetCDF, drone and satellite imagery."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geodl.base.errors import DataWarning, GridMismatchError, SourceError
from geodl.core.grid import Window
from geodl.io.crs import crs_text
from geodl.io.raster import open_raster
from geodl.io.source import open_source
from geodl.io.vector import read_features

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]

ODD = (
    "RGB.byte.tif", "RGB2.byte.tif", "all-nodata.tif", "byte.tif", "float.tif", "float32.tif",
    "float_nan.tif", "float_raster_with_nodata.tif", "goes.tif", "green.tif", "red.tif",
    "rotated.tif", "shade.tif", "test_esri_wkt.tif", "white-gemini-iv.vrt", "world.byte.tif",
    "389225main_sw_1965_1024.jpg",
)  # fmt: skip
WITHOUT_CRS = {
    "float.tif", "float32.tif", "float_nan.tif", "rotated.tif", "389225main_sw_1965_1024.jpg",
}  # fmt: skip


def open_real(path: Path):
    """A source; the warning of a missing CRS exactly where one is due."""
    if path.name not in WITHOUT_CRS:
        return open_source(path)
    with pytest.warns(DataWarning, match="pixel space"):
        return open_source(path)


@pytest.mark.parametrize("name", ODD)
def test_odd_tiffs_hold_the_pixels_and_mask_that_gdal_sees(sample_data, name):
    path = sample_data / "odd_tiff" / name
    source = open_real(path)
    block = source.read(source.grid.window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(block.data, dataset.read())
            np.testing.assert_array_equal(block.mask, dataset.read_masks().any(axis=0))
    height, width = source.grid.shape
    part = Window(row=height // 3, col=width // 4, height=height // 2, width=width // 2)
    rows, cols = part.within(source.grid.window)
    again = source.read(part)
    np.testing.assert_array_equal(again.data, block.data[:, rows, cols])
    np.testing.assert_array_equal(again.mask, block.mask[rows, cols])


def test_a_damaged_tile_names_file_and_window(sample_data):
    source = open_source(sample_data / "odd_tiff" / "corrupt.tif")
    with pytest.raises(SourceError, match=r"corrupt\.tif: the window of rows 0\.\.1024"):
        source.read(source.grid.window)


def test_ground_control_points_place_the_picture(sample_data):
    source = open_source(sample_data / "odd_tiff" / "white-gemini-iv.vrt")
    assert source.grid.crs == crs_text(32618)
    corners = [source.grid.affine @ corner for corner in ((0, 0), (1024, 0), (0, 768))]
    expected = [(157168, 2818194), (338615, 2786088), (116792, 2651340)]
    np.testing.assert_allclose(corners, expected, atol=1e-3)


def test_the_alpha_of_a_drone_picture_is_its_mask(sample_data):
    array = open_raster(sample_data / "drone_ortho" / "dummy_fotomap_small.tif")
    assert array.sizes["band"] == 3
    assert array.coords["long_name"].values.tolist() == ["red", "green", "blue"]


def test_two_years_off_each_others_grid_make_a_mosaic(sample_data):
    folder = sample_data / "naip_prairie"
    paths = [
        folder / "m_4709963_se_14_1_20150926.tif",
        folder / "m_4709963_se_14_1_20090818.tif",
    ]
    mosaic, first = open_source(paths), open_source(paths[0])
    window = mosaic.grid.window_for_bounds(*first.grid.bounds)
    top = first.read(first.grid.window)
    shown = mosaic.read(window)
    np.testing.assert_array_equal(shown.data[:, top.mask], top.data[:, top.mask])
    assert mosaic.grid.shape == (725, 934)


def test_landsat_in_metres_is_where_it_was_in_degrees(sample_data):
    path = sample_data / "landsat_peru" / "2015.tif"
    degrees = open_source(path)
    metres = open_source(path, crs="EPSG:32718", resolution=30, resampling="nearest")
    back = open_source(metres, snap=degrees.grid, resampling="nearest")
    corner = back.grid.window_for_bounds(*degrees.grid.bounds)
    inner = Window(row=100, col=100, height=200, width=400)
    seen = back.read(inner.shift(corner.row, corner.col)).data.astype(int)
    truth = degrees.read(inner).data.astype(int)
    correlation = np.corrcoef(seen.ravel(), truth.ravel())[0, 1]
    assert correlation > 0.95


def test_climate_series_open_along_time(sample_data):
    series = open_raster(sample_data / "climate_nc" / "A1B_north_america.nc")
    assert series.dims == ("time", "band", "y", "x")
    assert series.shape == (240, 1, 37, 49)
    assert float(series.y[0]) > float(series.y[-1])
    one = open_raster(sample_data / "climate_nc" / "ostia_monthly.nc", time="2006-04")
    assert one.shape == (1, 18, 432)
    assert one.rio.crs.is_geographic
    values, mask = one.values, one.mask.values
    assert 250 < values[0][mask].min() < values[0][mask].max() < 320


def test_geojson_in_metres_without_a_crs_asks_for_it(sample_data):
    folder = sample_data / "fields_nebraska"
    scene = open_source(folder / "sample_geotiff_custom_proj.tif")
    labels = folder / "geotiff_custom_proj_labels.geojson"
    with pytest.raises(GridMismatchError, match="assume_crs"):
        read_features(labels, crs=scene.grid.crs)
    fields = read_features(labels, crs=scene.grid.crs, assume_crs=scene.grid.crs)
    inside = scene.grid.window_for_bounds(*fields.total_bounds)
    assert not inside.empty
