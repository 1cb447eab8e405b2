"""Tiles do not depend on blocks or batches, and hold 0 where there is no data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from geodl.core.blocks import RasterBlock
from geodl.core.contract import Normalization
from geodl.core.grid import Window
from geodl.infer.tiles import TileRunner, clean_block, cut_tile

RASTER = Window(row=0, col=0, height=20, width=30)


def block(frame: Window, seed: int = 0) -> RasterBlock:
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 200, (2, RASTER.height, RASTER.width), dtype=np.uint8)
    mask = rng.random((RASTER.height, RASTER.width)) > 0.2
    rows, cols = frame.within(RASTER)
    return RasterBlock(whole[:, rows, cols], mask[rows, cols])


@pytest.mark.parametrize(
    "window",
    [
        Window(row=4, col=5, height=8, width=8),
        Window(row=-3, col=-3, height=8, width=8),
        Window(row=16, col=27, height=8, width=8),
        Window(row=-30, col=-30, height=60, width=64),
    ],
)
def test_a_tile_is_the_same_cut_from_any_frame(window: Window) -> None:
    inside = window.intersect(RASTER)
    near, far = cut_tile(block(inside), inside, window), cut_tile(block(RASTER), RASTER, window)
    np.testing.assert_array_equal(near[0], far[0])
    np.testing.assert_array_equal(near[1], far[1])
    assert near[0].shape == (2, window.height, window.width)


def test_beyond_the_raster_a_tile_is_mirrored() -> None:
    tile, _ = cut_tile(block(RASTER), RASTER, Window(row=-2, col=0, height=6, width=6))
    np.testing.assert_array_equal(tile[:, 0], tile[:, 3])
    np.testing.assert_array_equal(tile[:, 1], tile[:, 2])


def test_pixels_without_data_become_zero() -> None:
    whole = block(RASTER)
    clean = clean_block(whole)
    assert (clean.data[:, ~whole.mask] == 0).all()
    np.testing.assert_array_equal(clean.data[:, whole.mask], whole.data[:, whole.mask])
    data = np.array([[[np.nan, 1.0, np.inf, 2.0]]], np.float32)
    holes = clean_block(RasterBlock(data, np.ones((1, 4), bool)))
    np.testing.assert_array_equal(holes.data, [[[0, 1, 0, 2]]])
    full = RasterBlock(whole.data, np.ones_like(whole.mask))
    assert clean_block(full) is full


class Sum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 2, 3))


def run(batch: int, count: int, dtype: str = "uint8") -> list[float]:
    stats = Normalization(
        minimum=(0.0, 10.0), maximum=(100.0, 60.0), scaled_mean=(0.5, 0.0), scaled_std=(2.0, 1.0)
    )
    runner = TileRunner(Sum(), stats, batch=batch, device="cpu")
    rng = np.random.default_rng(1)
    tiles = [(k, rng.integers(0, 100, (2, 4, 4)).astype(dtype)) for k in range(count)]
    found = list(runner.run(iter(tiles), lambda net, x: net(x)))
    assert [name for name, _ in found] == list(range(count))
    wanted = [float(stats.apply(tile).sum()) for _, tile in tiles]
    np.testing.assert_allclose([float(v) for _, v in found], wanted, rtol=1e-5, atol=1e-4)
    return [float(v) for _, v in found]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_tiles_are_normalised_as_in_training_for_every_dtype(dtype: str) -> None:
    assert len(run(3, 7, dtype)) == 7


def test_results_do_not_depend_on_the_batch() -> None:
    np.testing.assert_allclose(run(1, 5), run(4, 5), rtol=1e-6)
    assert run(4, 0) == []


def test_a_full_device_halves_the_batch_and_goes_on() -> None:
    seen = []

    def call(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return net(x)

    stats = Normalization(minimum=(0.0,), maximum=(1.0,), scaled_mean=(0.0,), scaled_std=(1.0,))
    runner = TileRunner(Sum(), stats, batch=8, device="cpu")
    tiles = [(k, np.full((1, 2, 2), k, np.uint8)) for k in range(9)]
    found = list(runner.run(iter(tiles), call))
    assert [float(v) for _, v in found] == [4.0 * k for k in range(9)]
    assert runner.batch == 2
    assert seen[:3] == [8, 4, 2]


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_batches_ahead_keep_names_and_results_together(ahead: int) -> None:
    """As on a GPU, which computes the next batch while the last one's results are taken."""
    stats = Normalization(minimum=(0.0,), maximum=(1.0,), scaled_mean=(0.0,), scaled_std=(1.0,))
    runner = TileRunner(Sum(), stats, batch=2, device="cpu")
    runner.ahead = ahead
    cut = []

    def tiles() -> Iterator[tuple[int, np.ndarray]]:
        for k in range(7):
            cut.append(k)
            yield k, np.full((1, 2, 2), k, np.uint8)

    found = runner.run(tiles(), lambda net, x: net(x))
    name, first = next(found)
    assert (name, float(first)) == (0, 0.0)
    assert len(cut) == min(7, 2 * (ahead + 1))
    assert [(name, float(v)) for name, v in found] == [(k, 4.0 * k) for k in range(1, 7)]
    assert runner.busy_s > 0


def test_half_precision_is_of_the_layers_alone() -> None:
    stats = Normalization(minimum=(0.0,), maximum=(1.0,), scaled_mean=(0.0,), scaled_std=(1.0,))
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 1, bias=False)
    tile = np.full((1, 2, 2), 255, np.uint8)
    found = {}
    for precision in ("float32", "bfloat16"):
        runner = TileRunner(net, stats, batch=1, device="cpu", precision=precision)
        ((_, found[precision]),) = runner.run(iter([(0, tile)]), lambda net, x: net(x))
    full, half = found["float32"], found["bfloat16"]
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.01, atol=0)
