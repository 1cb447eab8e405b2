from __future__ import annotations

import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geodl.base.errors import DataWarning, OptionError, PlanError, SourceError, SourceNotFoundError
from geodl.core.blocks import RasterSource
from geodl.core.grid import Window
from geodl.io import handles
from geodl.io.source import open_source


def whole(source: RasterSource) -> np.ndarray:
    return source.read(source.grid.window).data


def test_a_source_describes_its_file(make_tif, noise):
    source = open_source(make_tif(noise(3, 30, 40), nodata=0))
    assert isinstance(source, RasterSource)
    assert (source.count, source.dtype, source.nodata) == (3, np.uint8, 0)
    assert source.grid.shape == (30, 40)
    assert source.grid.transform == (10, 0, 500000, 0, -10, 5000000)
    assert source.grid.crs is not None
    assert rasterio.crs.CRS.from_wkt(source.grid.crs).to_epsg() == 32633
    assert source.band_names == ("Band_1", "Band_2", "Band_3")


@pytest.mark.parametrize(
    "window",
    [
        Window(row=0, col=0, height=1, width=1),
        Window(row=29, col=39, height=1, width=1),
        Window(row=0, col=33, height=30, width=7),
        Window(row=17, col=0, height=13, width=40),
        Window(row=3, col=5, height=20, width=21),
    ],
)
def test_any_window_is_the_same_part_of_the_whole(make_tif, noise, window):
    data = noise(3, 30, 40)
    source = open_source(make_tif(data, tiled=True, blockxsize=16, blockysize=16))
    block = source.read(window)
    rows, cols = window.within(source.grid.window)
    np.testing.assert_array_equal(block.data, data[:, rows, cols])
    assert block.mask.shape == (window.height, window.width)
    assert block.mask.all()


@pytest.mark.parametrize(
    "window",
    [
        Window(row=-1, col=0, height=5, width=5),
        Window(row=26, col=0, height=5, width=5),
        Window(row=0, col=0, height=0, width=5),
    ],
)
def test_a_window_that_leaves_the_raster_is_refused(make_tif, noise, window):
    path = make_tif(noise(30, 40))
    with pytest.raises(PlanError, match=r"a\.tif"):
        open_source(path).read(window)


def test_a_pixel_is_data_where_any_selected_band_has_data(make_tif, noise):
    data = noise(2, 4, 5)
    data[:, 0, 0] = 0
    data[0, 1, 1] = 0
    path = make_tif(data, nodata=0)
    both = open_source(path).read(Window(row=0, col=0, height=4, width=5)).mask
    assert not both[0, 0]
    assert both[1, 1]
    first = open_source(path, bands=1).read(Window(row=0, col=0, height=4, width=5)).mask
    assert not first[1, 1]
    assert first.sum() == 18


def test_nan_is_no_data_band_by_band_with_or_without_a_nodata_value(make_tif):
    data = np.ones((2, 2, 2), np.float32)
    data[:, 0, 0] = np.nan
    data[0, 0, 1] = np.nan
    data[:, 1, 1] = -9999
    plain = open_source(make_tif(data)).read(Window(row=0, col=0, height=2, width=2)).mask
    np.testing.assert_array_equal(plain, [[False, True], [True, True]])
    stated = open_source(make_tif(data, nodata=-9999))
    mask = stated.read(stated.grid.window).mask
    np.testing.assert_array_equal(mask, [[False, True], [True, False]])


def test_float32_nodata_is_compared_as_the_file_stores_it(make_tif):
    data = np.array([[-3.4e38, 1]], np.float32)
    source = open_source(make_tif(data, nodata=-3.4e38))
    np.testing.assert_array_equal(source.read(source.grid.window).mask, [[False, True]])


