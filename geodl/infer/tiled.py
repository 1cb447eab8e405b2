"""What blocks of a raster share, whatever a model makes of their tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geodl.bundle import LoadedModel, ModelRef
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import Window
from geodl.core.plan import BlockSpec, TilePlan
from geodl.infer.area import Area
from geodl.infer.probe import probe_inputs
from geodl.infer.tiles import TileRunner, clean_block, cut_tile

if TYPE_CHECKING:
    from geodl.infer.objects import ObjectOptions
    from geodl.infer.pixels import PixelOptions


@dataclass(frozen=True, kw_only=True)
class TiledBlocks:
    """A model over the tiles of each block; a subclass says what comes of them.

    Parameters
    ----------
    source
        Bands as the network takes them.
    batch, device
        Do not change the result beyond the arithmetic of the device.
    area
        There is no result outside of it.
    """

    source: RasterSource
    plan: TilePlan
    model: ModelRef
    options: PixelOptions | ObjectOptions
    batch: int
    device: str
    area: Area | None = None

    def probe(self) -> None:
        probe_inputs(self.source, self.model, self.device)

    def read(self, spec: BlockSpec) -> RasterBlock:
        """Pixels of all the block's tiles inside the raster, 0 where there is no data."""
        return clean_block(self.source.read(self.frame(spec)))

    def frame(self, spec: BlockSpec) -> Window:
        return spec.read.intersect(self.plan.grid.window)

    def valid(self, spec: BlockSpec, block: RasterBlock) -> np.ndarray:
        """bool (H, W) of the core: where there may be a result."""
        mask = block.mask[spec.core.within(self.frame(spec))]
        return mask if self.area is None else mask & self.area.inside(self.plan.grid, spec.core)

    def _runner(self, model: LoadedModel) -> TileRunner:
        return TileRunner(
            model.net,
            model.contract.normalization,
            batch=self.batch,
            device=self.device,
            precision=self.options.precision,
        )

    def _tiles(
        self, spec: BlockSpec, block: RasterBlock, wanted: Callable[[int, int], bool]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Window and pixels of the tiles that are wanted, row by row."""
        frame = self.frame(spec)
        i0, i1, j0, j1 = spec.tiles
        for i in range(i0, i1):
            for j in range(j0, j1):
                if wanted(i, j):
                    window = self.plan.tile_window(i, j)
                    yield window, cut_tile(block, frame, window)[0]
