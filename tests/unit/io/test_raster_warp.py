from __future__ import annotations

import pickle

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.vrt import WarpedVRT

from geodl.base.errors import DataWarning, GridMismatchError, OptionError
from geodl.core.grid import GeoGrid, Window
from geodl.io import raster_warp
from geodl.io.crs import crs_text
from geodl.io.source import open_source


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks in small rasters, and nothing kept from other tests."""
    monkeypatch.setattr(raster_warp, "BLOCK_PX", 32)
    raster_warp._cache.clear()


def smooth(rows: int, cols: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:cols]
    return (120 + 60 * np.sin(x / 7) + 50 * np.cos(y / 5)).astype(np.float32)[None]


def test_the_grid_of_a_reprojection_is_gdals(make_tif, noise):
    path = make_tif(noise(70, 90))
    source = open_source(path, crs="EPSG:4326")
    with rasterio.open(path) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as view:
        assert source.grid.shape == view.shape
        np.testing.assert_allclose(source.grid.transform, tuple(view.transform)[:6], rtol=1e-12)
    assert source.grid.crs == crs_text(4326)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32634", "EPSG:3857"])
def test_nearest_takes_the_pixel_that_proj_finds(make_tif, noise, crs):
    data = noise(1, 70, 90)
    path = make_tif(data)
    source = open_source(path, crs=crs, resampling="nearest")
    block = source.read(source.grid.window)
    cols, rows = np.meshgrid(
        np.arange(source.grid.width) + 0.5, np.arange(source.grid.height) + 0.5
    )
    places = pyproj.Transformer.from_crs(crs, "EPSG:32633", always_xy=True).transform(
        *(source.grid.affine @ (cols, rows))
    )
    own_cols, own_rows = ~open_source(path).grid.affine @ places
    inside = (own_cols >= 0) & (own_cols < 90) & (own_rows >= 0) & (own_rows < 70)
    expected = data[0, own_rows[inside].astype(int), own_cols[inside].astype(int)]
    assert np.mean(block.data[0][inside] == expected) > 0.995
    assert np.mean(block.mask == inside) > 0.995


@settings(max_examples=25)
@given(data=st.data(), resampling=st.sampled_from(["nearest", "bilinear", "cubic", "average"]))
def test_any_window_holds_the_pixels_of_the_full_read(make_tif, data, resampling):
    values = smooth(70, 90)
    values[:, 20:30, 40:60] = -9999
    source = open_source(make_tif(values, nodata=-9999), crs="EPSG:4326", resampling=resampling)
    full = source.read(source.grid.window)
    height, width = source.grid.shape
    row = data.draw(st.integers(0, height - 1))
    col = data.draw(st.integers(0, width - 1))
    window = Window(
        row=row,
        col=col,
        height=data.draw(st.integers(1, height - row)),
        width=data.draw(st.integers(1, width - col)),
    )
    raster_warp._cache.clear()
    part = pickle.loads(pickle.dumps(source)).read(window)
    rows, cols = window.within(source.grid.window)
    np.testing.assert_array_equal(part.data, full.data[:, rows, cols])
    np.testing.assert_array_equal(part.mask, full.mask[rows, cols])


def test_a_crop_holds_the_pixels_of_the_whole(make_tif):
    path = make_tif(smooth(70, 90))
    whole = open_source(path, crs="EPSG:4326")
    xmin, ymin, xmax, ymax = whole.grid.bounds
    third = (xmax - xmin) / 3, (ymax - ymin) / 3
    bounds = (xmin + third[0], ymin + third[1], xmax - third[0], ymax - third[1])
    part = open_source(path, crs="EPSG:4326", bounds=bounds)
    window = whole.grid.window_for_bounds(*bounds)
    np.testing.assert_array_equal(part.read(part.grid.window).data, whole.read(window).data)


def test_bilinear_in_another_crs_is_close_to_the_surface(make_tif):
    values = smooth(70, 90)
    source = open_source(make_tif(values), crs="EPSG:32634")
    block = source.read(source.grid.window)
    with rasterio.open(make_tif(values)) as dataset:
        view = WarpedVRT(
            dataset,
            crs="EPSG:32634",
            transform=source.grid.affine,
            width=source.grid.width,
            height=source.grid.height,
            resampling=rasterio.enums.Resampling.bilinear,
            tolerance=0.01,
        )
        reference, mask = view.read(1), view.dataset_mask() > 0
        view.close()
    both = mask & block.mask
    assert both.mean() > 0.7
    assert np.abs(block.data[0] - reference)[both].max() < 1.5


def test_a_coarser_resolution_averages_and_a_finer_one_repeats(make_tif):
    values = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    coarse = open_source(make_tif(values), resolution=20, resampling="average")
    assert coarse.grid.transform == (20, 0, 500000, 0, -20, 5000000)
    expected = values.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.read(coarse.grid.window).data[0], expected)
    fine = open_source(make_tif(values), resolution=(5, 10), resampling="nearest")
    np.testing.assert_array_equal(fine.read(fine.grid.window).data[0], values[0].repeat(2, axis=1))


def test_part_pixels_at_the_far_edges_count_whole(make_tif, noise):
    source = open_source(make_tif(noise(7, 9)), resolution=20)
    assert source.grid.shape == (4, 5)


@pytest.mark.parametrize("nodata", [0, 255, 7])
def test_nodata_never_enters_a_kernel_and_stays_masked(make_tif, nodata):
    values = np.full((1, 40, 40), 100, np.uint8)
    values[:, :, 20:] = nodata
    source = open_source(make_tif(values, nodata=nodata), resolution=8, resampling="bilinear")
    block = source.read(source.grid.window)
    assert set(np.unique(block.data)) == {100, nodata}
    np.testing.assert_array_equal(block.mask, block.data[0] == 100)
    assert 0.49 < block.mask.mean() < 0.53


def test_a_mask_band_keeps_hidden_pixels_out_of_the_kernel(make_tif):
    values = np.full((1, 40, 40), 100, np.uint8)
    values[:, :, 20:] = 200
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    source = open_source(make_tif(values, mask=mask), resolution=8, resampling="cubic")
    block = source.read(source.grid.window)
    assert set(np.unique(block.data[:, block.mask])) == {100}


def test_nan_without_a_nodata_value_stays_out_of_the_kernel(make_tif):
    values = np.ones((1, 20, 20), np.float32)
    values[:, 5:9, 5:9] = np.nan
    source = open_source(make_tif(values), resolution=7)
    block = source.read(source.grid.window)
    assert np.all(block.data[:, block.mask] == 1)
    assert np.isnan(block.data[:, ~block.mask]).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
)
def test_every_dtype_keeps_its_values(make_tif, noise, dtype):
    values = (noise(2, 12, 12) // 2).astype(dtype)
    source = open_source(make_tif(values), resolution=5, resampling="nearest")
    block = source.read(source.grid.window)
    assert block.data.dtype == dtype
    np.testing.assert_array_equal(block.data, values.repeat(2, axis=1).repeat(2, axis=2))


def test_pixel_space_is_resampled_in_pixels(make_tif, noise):
    path = make_tif(noise(12, 12), crs=None)
    with pytest.warns(DataWarning):
        source = open_source(path, resolution=3, resampling="average")
    assert source.grid.transform == (3, 0, 0, 0, 3, 0)
    expected = noise(12, 12).reshape(4, 3, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(source.read(source.grid.window).data[0], expected, atol=0.51)


def test_a_strong_reduction_reads_bounded_windows(make_tif, noise, monkeypatch):
    monkeypatch.setattr(raster_warp, "SOURCE_SIDE_PX", 256)
    monkeypatch.setattr(raster_warp, "MIN_BLOCK_PX", 2)
    data = noise(1, 400, 400)
    source = open_source(make_tif(data), resolution=400, resampling="average")
    assert source.block_px == 4
    expected = data.reshape(10, 40, 10, 40).mean(axis=(1, 3))
    np.testing.assert_allclose(source.read(source.grid.window).data[0], expected, atol=0.51)


def test_snap_gives_crs_pixels_and_alignment_not_the_extent(make_tif, noise):
    snap = GeoGrid(
        width=2, height=2, transform=(20, 0, 500007, 0, -20, 5000003), crs=crs_text(32633)
    )
    source = open_source(make_tif(noise(30, 40)), snap=snap)
    a, _, x, _, e, y = source.grid.transform
    assert (a, e) == (20, -20)
    assert (x - 500007) % 20 == 0
    assert (y - 5000003) % 20 == 0
    xmin, ymin, xmax, ymax = source.grid.bounds
    assert xmin <= 500000 < xmin + 20
    assert xmax >= 500400 > xmax - 20
    assert ymin <= 4999700
    assert ymax >= 5000000


def test_a_raster_that_lies_on_the_lattice_is_not_resampled(make_tif, noise):
    path = make_tif(noise(30, 40))
    plain = open_source(path)
    assert (
        open_source(
            path, crs="EPSG:32633", snap=plain.grid.crop(Window(row=3, col=4, height=2, width=2))
        ).identity()["kind"]
        == "mosaic"
    )
    assert open_source(path, crs=32633) == plain
    assert open_source(path, resolution=10) == plain


def test_reprojecting_needs_a_crs_on_both_sides(make_tif, noise):
    path = make_tif(noise(5, 5), crs=None)
    with pytest.warns(DataWarning), pytest.raises(GridMismatchError, match="assume_crs"):
        open_source(path, crs=4326)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resampling": "bilinaer"}, "bilinear"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": "fine"}, "resolution"),
        ({"crs": "EPSG:999999"}, "CRS"),
        ({"bounds": (1, 2, 3)}, "four numbers"),
        ({"bounds": (3, 2, 1, 4)}, "empty"),
        ({"variable": "red"}, "variable"),
    ],
)
def test_options_outside_their_domain_are_named(make_tif, noise, options, message):
    with pytest.raises(OptionError, match=message):
        open_source(make_tif(noise(5, 5)), **options)


def test_bounds_that_miss_the_raster_say_where_it_lies(make_tif, noise):
    with pytest.raises(GridMismatchError, match=r"do not meet.*EPSG:32633"):
        open_source(make_tif(noise(5, 5)), bounds=(0, 0, 1, 1))


def test_a_snap_raster_in_another_crs_than_is_asked_for_is_refused(make_tif, noise):
    snap = make_tif(noise(4, 4), "snap.tif")
    with pytest.raises(OptionError, match=r"snap to lies in EPSG:32633, but EPSG:3857"):
        open_source(make_tif(noise(30, 40)), snap=snap, crs=3857)