def test_an_alpha_band_is_the_mask_and_no_band(make_tif, noise):
    data = noise(4, 6, 7)
    data[3] = 255
    data[3, :2] = 0
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    source = open_source(make_tif(data, colorinterp=colors))
    block = source.read(source.grid.window)
    assert source.count == 3
    np.testing.assert_array_equal(block.data, data[:3])
    np.testing.assert_array_equal(block.mask, data[3] > 0)
    with pytest.raises(OptionError, match="no band 4"):
        open_source(make_tif(data, colorinterp=colors), bands=[4])


@pytest.mark.parametrize("name", ["alpha", "NIR"])
def test_infrared_that_is_marked_as_alpha_can_be_asked_for(make_tif, noise, name):
    data = noise(4, 6, 7)
    data[3, 0] = 0
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = make_tif(data, colorinterp=colors, descriptions=("R", "G", "B", "nir"))
    with pytest.raises(OptionError, match=r'marked as alpha.*bands=\[1, 2, 3, "alpha"\]'):
        open_source(path, bands=[1, 2, 3, 4])
    source = open_source(path, bands=[1, 2, 3, name])
    block = source.read(source.grid.window)
    np.testing.assert_array_equal(block.data, data)
    assert block.mask.all()
    assert source.band_names == ("R", "G", "B", "nir")
    assert source.identity() != open_source(path).identity()
    alone = open_source(path, bands=name)
    np.testing.assert_array_equal(whole(alone), data[3:])
    mosaic = open_source([path, path], bands=(band for band in ("alpha", 1)))
    np.testing.assert_array_equal(whole(mosaic), data[[3, 0]])


def test_one_band_may_be_a_number_of_numpy(make_tif, noise):
    data = noise(2, 6, 7)
    source = open_source(make_tif(data), bands=np.int64(2))
    np.testing.assert_array_equal(whole(source), data[1:])


