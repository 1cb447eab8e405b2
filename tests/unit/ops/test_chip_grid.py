"""Where chips lie: strides, coverage, blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.base.errors import PlanError
from geodl.core.grid import Window
from geodl.ops.chip_grid import ChipGrid


@st.composite
def grids(draw: st.DrawFn) -> ChipGrid:
    tile = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    stride = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    extra = draw(st.tuples(st.integers(0, 150), st.integers(0, 150)))
    corner = draw(st.tuples(st.integers(0, 50), st.integers(0, 50)))
    area = Window(row=corner[0], col=corner[1], height=tile[0] + extra[0], width=tile[1] + extra[1])
    return ChipGrid(area=area, tile_yx=tile, stride_yx=stride)


@given(grids())
@settings(max_examples=60)
def test_chips_lie_inside_by_strides_and_no_further_one_would_fit(grid: ChipGrid) -> None:
    assert len(grid) == grid.rows * grid.cols >= 1
    for row in (0, grid.rows - 1):
        for col in (0, grid.cols - 1):
            window = grid.window(row, col)
            assert grid.area.contains(window)
            assert (window.row - grid.area.row) == row * grid.stride_yx[0]
            assert (window.col - grid.area.col) == col * grid.stride_yx[1]
            assert (window.height, window.width) == grid.tile_yx
    assert not grid.area.contains(grid.window(grid.rows, 0))
    assert not grid.area.contains(grid.window(0, grid.cols))


@given(grids())
@settings(max_examples=40)
def test_every_pixel_but_a_rest_below_one_stride_is_covered(grid: ChipGrid) -> None:
    covered = np.zeros((grid.area.row_stop, grid.area.col_stop), bool)
    for row in range(grid.rows):
        for col in range(grid.cols):
            covered[grid.window(row, col).within(Window(row=0, col=0, height=0, width=0))] = True
    last = grid.window(grid.rows - 1, grid.cols - 1)
    inner = covered[grid.area.row : last.row_stop, grid.area.col : last.col_stop]
    if all(stride <= tile for stride, tile in zip(grid.stride_yx, grid.tile_yx, strict=True)):
        assert inner.all()
    assert grid.area.row_stop - last.row_stop < grid.stride_yx[0]
    assert grid.area.col_stop - last.col_stop < grid.stride_yx[1]


@given(grids(), st.integers(1, 400))
@settings(max_examples=60)
def test_blocks_hold_every_chip_once_row_by_row(grid: ChipGrid, block_px: int) -> None:
    seen = [(row, col) for rows, cols in grid.blocks(block_px) for row in rows for col in cols]
    assert sorted(seen) == [(r, c) for r in range(grid.rows) for c in range(grid.cols)]


@given(grids(), st.data())
@settings(max_examples=60)
def test_span_is_the_window_around_its_chips(grid: ChipGrid, data: st.DataObject) -> None:
    rows = range(0, data.draw(st.integers(1, grid.rows)))
    cols = range(0, data.draw(st.integers(1, grid.cols)))
    span = grid.span(rows, cols)
    corners = [grid.window(rows[0], cols[0]), grid.window(rows[-1], cols[-1])]
    assert all(span.contains(window) for window in corners)
    assert (span.row, span.col) == (corners[0].row, corners[0].col)
    assert (span.row_stop, span.col_stop) == (corners[1].row_stop, corners[1].col_stop)


def test_a_tile_larger_than_the_area_is_refused_with_both_sizes() -> None:
    area = Window(row=0, col=0, height=100, width=300)
    with pytest.raises(PlanError, match=r"256 x 128 .*300 x 100"):
        ChipGrid(area=area, tile_yx=(128, 256), stride_yx=(1, 1))


@pytest.mark.parametrize(("tile", "stride"), [((0, 4), (1, 1)), ((4, 4), (1, 0))])
def test_sizes_below_one_are_refused(tile: tuple[int, int], stride: tuple[int, int]) -> None:
    area = Window(row=0, col=0, height=8, width=8)
    with pytest.raises(PlanError, match="at least"):
        ChipGrid(area=area, tile_yx=tile, stride_yx=stride)
