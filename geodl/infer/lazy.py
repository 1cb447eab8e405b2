"""A pixel model over a raster as a raster itself: computed by the window, when it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geodl.bundle import load_model
from geodl.core.blocks import RasterBlock
from geodl.core.grid import GeoGrid, Window
from geodl.infer.pixels import PixelBlocks


@dataclass(frozen=True, kw_only=True)
class ModelRaster:
    """A :class:`~geodl.core.blocks.RasterSource` whose pixels a model makes.

    Any window gives the pixels of the whole run, for tiles lie on the raster's own grid.
    """

    name: str
    task: PixelBlocks
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    settings: str

    @property
    def grid(self) -> GeoGrid:
        return self.task.plan.grid

    def read(self, window: Window) -> RasterBlock:
        """Run the model over the tiles that reach the window."""
        plan = self.task.plan
        size = -(-max(window.row_stop, window.col_stop) // plan.stride_px) * plan.stride_px
        task = replace(self.task, plan=replace(plan, extent=window, block_px=size, chunk_px=size))
        spec = task.plan.block(0, 0)
        block = task.read(spec)
        values, _ = task.compute(spec, block)
        if values is None:
            values = task.empty(spec, load_model(task.model, task.device))
        return RasterBlock(values, task.valid(spec, block))

    def identity(self) -> dict[str, Any]:
        return {"kind": "model", "settings": self.settings}