def test_bands_count_without_the_alpha_that_stands_among_them(make_tif, noise):
    data = noise(4, 6, 7)
    colors = (ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    source = open_source(make_tif(data, colorinterp=colors), bands=[1, 3])
    np.testing.assert_array_equal(whole(source), data[[1, 3]])


def test_a_mask_band_is_the_mask(make_tif, noise):
    mask = np.zeros((6, 7), bool)
    mask[2:, 3:] = True
    source = open_source(make_tif(noise(3, 6, 7), mask=mask))
    np.testing.assert_array_equal(source.read(source.grid.window).mask, mask)


def test_nodata_can_be_overridden(make_tif):
    data = np.array([[0, 1, 2]], np.uint8)
    source = open_source(make_tif(data, nodata=0), nodata=2)
    assert source.nodata == 2
    np.testing.assert_array_equal(source.read(source.grid.window).mask, [[True, True, False]])


def test_a_nodata_value_that_pixels_cannot_have_is_refused(make_tif):
    with pytest.raises(SourceError, match="uint8"):
        open_source(make_tif(np.ones((2, 2), np.uint8)), nodata=-9999)


def test_bands_by_number_name_and_colour(make_tif, noise):
    data = noise(3, 5, 5)
    path = make_tif(data, descriptions=("nir", "red edge", "swir"))
    np.testing.assert_array_equal(whole(open_source(path, bands=[3, 1])), data[[2, 0]])
    np.testing.assert_array_equal(whole(open_source(path, bands=2)), data[[1]])
    named = open_source(path, bands=["swir", "NIR"])
    np.testing.assert_array_equal(whole(named), data[[2, 0]])
    assert named.band_names == ("swir", "nir")
    rgb = make_tif(data, "rgb.tif", photometric="rgb")
    np.testing.assert_array_equal(whole(open_source(rgb, bands="blue")), data[[2]])
    with pytest.raises(OptionError, match="swir"):
        open_source(path, bands="swirr")
    with pytest.raises(OptionError, match="count from 1"):
        open_source(path, bands=0)
    with pytest.raises(OptionError, match="empty"):
        open_source(path, bands=[])


def test_bounds_take_the_whole_pixels_that_cover_them(make_tif, noise):
    data = noise(1, 30, 40)
    path = make_tif(data)
    source = open_source(path, bounds=(500015, 4999880, 500040, 4999955))
    assert source.grid.bounds == (500010, 4999880, 500040, 4999960)
    np.testing.assert_array_equal(whole(source), data[:, 4:12, 1:4])


def test_scale_and_offset_are_not_applied(make_tif):
    path = make_tif(np.array([[7, 8]], np.int16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5,), (100.0,)
    source = open_source(path)
    np.testing.assert_array_equal(whole(source), [[[7, 8]]])
    assert source.dtype == np.int16


def test_masked_is_float_with_nan_by_band(make_tif):
    data = np.array([[[0, 2]], [[3, 0]]], np.uint16)
    source = open_source(make_tif(data, nodata=0), masked=True)
    assert source.dtype == np.float32
    np.testing.assert_array_equal(whole(source), [[[np.nan, 2]], [[3, np.nan]]])
    wide = open_source(make_tif(data.astype(np.int32)), masked=True)
    assert wide.dtype == np.float64


def test_without_a_crs_it_is_pixel_space_with_one_warning(make_tif, noise):
    path = make_tif(noise(5, 6), crs=None)
    with pytest.warns(DataWarning, match="assume_crs") as caught:
        source = open_source(path)
    assert len(caught) == 1
    assert source.grid.crs is None
    assert source.grid.transform == (1, 0, 0, 0, 1, 0)
    assert open_source(source) is source


def test_a_missing_crs_can_be_stated_and_a_present_one_stays(make_tif, noise):
    stated = open_source(make_tif(noise(5, 6), crs=None), assume_crs=32633)
    assert stated.grid == open_source(make_tif(noise(5, 6), "b.tif")).grid
    with pytest.warns(DataWarning, match="not used"):
        kept = open_source(make_tif(noise(5, 6), "b.tif"), assume_crs="EPSG:4326")
    assert kept.grid == stated.grid


def test_a_plain_picture_opens_without_a_warning_of_rasterio(make_tif, noise):
    path = make_tif(noise(3, 5, 6), "a.png", driver="PNG", crs=None, transform=None)
    with pytest.warns(DataWarning) as caught:
        source = open_source(path)
    assert len(caught) == 1
    np.testing.assert_array_equal(whole(source), noise(3, 5, 6))


def test_rotated_rasters_keep_their_transform(make_tif, noise):
    turned = rasterio.Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5000000.0)
    source = open_source(make_tif(noise(5, 6), transform=turned))
    assert source.grid.transform == tuple(turned)[:6]


def test_ground_control_points_become_the_transform(make_tif, noise):
    points = [
        GroundControlPoint(row=0, col=0, x=500000, y=5000000),
        GroundControlPoint(row=0, col=6, x=500060, y=5000006),
        GroundControlPoint(row=5, col=0, x=500005, y=4999950),
    ]
    source = open_source(make_tif(noise(5, 6), transform=None, gcps=points))
    np.testing.assert_allclose(
        source.grid.transform, (10, 1, 500000, 1, -10, 5000000), rtol=1e-9, atol=1e-6
    )


def test_a_missing_file_and_a_file_that_is_no_raster_are_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.tif"):
        open_source(tmp_path / "none.tif")
    text = tmp_path / "notes.tif"
    text.write_text("no raster")
    with pytest.raises(SourceError, match=r"notes\.tif is not a raster"):
        open_source(text)
    with pytest.raises(OptionError, match="empty"):
        open_source("")
    with pytest.raises(OptionError, match="int"):
        open_source(3)


def test_a_truncated_file_names_itself_and_the_window(make_tif, noise):
    path = make_tif(noise(64, 64), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    os.truncate(path, path.stat().st_size - 1500)
    source = open_source(path)
    source.read(Window(row=0, col=0, height=16, width=16))
    with pytest.raises(SourceError, match=r"a\.tif.*rows 48\.\.64 and columns 32\.\.64"):
        source.read(Window(row=48, col=32, height=16, width=32))


def test_a_source_survives_pickling_and_reads_the_same(make_tif, noise):
    source = open_source(make_tif(noise(3, 30, 40), nodata=5), bands=[2, 3])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(whole(again), whole(source))
    assert again.identity() == source.identity()
    assert len(pickle.dumps(source)) < 5000


def test_identity_follows_content_and_selection_not_the_path(make_tif, noise):
    path = make_tif(noise(3, 8, 8))
    first = open_source(path).identity()
    moved = Path(path).with_name("moved.tif")
    os.rename(path, moved)
    assert open_source(moved).identity() == first
    assert open_source(moved, bands=[1]).identity() != first
    os.utime(moved, ns=(1, 1))
    assert open_source(moved).identity() != first


def test_statistics_beside_the_file_do_not_change_its_identity(make_tif, noise):
    path = make_tif(noise(8, 8))
    first = open_source(path).identity()
    path.with_name("a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert open_source(path).identity() == first


def test_a_replaced_file_is_opened_anew(make_tif, noise):
    path = make_tif(noise(8, 8))
    before = whole(open_source(path))
    os.unlink(path)
    make_tif(noise(8, 8, seed=1))
    os.utime(path, ns=(5, 5))
    assert not np.array_equal(whole(open_source(path)), before)


def test_threads_have_their_own_handles_and_a_limited_number(make_tif, noise, monkeypatch):
    monkeypatch.setattr(handles, "HANDLES_PER_THREAD", 2)
    data = [noise(1, 20, 20, seed=n) for n in range(4)]
    sources = [open_source(make_tif(d, f"{n}.tif")) for n, d in enumerate(data)]
    wrong: list[int] = []

    def work() -> None:
        for turn in range(40):
            if not np.array_equal(whole(sources[turn % 4]), data[turn % 4]):
                wrong.append(turn)
        assert len(handles._threads.handles) <= 2

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    handles.close_handles()


def test_the_block_cache_is_capped_unless_the_user_sets_it(monkeypatch):
    with handles.gdal_environment():
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == handles.GDAL_CACHE_BYTES
    monkeypatch.setenv("GDAL_CACHEMAX", "512")
    with handles.gdal_environment():
        assert "GDAL_CACHEMAX" not in rasterio.env.getenv()


def test_a_vrt_without_its_file_says_which_is_missing(make_tif, noise, tmp_path):
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.warns(DataWarning, match="states no CRS"):
        source = open_source(tmp_path / "a.vrt")
    with pytest.raises(SourceError, match=r"made of is missing .*gone\.tif"):
        source.read(source.grid.window)


def test_bands_that_a_colour_table_lacks_are_explained(make_tif, noise):
    path = make_tif(noise(1, 6, 7))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, 0, 0, 255) for n in range(256)})
    with pytest.raises(OptionError, match="expand rgb"):
        open_source(path, bands=[1, 2, 3])


def test_handles_are_closed_with_their_thread(make_tif, noise):
    """Taken apart by the garbage collector, those that read through fsspec ended the process."""
    data = noise(1, 6, 7)
    source = open_source(f"simplecache::file://{make_tif(data)}")
    seen = []

    def read() -> None:
        np.testing.assert_array_equal(whole(source), data)
        seen.extend(handles._threads.handles.values())

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert [dataset.closed for dataset in seen] == [True]


def test_an_archive_says_how_to_reach_into_it(make_tif, noise, tmp_path):
    data = noise(1, 6, 7)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(make_tif(data), "a.tif")
    with pytest.raises(SourceError, match=r"name the raster in it: /vsizip/\S*a\.zip/<name>\.tif"):
        open_source(path)
    np.testing.assert_array_equal(whole(open_source(f"/vsizip/{path}/a.tif")), data)
