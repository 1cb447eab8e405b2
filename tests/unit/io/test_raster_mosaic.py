from __future__ import annotations

import pickle

import numpy as np
import pytest

from geodl.base.errors import (
    DataWarning,
    GridMismatchError,
    OptionError,
    SourceError,
    SourceNotFoundError,
)
from geodl.core.grid import Window
from geodl.io import handles
from geodl.io.raster import open_raster
from geodl.io.source import open_source


def test_earlier_items_lie_on_top_and_gaps_are_no_data(make_tif):
    one = make_tif(np.full((4, 4), 1, np.uint8), "1.tif", nodata=0)
    two = make_tif(np.full((4, 4), 2, np.uint8), "2.tif", nodata=0, origin=(500020, 4999980))
    source = open_source([one, two])
    block = source.read(source.grid.window)
    expected = np.zeros((6, 6), np.uint8)
    expected[2:, 2:] = 2
    expected[:4, :4] = 1
    np.testing.assert_array_equal(block.data[0], expected)
    np.testing.assert_array_equal(block.mask, expected > 0)
    assert source.grid.bounds == (500000, 4999940, 500060, 5000000)
    flipped = open_source([two, one])
    assert flipped.read(flipped.grid.window).data[0, 3, 3] == 2


def test_an_items_hole_shows_the_item_below(make_tif):
    top = np.full((4, 4), 1, np.uint8)
    top[1, 1] = 0
    below = np.full((4, 4), 2, np.uint8)
    source = open_source([make_tif(top, "1.tif", nodata=0), make_tif(below, "2.tif", nodata=0)])
    expected = np.where(top == 0, 2, 1)
    np.testing.assert_array_equal(source.read(source.grid.window).data[0], expected)


def test_any_window_is_the_same_part_of_the_whole(make_tif, noise):
    paths = [
        make_tif(noise(2, 8, 8, seed=n), f"{n}.tif", nodata=0, origin=(500000 + 50 * n, 5000000))
        for n in range(4)
    ]
    source = pickle.loads(pickle.dumps(open_source(paths)))
    full = source.read(source.grid.window)
    for row in range(0, 8, 3):
        for col in range(0, source.grid.width - 4, 2):
            window = Window(row=row, col=col, height=8 - row, width=4)
            part = source.read(window)
            rows, cols = window.within(source.grid.window)
            np.testing.assert_array_equal(part.data, full.data[:, rows, cols])
            np.testing.assert_array_equal(part.mask, full.mask[rows, cols])


def test_items_in_another_crs_or_resolution_are_warped_onto_the_first(make_tif):
    first = make_tif(np.full((20, 20), 50, np.uint8), "1.tif", nodata=0)
    other = make_tif(
        np.full((40, 40), 70, np.uint8), "2.tif", nodata=0, cell=5, origin=(500200, 5000000)
    )
    geographic = make_tif(
        np.full((30, 30), 90, np.uint8),
        "3.tif",
        nodata=0,
        crs="EPSG:4326",
        cell=0.0001,
        origin=(15.0055, 45.152),
    )
    source = open_source([first, other, geographic])
    assert source.grid.cell_size_xy == (10, 10)
    assert (source.grid.transform[2] - 500000) % 10 == 0
    block = source.read(source.grid.window)
    assert {50, 70, 90} <= set(np.unique(block.data[:, block.mask]))
    mine = source.grid.window_for_bounds(500000, 4999800, 500200, 5000000)
    assert (source.read(mine).data == 50).all()


def test_an_item_off_the_lattice_is_resampled_not_shifted(make_tif):
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.float32), (20, 1))
    first = make_tif(np.full((20, 20), 1, np.float32), "1.tif", origin=(499800, 5000000))
    moved = make_tif(ramp, "2.tif", origin=(500004, 5000000))
    source = open_source([first, moved])
    window = source.grid.window_for_bounds(500050, 4999900, 500150, 4999950)
    values = source.read(window).data[0, 0]
    np.testing.assert_allclose(np.diff(values), 10, atol=1e-3)
    np.testing.assert_allclose(values[0], 46, atol=1e-3)


def test_snap_and_resolution_hold_for_a_mosaic(make_tif, noise):
    paths = [
        make_tif(noise(8, 8, seed=n), f"{n}.tif", origin=(500000 + 80 * n, 5000000))
        for n in range(2)
    ]
    source = open_source(paths, resolution=20, resampling="average")
    assert source.grid.shape == (4, 8)
    snapped = open_source(paths, snap=make_tif(noise(3, 3), "snap.tif", cell=4))
    assert snapped.grid.cell_size_xy == (4, 4)


def test_another_band_count_names_the_file(make_tif, noise):
    paths = [make_tif(noise(3, 5, 5), "three.tif"), make_tif(noise(2, 5, 5), "two.tif")]
    with pytest.raises(SourceError, match=r"two\.tif has 2 bands.*3"):
        open_source(paths)
    assert open_source(paths, bands=[1, 2]).count == 2


