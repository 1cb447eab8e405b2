"""Centre lines of a mask raster as a graph of lines, read block by block."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float, as_int
from geodl.core.blocks import RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.raster_view import read_padded
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.ops.line_graph import join_pieces, main_values, prune, simplified
from geodl.ops.skeleton import REACH_PER_STEP_PX, line_pieces, thin_steps
from geodl.tools.class_values import class_values

if TYPE_CHECKING:
    import geopandas as gpd

# Lines go on so far beyond the raster's edge; else they would end half their width before it.
_MARGIN_PX = 12
# Layers peeled at once: masks up to twice as wide are done in one go.
_STEPS = 32
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def extract_lines(
    raster: Any,
    *,
    values: int | Iterable[int] | None = None,
    min_length_px: float = 16,
    tolerance_px: float = 1.0,
    block_size: int = 2048,
) -> gpd.GeoDataFrame:
    """Centre lines of a mask: roads, rivers or edges as a graph.

    The raster is read block by block; the result is that of the whole raster, whatever the block
    size, and lines cross the borders of blocks without a gap. The mask is thinned to lines one
    pixel wide, these are followed between the places where they meet or end, short spurs are
    dropped, and the rest is simplified.

    Parameters
    ----------
    raster
        What :func:`geodl.open_raster` takes, with one band of whole numbers.
    values
        Values that count as line; None: all but 0.
    min_length_px
        Spurs that are shorter than so many pixels are dropped, and lines connected to nothing
        longer.
    tolerance_px
        How far, in pixels, simplified lines may lie from the thinned ones; 0 keeps every bend.
    block_size
        Pixels worked on at once, down and across.

    Returns
    -------
    GeoDataFrame of LineStrings in the raster's CRS: ``ClassValue`` (int, that most of the line's
    pixels have), ``FromNode`` and ``ToNode`` (int, equal where lines meet at the very same
    point), from top to bottom.

    Raises
    ------
    DataError
        Several bands, or values that are no whole numbers of 32 bits.
    OptionError
        An option outside its domain.
    MissingPackageError
        scikit-image is not installed.
    """
    side = as_int(block_size, "block_size", minimum=1)
    least = as_float(min_length_px, "min_length_px", minimum=0)
    tolerance = as_float(tolerance_px, "tolerance_px", minimum=0)
    source = open_source(raster)
    if source.count != 1:
        raise DataError(f"{source.name} has {source.count} bands; a mask has one.")
    mask = _Mask(source, _wanted(values))
    with tempfile.TemporaryDirectory(prefix="geodl-lines-") as folder:
        lines = _thinned(mask, side, Path(folder))
        pieces, found = _followed(lines, source, side)
    graph = prune(join_pieces(pieces, found, source.grid.width), least)
    _, ends = np.unique(graph.ends, return_inverse=True)
    ends = ends.reshape(-1, 2)
    return _frame(
        {"ClassValue": main_values(graph), "FromNode": ends[:, 0], "ToNode": ends[:, 1]},
        simplified(graph, tolerance),
        source.grid,
    )


def _wanted(values: int | Iterable[int] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    listed = [values] if isinstance(values, int) else list(values)
    if not listed:
        raise OptionError("values=[] leaves no line; None takes all values but 0.")
    return tuple(as_int(value, "values") for value in listed)


class _Pixels(Protocol):
    """Something that tells line from ground, in a frame a margin larger than the raster."""

    def lines(self, window: Window) -> np.ndarray:
        """bool (H, W) of a window; False outside the frame."""


@dataclass(frozen=True)
class _Mask:
    """The raster's own pixels, those at its edge repeated into the margin."""

    source: RasterSource
    values: tuple[int, ...] | None

    @property
    def frame(self) -> Window:
        """The raster with its margin, counted from the margin's corner."""
        height, width = self.source.grid.shape
        return Window(row=0, col=0, height=height + 2 * _MARGIN_PX, width=width + 2 * _MARGIN_PX)

    def lines(self, window: Window) -> np.ndarray:
        found = np.zeros((window.height, window.width), bool)
        seen = window.intersect(self.frame)
        height, width = self.source.grid.shape
        rows = np.clip(np.arange(seen.row, seen.row_stop) - _MARGIN_PX, 0, height - 1)
        cols = np.clip(np.arange(seen.col, seen.col_stop) - _MARGIN_PX, 0, width - 1)
        inside = Window(
            row=rows[0], col=cols[0], height=rows[-1] - rows[0] + 1, width=cols[-1] - cols[0] + 1
        )
        block = self.source.read(inside)
        values = class_values(block.data[0], self.source.name, valid=block.mask)
        chosen = values != 0 if self.values is None else np.isin(values, self.values)
        found[seen.within(window)] = (chosen & block.mask)[np.ix_(rows - rows[0], cols - cols[0])]
        return found


