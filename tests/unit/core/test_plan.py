"""A plan covers every pixel once and does not depend on blocks or extent."""

from __future__ import annotations

import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.base.errors import PlanError
from geodl.core.grid import GeoGrid, Window
from geodl.core.plan import TilePlan


def grid(height: int, width: int) -> GeoGrid:
    return GeoGrid(width=width, height=height, transform=(0.5, 0, 100, 0, -0.5, 200), crs=None)


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    tile = draw(st.integers(3, 40))
    padding = draw(st.integers(0, (tile - 1) // 2))
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    extent = Window(
        row=row,
        col=col,
        height=draw(st.integers(1, height - row)),
        width=draw(st.integers(1, width - col)),
    )
    return TilePlan.make(
        grid(height, width),
        tile_px=tile,
        padding_px=padding,
        merge=draw(st.sampled_from(["crop", "blend"])),
        extent=extent,
        block_px=draw(st.integers(1, 200)),
    )


def tiles(plan: TilePlan, block: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    i0, i1, j0, j1 = block
    return list(itertools.product(range(i0, i1), range(j0, j1)))


@settings(max_examples=60)
@given(plans())
def test_blocks_cover_the_extent_exactly_once(plan: TilePlan) -> None:
    count = np.zeros((plan.grid.height, plan.grid.width), int)
    blocks = list(plan.blocks())
    for spec in blocks:
        count[spec.core.within(plan.grid.window)] += 1
    inside = np.zeros_like(count)
    inside[plan.extent.within(plan.grid.window)] = 1
    np.testing.assert_array_equal(count, inside)
    assert len(blocks) == plan.block_count
    assert len({spec.key for spec in blocks}) == len(blocks)


@settings(max_examples=60)
@given(plans())
def test_tiles_of_a_block_are_those_that_reach_its_core(plan: TilePlan) -> None:
    rows = -(-plan.grid.height // plan.stride_px)
    cols = -(-plan.grid.width // plan.stride_px)
    for spec in plan.blocks():
        reach = plan.tile_core if plan.merge == "crop" else plan.tile_window
        wanted = {
            (i, j)
            for i in range(rows)
            for j in range(cols)
            if not reach(i, j).intersect(spec.core).empty
        }
        assert set(tiles(plan, spec.tiles)) == wanted
        assert all(spec.read.contains(plan.tile_window(i, j)) for i, j in wanted)


@settings(max_examples=40)
@given(plans())
def test_cropped_tiles_are_run_in_one_block_each_and_counted(plan: TilePlan) -> None:
    plan = TilePlan.make(
        plan.grid,
        tile_px=plan.tile_px,
        padding_px=plan.padding_px,
        extent=plan.extent,
        block_px=plan.block_px,
    )
    run = [tile for spec in plan.blocks() for tile in tiles(plan, spec.tiles)]
    assert len(run) == len(set(run)) == plan.tile_count


@settings(max_examples=40)
@given(plans())
def test_chunks_fit_blocks_and_store(plan: TilePlan) -> None:
    store = plan.store_window
    assert store.contains(plan.extent)
    assert store.row % plan.chunk_px == store.col % plan.chunk_px == 0
    for spec in plan.blocks():
        part = plan.block_window(spec).intersect(store)
        assert (part.row - store.row) % plan.chunk_px == 0
        assert part.row_stop == store.row_stop or (part.row_stop - store.row) % plan.chunk_px == 0


def test_block_size_is_rounded_up_to_strides() -> None:
    plan = TilePlan.make(grid(1000, 1000), tile_px=224, padding_px=56, block_px=500)
    assert plan.stride_px == 112
    assert plan.block_px == 560
    assert plan.block_px % plan.chunk_px == 0


def test_answer_leaves_out_the_layout() -> None:
    small = TilePlan.make(grid(500, 700), tile_px=64, padding_px=8, block_px=100)
    large = TilePlan.make(grid(500, 700), tile_px=64, padding_px=8, block_px=400)
    assert small.answer() == large.answer()
    assert json.loads(json.dumps(small.answer())) == small.answer()
    assert large.with_layout(**small.layout()) == small


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"padding_px": 32}, "padding 32"),
        ({"padding_px": -1}, "padding -1"),
        ({"block_px": 0}, "block_size=0"),
        ({"extent": Window(row=0, col=90, height=10, width=20)}, "extent"),
        ({"extent": Window(row=0, col=0, height=0, width=20)}, "extent"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], word: str) -> None:
    arguments = {"tile_px": 64, "padding_px": 8} | change
    with pytest.raises(PlanError, match=word):
        TilePlan.make(grid(100, 100), **arguments)  # type: ignore[arg-type]


def test_a_block_outside_the_extent_is_refused() -> None:
    plan = TilePlan.make(grid(100, 100), tile_px=64, padding_px=8, block_px=48)
    with pytest.raises(PlanError, match="block 9,0"):
        plan.block(9, 0)


def test_a_million_blocks_are_planned_quickly() -> None:
    plan = TilePlan.make(grid(512_000, 512_000), tile_px=512, padding_px=0, block_px=512)
    assert plan.block_count == 1_000_000
    started = time.process_time()
    assert sum(1 for _ in itertools.islice(plan.blocks(), 50_000)) == 50_000
    # 10 s for a million on a usual machine; the soak test of a million measures that.
    assert time.process_time() - started < 5
