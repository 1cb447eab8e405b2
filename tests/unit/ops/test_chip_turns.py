"""Turned chips: right angles are exact, labels turn with the pixels, copies end before 360."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geodl.core.grid import GeoGrid, Window
from geodl.ops.chip_turns import Turn, turns

windows = st.builds(
    Window,
    row=st.integers(-5, 50),
    col=st.integers(-5, 50),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("side", [4, 5])
def test_right_angles_are_exact(quarter: int, side: int) -> None:
    image = np.arange(144).reshape(12, 12)
    window = Window(row=3, col=2, height=side, width=side)
    rows, cols = Turn(90.0 * quarter).pixels(window)
    assert np.array_equal(image[rows, cols], np.rot90(image[3 : 3 + side, 2 : 2 + side], quarter))


@given(windows, st.floats(0, 359))
def test_the_reach_holds_all_pixels_and_corners(window: Window, degrees: float) -> None:
    turn = Turn(degrees)
    reach = turn.reach(window)
    rows, cols = turn.pixels(window)
    assert reach.row <= rows.min()
    assert rows.max() < reach.row_stop
    assert reach.col <= cols.min()
    assert cols.max() < reach.col_stop
    x0, y0, x1, y1 = turn.frame(window).bounds
    slack = 1e-6
    assert reach.col - slack <= x0 <= x1 <= reach.col_stop + slack
    assert reach.row - slack <= y0 <= y1 <= reach.row_stop + slack


@given(windows, st.floats(0, 359))
def test_geometries_turn_as_the_georeference_says(window: Window, degrees: float) -> None:
    turn = Turn(degrees)
    inside = np.array([0.3, 0.8]) * (window.width, window.height)
    there = shapely.Point(turn.place(window) @ tuple(inside))
    turned = turn.geometries(np.array([there]), window)[0]
    assert (turned.x - window.col, turned.y - window.row) == pytest.approx(inside, abs=1e-6)
    whole = GeoGrid(width=99, height=99, transform=(0.5, 0, 40, 0, -0.5, 90), crs=None)
    on_map = turn.grid(whole, window).affine @ tuple(inside)
    assert on_map == pytest.approx(whole.affine @ (there.x, there.y), abs=1e-9)


@pytest.mark.parametrize(("step", "count"), [(0, 1), (45, 8), (90, 4), (100, 4), (360 / 7, 7)])
def test_copies_end_before_a_full_turn(step: float, count: int) -> None:
    found = turns(step)
    assert len(found) == count
    assert found[0].still
    assert found[-1].degrees < 360