def test_items_without_a_crs_have_no_place(make_tif, noise):
    paths = [make_tif(noise(5, 5), f"{n}.tif", crs=None) for n in range(2)]
    with pytest.warns(DataWarning), pytest.raises(GridMismatchError, match="assume_crs"):
        open_source(paths)
    assert open_source(paths, assume_crs=32633).count == 1


def test_mixed_dtypes_are_promoted_and_their_nodata_translated(make_tif):
    one = np.array([[[0, 5]], [[7, 5]]], np.uint8)
    two = np.array([[[300, -1]], [[-1, 400]]], np.int16)
    source = open_source(
        [
            make_tif(one, "1.tif", nodata=0),
            make_tif(two, "2.tif", nodata=-1, origin=(500020, 5000000)),
        ]
    )
    block = source.read(source.grid.window)
    assert source.dtype == np.int16
    np.testing.assert_array_equal(block.data, [[[0, 5, 300, 0]], [[7, 5, 0, 400]]])
    assert block.mask.all()


def test_an_empty_list_is_refused():
    with pytest.raises(OptionError, match="empty list"):
        open_source([])


def test_a_window_opens_only_the_files_that_it_touches(make_tif, noise, monkeypatch):
    paths = [
        make_tif(noise(4, 4, seed=n), f"{n}.tif", origin=(500000 + 40 * n, 5000000))
        for n in range(60)
    ]
    source = open_source(paths)
    handles.close_handles()
    opened: list[str] = []
    original = handles.open_quietly

    def counted(location):
        opened.append(location.text)
        return original(location)

    monkeypatch.setattr(handles, "open_quietly", counted)
    source.read(Window(row=0, col=20, height=4, width=8))
    assert sorted(opened) == sorted(str(path) for path in paths[5:7])
    assert len(pickle.dumps(source)) < 60 * 2500


def test_bands_of_a_mosaic_are_selected_in_its_items(make_tif, noise):
    paths = [
        make_tif(noise(3, 4, 4, seed=n), f"{n}.tif", origin=(500000 + 40 * n, 5000000))
        for n in range(2)
    ]
    source = open_source(open_source(paths), bands=[3])
    expected = np.concatenate([noise(3, 4, 4, seed=n)[2:] for n in range(2)], axis=2)
    np.testing.assert_array_equal(source.read(source.grid.window).data, expected)
    assert source.items[0].band_numbers == (3,)


def test_bands_of_a_mosaic_go_by_their_names(make_tif, noise):
    data = noise(3, 4, 8)
    one = make_tif(data[:, :, :4], "1.tif", descriptions=("r", "g", "b"))
    turned = {"descriptions": ("b", "r", "g"), "origin": (500040.0, 5000000.0)}
    two = make_tif(data[[2, 0, 1]][:, :, 4:], "2.tif", **turned)
    source = open_source([one, two])
    np.testing.assert_array_equal(source.read(source.grid.window).data, data)
    # Other names, or none, are taken as they stand.
    three = make_tif(data[:, :, 4:], "3.tif", **(turned | {"descriptions": ("red", "g", "b")}))
    named = open_source([one, three])
    np.testing.assert_array_equal(named.read(named.grid.window).data, data)
    plain = make_tif(data[[2, 1, 0]][:, :, :4], "4.tif")
    chosen = open_source(
        [
            open_source(plain, bands=[3, 2, 1]),
            make_tif(data[:, :, 4:], "5.tif", origin=(500040.0, 5000000.0)),
        ]
    )
    np.testing.assert_array_equal(chosen.read(chosen.grid.window).data, data)


def test_a_folder_and_a_pattern_are_the_list_of_their_rasters(make_tif, noise, tmp_path):
    (tmp_path / "tiles").mkdir()
    data = noise(2, 4, 8)
    paths = [
        make_tif(data[:, :, n : n + 4], f"tiles/{n}.tif", origin=(500000.0 + 10 * n, 5000000.0))
        for n in (4, 0)
    ]
    (tmp_path / "tiles" / "notes.txt").write_text("not a raster")
    whole = open_source(paths[::-1])
    for word in (tmp_path / "tiles", str(tmp_path / "t*" / "*.tif"), [tmp_path / "tiles"]):
        source = open_source(word)
        assert source.identity() == whole.identity()
        np.testing.assert_array_equal(source.read(source.grid.window).data, data)
    assert open_raster(tmp_path / "tiles").shape == (2, 4, 8)
    with pytest.raises(SourceNotFoundError, match=r"No file matches .*\.jp2"):
        open_source(tmp_path / "tiles" / "*.jp2")
    odd = make_tif(data, "a[1].tif")
    assert open_source(odd).grid.shape == (4, 8)


def test_a_folder_of_no_rasters_says_what_was_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty.*no raster"):
        open_source(tmp_path / "empty")


def test_names_that_gdal_understands_are_no_patterns(make_tif, noise):
    data = noise(2, 4, 8)
    name = f"GTIFF_DIR:1:{make_tif(data, 'a[1].tif')}"
    np.testing.assert_array_equal(
        open_source(name).read(Window(row=0, col=0, height=4, width=8)).data, data
    )
