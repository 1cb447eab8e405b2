"""Windows and grids: pixels and coordinates are the same thing seen from two sides."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodl.base.errors import PlanError
from geodl.core.grid import GeoGrid, Window

_PLACE = st.integers(-5000, 5000)
_SIZE = st.integers(0, 3000)
windows = st.builds(Window, row=_PLACE, col=_PLACE, height=_SIZE, width=_SIZE)
filled = st.builds(
    Window, row=_PLACE, col=_PLACE, height=st.integers(1, 3000), width=st.integers(1, 3000)
)
north_up = st.builds(
    lambda cell, x, y, w, h: GeoGrid(width=w, height=h, transform=(cell, 0, x, 0, -cell, y)),
    st.floats(1e-5, 1e4),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.integers(1, 4000),
    st.integers(1, 4000),
)


def grid(**changes: object) -> GeoGrid:
    values: dict[str, object] = {
        "width": 40, "height": 30, "transform": (0.5, 0, 100, 0, -0.5, 200), "crs": "EPSG:32633",
    }  # fmt: skip
    return GeoGrid(**(values | changes))  # type: ignore[arg-type]


@given(windows, windows)
def test_intersection_holds_exactly_the_common_pixels(a: Window, b: Window) -> None:
    common = a.intersect(b)
    rows = range(max(a.row, b.row), min(a.row_stop, b.row_stop))
    cols = range(max(a.col, b.col), min(a.col_stop, b.col_stop))
    assert common.pixels == len(rows) * len(cols)
    if not common.empty:
        assert (common.row, common.row_stop) == (rows.start, rows.stop)
        assert (common.col, common.col_stop) == (cols.start, cols.stop)
        assert common == b.intersect(a)
        assert a.contains(common)
        assert b.contains(common)


def test_window_cannot_have_a_negative_size() -> None:
    with pytest.raises(PlanError, match="-1 x 4"):
        Window(row=0, col=0, height=-1, width=4)


@given(windows, st.integers(0, 200))
def test_padding_grows_all_sides_alike(window: Window, margin: int) -> None:
    grown = window.pad(margin)
    assert (grown.row, grown.col) == (window.row - margin, window.col - margin)
    assert (grown.row_stop, grown.col_stop) == (window.row_stop + margin, window.col_stop + margin)


def test_slices_within_an_outer_window() -> None:
    inner = Window(row=12, col=5, height=3, width=4)
    outer = Window(row=10, col=2, height=20, width=20)
    assert inner.within(outer) == (slice(2, 5), slice(3, 7))


def test_shift_moves_and_keeps_the_size() -> None:
    assert Window(row=1, col=2, height=3, width=4).shift(10, -20) == Window(
        row=11, col=-18, height=3, width=4
    )


def test_contains_needs_every_pixel() -> None:
    outer = Window(row=0, col=0, height=10, width=10)
    assert outer.contains(Window(row=0, col=0, height=10, width=10))
    assert not outer.contains(Window(row=0, col=1, height=10, width=10))
    assert not outer.contains(Window(row=-1, col=0, height=2, width=2))


@given(windows)
def test_window_survives_json_and_pickle(window: Window) -> None:
    assert Window.from_json(window.to_json()) == window
    assert pickle.loads(pickle.dumps(window)) == window


@given(north_up, filled)
def test_bounds_of_a_window_give_the_window_back(place: GeoGrid, window: Window) -> None:
    bounds = place.window_bounds(window)
    assert place.window_for_bounds(*bounds, clip=False) == window


def test_bounds_are_clipped_to_the_grid_unless_asked_not_to() -> None:
    place = grid()
    assert place.bounds == (100, 185, 120, 200)
    wide = (90.0, 180.0, 110.0, 210.0)
    assert place.window_for_bounds(*wide) == Window(row=0, col=0, height=30, width=20)
    assert place.window_for_bounds(*wide, clip=False) == Window(
        row=-20, col=-20, height=60, width=40
    )


def test_bounds_elsewhere_give_an_empty_window() -> None:
    assert grid().window_for_bounds(1000, 1000, 1010, 1010).empty


def test_a_part_of_a_pixel_counts_as_the_whole_pixel_but_rounding_noise_does_not() -> None:
    place = grid()
    assert place.window_for_bounds(100.3, 199.2, 100.7, 199.9).to_json() == [0, 0, 2, 2]
    assert place.window_for_bounds(100.5 - 1e-7, 199, 101 + 1e-7, 199.5).to_json() == [1, 1, 1, 1]


def test_window_for_bounds_of_a_grid_that_runs_south_up() -> None:
    place = grid(transform=(0.5, 0, 100, 0, 0.5, 185))
    assert place.bounds == (100, 185, 120, 200)
    assert place.window_for_bounds(100, 185, 101, 186).to_json() == [0, 0, 2, 2]


def test_cell_size_of_a_turned_grid_is_the_length_of_its_sides() -> None:
    place = grid(transform=(3.0, -8.0, 0, 4.0, 6.0, 0))
    assert place.cell_size_xy == pytest.approx((5.0, 10.0))


@given(north_up, filled)
def test_a_crop_lies_where_its_window_lay(place: GeoGrid, window: Window) -> None:
    part = place.crop(window)
    assert part.shape == (window.height, window.width)
    assert part.bounds == pytest.approx(place.window_bounds(window))
    assert part.crs == place.crs


def test_transform_that_cannot_be_inverted_is_refused() -> None:
    for transform in [(0, 0, 1, 0, -1, 1), (1, 1, 0, 1, 1, 0), (float("nan"), 0, 0, 0, 1, 0)]:
        with pytest.raises(PlanError, match="cannot be inverted"):
            grid(transform=transform)


@given(north_up)
def test_grid_survives_json_and_pickle(place: GeoGrid) -> None:
    assert GeoGrid.from_json(place.to_json()) == place
    assert pickle.loads(pickle.dumps(place)) == place


def test_window_of_the_whole_grid() -> None:
    place = grid()
    assert place.window.to_json() == [0, 0, 30, 40]
    assert place.shape == (30, 40)
    assert place.affine @ (2, 2) == (101, 199)
