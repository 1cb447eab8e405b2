"""Several rasters as one: a common lattice, earlier items on top, only touched items read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import GridMismatchError, SourceError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.lattice import cover, place
from geodl.io.masks import check_inside, nodata_for
from geodl.io.raster_view import UNNAMED, block_shape, select_bands


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicRaster:
    """Rasters on one lattice.

    Parameters
    ----------
    items
        Each on its own part of the lattice, first on top.
    windows
        int64 (N, 4): row, col, row stop and col stop of each item in ``grid``.
    block_shape
        As the first item has it.
    """

    items: tuple[RasterSource, ...]
    windows: np.ndarray
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    block_shape: tuple[int, int] | None

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window; ground that no item covers holds nodata (or 0) and mask False.

        Raises
        ------
        SourceError
            An item cannot be read; names it.
        """
        check_inside(self.name, self.grid, window)
        fill = self.nodata if self.nodata is not None else 0
        data = np.full((self.count, window.height, window.width), fill, self.dtype)
        mask = np.zeros((window.height, window.width), dtype=bool)
        for position in self._touched(window):
            row, col, row_stop, col_stop = map(int, self.windows[position])
            area = Window(row=row, col=col, height=row_stop - row, width=col_stop - col)
            part = area.intersect(window)
            target = part.within(window)
            if mask[target].all():
                continue
            block = self.items[position].read(part.shift(-row, -col))
            fresh = block.mask & ~mask[target]
            if fresh.all():
                data[:, *target] = self._own_nodata(block.data, self.items[position])
            elif fresh.any():
                values = self._own_nodata(block.data, self.items[position])
                np.copyto(data[:, *target], values, casting="unsafe", where=fresh)
            mask[target] |= block.mask
        return RasterBlock(data, mask)

    def _touched(self, window: Window) -> np.ndarray:
        rows, cols, row_stops, col_stops = self.windows.T
        inside = (rows < window.row_stop) & (row_stops > window.row)
        inside &= (cols < window.col_stop) & (col_stops > window.col)
        return np.flatnonzero(inside)

    def _own_nodata(self, data: np.ndarray, item: RasterSource) -> np.ndarray:
        """An item's nodata in single bands, turned into the mosaic's."""
        value = nodata_for(item.dtype, item.nodata)
        if value is None or value == self.nodata or self.nodata is None or data.shape[0] == 1:
            return data
        missing = np.isnan(data) if np.isnan(value) else data == item.dtype.type(value)
        return np.where(missing, self.dtype.type(self.nodata), data) if missing.any() else data

    def select_bands(self, positions: tuple[int, ...]) -> MosaicRaster:
        """These bands of every item; files read no others."""
        items = tuple(select_bands(item, positions) for item in self.items)
        return mosaic_of(items, self.windows, self.grid, self.name)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "mosaic",
            "items": [item.identity() for item in self.items],
            "windows": self.windows.tolist(),
            "grid": self.grid.to_json(),
        }


def mosaic_of(
    items: tuple[RasterSource, ...], windows: np.ndarray, grid: GeoGrid, name: str
) -> MosaicRaster:
    """Items that already lie on one lattice, as one source."""
    first = items[0]
    dtype = np.result_type(*{item.dtype for item in items})
    return MosaicRaster(
        items=items,
        windows=windows,
        name=name,
        grid=grid,
        count=first.count,
        dtype=dtype,
        band_names=first.band_names,
        nodata=nodata_for(dtype, first.nodata),
        block_shape=block_shape(first),
    )


def _in_order(source: RasterSource, first: RasterSource) -> RasterSource:
    """The source with its bands in the order of the first one's, where their names tell it."""
    names, wanted = source.band_names, first.band_names
    if names == wanted or len(set(wanted)) < len(wanted) or set(names) != set(wanted):
        return source
    if all(UNNAMED.fullmatch(name) for name in wanted):
        # Numbers say where a band stood in its file: another order was chosen on purpose.
        return source
    return select_bands(source, tuple(names.index(name) for name in wanted))


def build_mosaic(
    sources: Sequence[RasterSource], lattice: GeoGrid, *, resampling: str
) -> RasterSource:
    """Lay sources onto one lattice, the first on top.

    Parameters
    ----------
    sources
        At least one; any CRS and resolution.
    lattice
        Gives CRS, resolution and alignment; its extent plays no part.
    resampling
        For items that do not lie on the lattice's own pixels.

    Returns
    -------
    A source over the union of all items. Bands that files name go by their names where every item
    has the same ones, else by position.

    Raises
    ------
    GridMismatchError
        Items with and without CRS, or several without one.
    SourceError
        An item has another number of bands; names it.
    """
    first = sources[0]
    for source in sources[1:]:
        if source.count != first.count:
            raise SourceError(
                f"{source.name} has {source.count} bands and {first.name} has {first.count}; the "
                "items of a mosaic need the same bands. Select common ones with bands=."
            )
    sources = [_in_order(source, first) for source in sources]
    for source in sources:
        if len(sources) > 1 and source.grid.crs is None:
            raise GridMismatchError(
                f"{source.name} has no CRS, so its place in the mosaic is unknown; state it with "
                "assume_crs."
            )
    covers = [cover(lattice, source.grid, source.name) for source in sources]
    row, col = min(w.row for w in covers), min(w.col for w in covers)
    row_stop, col_stop = max(w.row_stop for w in covers), max(w.col_stop for w in covers)
    whole = Window(row=row, col=col, height=row_stop - row, width=col_stop - col)
    items = tuple(place(s, lattice, w, resampling) for s, w in zip(sources, covers, strict=True))
    windows = np.array(
        [(w.row - row, w.col - col, w.row_stop - row, w.col_stop - col) for w in covers],
        dtype=np.int64,
    )
    name = first.name if len(sources) == 1 else f"{first.name} and {len(sources) - 1} more"
    return mosaic_of(items, windows, lattice.crop(whole), name)
