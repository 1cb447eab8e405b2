"""Tiles of a block through a network: one shape, batched, on one device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.errors import OptionError
from geodl.core.blocks import RasterBlock
from geodl.core.contract import Normalization
from geodl.core.grid import Window

logger = logging.getLogger(__name__)


def cut_tile(block: RasterBlock, frame: Window, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """One tile's pixels and mask.

    Outside the raster the tile is mirrored at the raster's edge. Only what the tile itself holds
    of the raster is mirrored, so the pixels do not depend on the block.

    Parameters
    ----------
    block
        Pixels of ``frame``, which holds all that ``window`` has inside the raster.
    window
        The tile; may leave the frame where the raster ends.

    Returns
    -------
    (C, H, W) in the block's dtype and bool (H, W), of the window's size.
    """
    inside = window.intersect(frame)
    rows, cols = inside.within(frame)
    data, mask = block.data[:, rows, cols], block.mask[rows, cols]
    if inside == window:
        return data, mask
    margin = (
        (inside.row - window.row, window.row_stop - inside.row_stop),
        (inside.col - window.col, window.col_stop - inside.col_stop),
    )
    return np.pad(data, ((0, 0), *margin), "symmetric"), np.pad(mask, margin, "symmetric")


class TileRunner:
    """Runs a function of the network over tiles in padded batches of one shape.

    The shape is fixed so that compiled kernels are reused, and so that a tile's result does not
    depend on which other tiles share its batch.

    Parameters
    ----------
    net
        In eval mode, on ``device``.
    normalization
        Of the network's bands.
    batch
        Tiles at once; halved when the device runs out of memory.
    """

    def __init__(
        self, net: nn.Module, normalization: Normalization, *, batch: int, device: str
    ) -> None:
        self.batch = batch
        self.device = torch.device(device)
        # channels_last makes convolutions 1.4 times faster on CPU and as fast on GPU.
        self.net = net.to(memory_format=torch.channels_last)
        scale, offset = normalization.scale_offset()
        self._scale = torch.from_numpy(scale).to(self.device)
        self._offset = torch.from_numpy(offset).to(self.device)

    def run(
        self,
        tiles: Iterator[tuple[Any, np.ndarray]],
        call: Callable[[nn.Module, Tensor], Sequence[Any] | Tensor],
    ) -> Iterator[tuple[Any, Any]]:
        """Yield ``(name, result)`` for each ``(name, pixels)``, in order.

        Parameters
        ----------
        tiles
            Names with (C, T, T) raw pixels, 0 where there is no data.
        call
            Takes the network and float32 (B, C, T, T); returns one result per tile.
        """
        names: list[Any] = []
        pixels: list[np.ndarray] = []
        for name, tile in tiles:
            names.append(name)
            pixels.append(tile)
            if len(names) == self.batch:
                yield from zip(names, self._forward(pixels, call), strict=True)
                names, pixels = [], []
        if names:
            yield from zip(names, self._forward(pixels, call), strict=True)

    def _forward(
        self,
        pixels: list[np.ndarray],
        call: Callable[[nn.Module, Tensor], Sequence[Any] | Tensor],
    ) -> list[Any]:
        results: list[Any] = []
        while len(results) < len(pixels):
            chunk = pixels[len(results) : len(results) + self.batch]
            try:
                with torch.inference_mode():
                    found = call(self.net, self._normalised(chunk))
                    results.extend(found[k] for k in range(len(chunk)))
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                if self.batch == 1:
                    raise OptionError(
                        "one tile does not fit the GPU's memory; choose a smaller tile_size"
                    ) from None
                self.batch //= 2
                logger.warning("the GPU is full; going on with batches of %d tiles", self.batch)
        return results

    def _normalised(self, chunk: list[np.ndarray]) -> Tensor:
        first = chunk[0]
        raw = np.zeros((self.batch, *first.shape), first.dtype)
        for k, tile in enumerate(chunk):
            raw[k] = tile
        x = torch.from_numpy(raw).to(self.device, non_blocking=True).to(torch.float32)
        # Planes first, then the layout: on a CPU five times faster than the other way round.
        x = x.mul_(self._scale).add_(self._offset)
        return x.contiguous(memory_format=torch.channels_last)


def clean_block(block: RasterBlock) -> RasterBlock:
    """The block with 0 where there is no data and for NaN: what networks are trained on."""
    data = block.data
    floating = np.issubdtype(data.dtype, np.floating)
    if block.mask.all() and not floating:
        return block
    data = np.where(block.mask, data, data.dtype.type(0))
    if floating:
        np.nan_to_num(data, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return RasterBlock(data, block.mask)
