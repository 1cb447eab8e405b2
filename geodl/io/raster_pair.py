"""Two rasters of the same ground as one: the bands of both on the pixels of the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import GridMismatchError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.masks import check_inside
from geodl.io.raster_view import block_shape, read_padded
from geodl.io.source import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRaster:
    """The bands of two rasters, the first's before the second's; data is where both have data.

    Parameters
    ----------
    first, second
        Pixels of the second coincide with those of the first, its extent is its own.
    row, col
        Of the second's upper left pixel in the first.
    """

    first: RasterSource
    second: RasterSource
    row: int
    col: int
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None

    @classmethod
    def of(cls, first: RasterSource, second: RasterSource) -> PairedRaster:
        """Bring the second raster onto the pixels of the first, by bilinear resampling if need be.

        Raises
        ------
        GridMismatchError
            Only one of them has a CRS, or they do not overlap.
        """
        placed = open_source(second, snap=first.grid)
        col, row = (round(n) for n in ~first.grid.affine @ (placed.grid.affine @ (0, 0)))
        if placed.grid.window.shift(row, col).intersect(first.grid.window).empty:
            raise GridMismatchError(
                f"{second.name} nowhere overlaps {first.name}; give two rasters of the same ground."
            )
        return cls(
            first=first,
            second=placed,
            row=row,
            col=col,
            name=first.name,
            grid=first.grid,
            count=first.count + placed.count,
            dtype=np.result_type(first.dtype, placed.dtype),
            band_names=(*first.band_names, *placed.band_names),
            nodata=first.nodata,
        )

    @property
    def inputs(self) -> tuple[RasterSource, RasterSource]:
        """Both rasters, for the record."""
        return self.first, self.second

    @property
    def block_shape(self) -> tuple[int, int] | None:
        """Rows and columns that are cheap to read together."""
        return block_shape(self.first)

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window; the mask is True where both rasters have data.

        Raises
        ------
        SourceError
            One of the rasters cannot be read; names it.
        """
        check_inside(self.name, self.grid, window)
        blocks = (
            self.first.read(window),
            read_padded(self.second, window.shift(-self.row, -self.col)),
        )
        data = np.concatenate([block.data.astype(self.dtype, copy=False) for block in blocks])
        return RasterBlock(data, blocks[0].mask & blocks[1].mask)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "pair",
            "sources": [self.first.identity(), self.second.identity()],
            "corner": [self.row, self.col],
        }
