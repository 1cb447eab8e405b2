"""The second raster of an export: chips of the same ground for ``images2``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from geodl.base.errors import DataWarning, GridMismatchError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_label, same_crs
from geodl.io.raster_view import read_padded
from geodl.io.raster_warp import WarpedRaster
from geodl.io.source import open_source
from geodl.tools.chip_labels import NoOverlapError

# Two grids whose pixels lie closer than this share of a pixel are the same grid.
_ALIGNED_PX = 1e-3
_MOST_TIMES_FINER = 16


@dataclass(frozen=True, kw_only=True)
class SecondRaster:
    """A raster whose pixels divide those of the image.

    Parameters
    ----------
    factor
        Pixels of this raster along a pixel of the image.
    row_px, col_px
        Of the raster's upper left pixel in the image, counted in its own pixels.
    """

    source: RasterSource
    factor: int
    row_px: int
    col_px: int

    def window(self, window: Window) -> Window:
        """A window of the image in pixels of this raster, from the image's corner."""
        return Window(
            row=window.row * self.factor,
            col=window.col * self.factor,
            height=window.height * self.factor,
            width=window.width * self.factor,
        )

    def grid(self, image: GeoGrid) -> GeoGrid:
        """The image's grid in pixels of this raster."""
        a, b, c, d, e, f = image.transform
        k = self.factor
        return GeoGrid(
            width=image.width * k,
            height=image.height * k,
            transform=(a / k, b / k, c, d / k, e / k, f),
            crs=image.crs,
        )

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window counted as :meth:`window` does; without data beyond the raster.

        Raises
        ------
        SourceError
            The raster cannot be read there.
        """
        wanted = window.shift(-self.row_px, -self.col_px)
        return read_padded(self.source, wanted)

    def identity(self) -> dict[str, Any]:
        return {
            "raster": self.source.identity(),
            "corner": [self.row_px, self.col_px],
            "factor": self.factor,
        }


def second_raster(raster: Any, image: GeoGrid, *, finer: bool) -> SecondRaster:
    """Bring a raster onto the pixels of the image.

    Parameters
    ----------
    finer
        Whether a raster whose cells divide the image's keeps its own, smaller ones.

    Raises
    ------
    GridMismatchError
        One of the two has a CRS and the other has none.
    NoOverlapError
        They do not overlap.
    """
    source = open_source(raster)
    if (source.grid.crs is None) != (image.crs is None):
        raise GridMismatchError(
            f"The second raster {source.name} lies in {crs_label(source.grid.crs)} and the image "
            f"in {crs_label(image.crs)}; state the missing CRS with "
            'geodl.open_raster(path, assume_crs="EPSG:...").'
        )
    factor = _factor(source.grid, image) if finer else 1
    found = None
    if factor is not None and same_crs(source.grid.crs, image.crs):
        found = _corner(source.grid, image, factor)
    if found is None or factor is None:
        warnings.warn(
            f"The second raster {source.name} lies on another grid than the image; it is resampled "
            "to the image's pixels.",
            DataWarning,
            stacklevel=4,
        )
        source = WarpedRaster.of(source, image, image.window, "bilinear")
        factor, found = 1, (0, 0)
    second = SecondRaster(source=source, factor=factor, row_px=found[0], col_px=found[1])
    own = source.grid.window.shift(second.row_px, second.col_px)
    if own.intersect(second.window(image.window)).empty:
        raise NoOverlapError(f"The second raster {source.name} nowhere overlaps the image.")
    return second


def _factor(grid: GeoGrid, image: GeoGrid) -> int | None:
    """How many cells lie along one of the image's; None where that is no whole number."""
    times = image.cell_size_xy[0] / grid.cell_size_xy[0]
    factor = round(times)
    whole = 1 <= factor <= _MOST_TIMES_FINER and abs(times - factor) < 1e-6 * factor
    return factor if whole else None


def _corner(grid: GeoGrid, image: GeoGrid, factor: int) -> tuple[int, int] | None:
    """Row and column of a grid's corner in the image's pixels divided by ``factor``."""
    inverse = ~image.affine
    col, row = (round(number * factor) for number in inverse @ (grid.affine @ (0, 0)))
    corners = ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))
    for x, y in corners:
        there = inverse @ (grid.affine @ (x, y))
        off = max(abs(there[0] * factor - col - x), abs(there[1] * factor - row - y))
        if off > _ALIGNED_PX:
            return None
    return row, col