@dataclass(frozen=True)
class _Stored:
    """What thinning has left so far."""

    store: RegionStore

    def lines(self, window: Window) -> np.ndarray:
        found = np.zeros((window.height, window.width), bool)
        seen = window.intersect(self.store.grid.window)
        if not seen.empty:
            found[seen.within(window)] = self.store.read(seen)[0] != 0
        return found


def _blocks(frame: Window, side: int) -> Iterator[Window]:
    for row in range(frame.row, frame.row_stop, side):
        for col in range(frame.col, frame.col_stop, side):
            yield Window(row=row, col=col, height=side, width=side).intersect(frame)


def _thinned(mask: _Mask, side: int, folder: Path) -> _Stored:
    """The mask's centre lines: all blocks are peeled by some layers, until nothing is left to peel.

    Each block is read with all that its pixels depend on, so the result is that of the whole.
    """
    before: _Pixels = mask
    for turn in range(max(mask.frame.height, mask.frame.width)):
        after = _Stored(_new_store(folder / f"{turn}.zarr", mask.frame, side))
        if _peel(before, after.store, mask.frame, side):
            break
        before = after
    return after


def _new_store(path: Path, frame: Window, side: int) -> RegionStore:
    return RegionStore.create(
        path,
        shape=(1, frame.height, frame.width),
        chunk=side,
        dtype=np.uint8,
        fill=0,
        grid=GeoGrid(width=frame.width, height=frame.height, transform=_IDENTITY),
    )


def _peel(before: _Pixels, after: RegionStore, frame: Window, side: int) -> bool:
    """Peel every block by ``_STEPS`` layers; whether the last one took nothing anywhere."""
    settled = True
    for core in _blocks(frame, side):
        window = core.pad(REACH_PER_STEP_PX * _STEPS)
        part = core.within(window)
        lines = before.lines(window)
        if not lines[part].any():
            continue
        thinner = thin_steps(lines, _STEPS - 1)
        last = thin_steps(thinner, 1)
        settled &= bool((thinner[part] == last[part]).all())
        after.write(core, last[part][None].astype(np.uint8))
    return settled


def _followed(
    lines: _Stored, source: RasterSource, side: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pieces of lines of all blocks, and the raster's values at their pixels."""
    pieces: list[np.ndarray] = []
    values: list[np.ndarray] = []
    inside = source.grid.window
    width = source.grid.width
    for core in _blocks(inside, side):
        window = core.pad(1)
        seen = window.intersect(inside)
        found = np.zeros((window.height, window.width), bool)
        found[seen.within(window)] = lines.lines(seen.shift(_MARGIN_PX, _MARGIN_PX))
        own = line_pieces(found, core.row, core.col, width)
        if not own:
            continue
        block = read_padded(source, window)
        data = class_values(block.data[0], source.name, valid=block.mask)
        pieces += own
        values += [data[p // width - window.row, p % width - window.col] for p in own]
    return pieces, values


def _frame(columns: dict[str, np.ndarray], shapes: np.ndarray, grid: GeoGrid) -> gpd.GeoDataFrame:
    """Features in the grid's CRS, of shapes in pixel edges (x right, y down)."""
    import geopandas

    a, b, c, d, e, f = grid.transform
    turn = np.array([[a, b], [d, e]])
    placed = shapely.transform(shapes, lambda points: points @ turn.T + (c, f))
    return geopandas.GeoDataFrame(columns, geometry=placed, crs=grid.crs)
