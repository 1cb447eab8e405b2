"""xarray objects as sources: windows read lazily, rows downwards, mask found."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask.base
import numpy as np
import xarray as xr
from dask.highlevelgraph import MaterializedLayer

from geodl.base.errors import GeodlError, SourceError
from geodl.core.blocks import RasterBlock
from geodl.core.grid import GeoGrid, Window
from geodl.io.array_grid import (
    BAND_NAMES,
    array_grid,
    band_names,
    find_axis,
    spatial_axes,
    stated_nodata,
)
from geodl.io.chunk_spool import ChunkSpool
from geodl.io.locations import stamp_files
from geodl.io.masks import any_band_valid, check_inside, nodata_for


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRaster:
    """A DataArray as a source.

    Parameters
    ----------
    array
        Dims (band, y, x), y downwards; NumPy, Dask or lazily indexed.
    mask_array
        The array's own ``mask`` coordinate (y, x), or None.
    flipped_y
        Rows of ``array`` run upwards and are turned over when read.
    token
        Fingerprint of the content.
    spool
        Keeps the chunks of a Dask array once they are computed; None for other arrays.
    """

    array: xr.DataArray
    mask_array: xr.DataArray | None
    flipped_y: bool
    token: str
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    block_shape: tuple[int, int] | None
    spool: ChunkSpool | None = None

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window; of a Dask array only the chunks that it touches are computed.

        Raises
        ------
        SourceError
            The array cannot be computed or read there.
        """
        check_inside(self.name, self.grid, window)
        rows = slice(window.row, window.row_stop)
        if self.flipped_y:
            height = self.grid.height
            rows = slice(height - window.row_stop, height - window.row)
        cols = slice(window.col, window.col_stop)
        try:
            loaded = self._load(rows, cols) if self.spool is None else self._kept(rows, cols)
        except GeodlError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
            raise SourceError(
                f"{self.name}: rows {window.row}..{window.row_stop}, columns {window.col}.."
                f"{window.col_stop} cannot be read: {error}"
            ) from error
        data, *masks = (np.asarray(part) for part in loaded)
        if self.flipped_y:
            data, masks = data[:, ::-1], [mask[::-1] for mask in masks]
        mask = any_band_valid(data, (self.nodata,) * self.count)
        for stated in masks:
            mask &= stated
        return RasterBlock(np.ascontiguousarray(data), mask)

    def _load(self, rows: slice, cols: slice) -> list[np.ndarray]:
        """The array's part (bands, H, W), and the mask's (H, W) if it has one."""
        wanted = [self.array.variable[:, rows, cols]]
        if self.mask_array is not None:
            wanted.append(self.mask_array.variable[rows, cols])
        # The block task is a Dask task already; a nested scheduler would fight for its threads.
        loaded = dask.base.compute(*(part.data for part in wanted), scheduler="sync")
        return [np.asarray(part) for part in loaded]

    def _kept(self, rows: slice, cols: slice) -> list[np.ndarray]:
        """The same, put together from whole chunks, each of which is computed once."""
        spool, chunks = self.spool, self.array.chunks
        if spool is None or chunks is None:
            return self._load(rows, cols)
        height, width = rows.stop - rows.start, cols.stop - cols.start
        found = [np.empty((self.count, height, width), self.dtype)]
        if self.mask_array is not None:
            found.append(np.empty((height, width), bool))
        down, across = _touched(chunks[1], rows), _touched(chunks[2], cols)
        for i, chunk_rows in down:
            for j, chunk_cols in across:
                parts = spool.get(i, j, partial(self._load, chunk_rows, chunk_cols))
                here, there = _shared(rows, chunk_rows), _shared(chunk_rows, rows)
                left, right = _shared(cols, chunk_cols), _shared(chunk_cols, cols)
                for whole, part in zip(found, parts, strict=True):
                    whole[..., here, left] = part[..., there, right]
        if not self.flipped_y:
            spool.forget_above(down[0][0])
        return found

    def select_bands(self, positions: tuple[int, ...]) -> ArrayRaster:
        picked = self.array[list(positions)]
        return replace(
            self,
            array=picked,
            count=len(positions),
            band_names=tuple(self.band_names[p] for p in positions),
            token=dask.base.tokenize(self.token, positions),
            spool=None if self.spool is None else ChunkSpool(),
        )

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "array",
            "token": self.token,
            "grid": self.grid.to_json(),
            "nodata": repr(self.nodata),
        }


def open_array(
    array: xr.DataArray,
    *,
    name: str | None = None,
    nodata: float | None = None,
    assume_crs: str | None = None,
    token: str | None = None,
) -> ArrayRaster:
    """A DataArray of one time as a source.

    Parameters
    ----------
    array
        Dims in any order: y and x, at most one more (bands), others of length 1.
    name
        For messages.
    nodata
        Replaces the array's own.
    assume_crs
        WKT that stands where the array states no CRS.
    token
        Fingerprint of the content; taken from the array when not given.

    Raises
    ------
    SourceError
        Dimensions that make no raster, unevenly spaced coordinates, a dtype that is no number, or
        chunks that a cluster holds.
    """
    label = name or f"the array {array.name!r}"
    if array.dtype.kind not in "biufc":
        raise SourceError(f"{label} holds {array.dtype} values; a raster needs numbers.")
    if _on_cluster(array):
        raise SourceError(
            f"{label} was persisted on a Dask cluster, whose tasks cannot read it by windows. Give "
            "it as it was before persist(), or write it with .to_zarr() and give the store."
        )
    y, x = spatial_axes(array)
    ordered = _band_first(array, y, x, label)
    grid, flipped = array_grid(ordered, y, x, label, assume_crs)
    value = nodata if nodata is not None else stated_nodata(ordered)
    return ArrayRaster(
        array=ordered.drop_vars(list(ordered.coords)),
        mask_array=_mask_coordinate(array, y, x),
        flipped_y=flipped,
        token=_token(array) if token is None else token,
        name=label,
        grid=grid,
        count=ordered.shape[0],
        dtype=ordered.dtype,
        band_names=band_names(ordered),
        nodata=nodata_for(ordered.dtype, value),
        block_shape=_block_shape(ordered),
        spool=None if ordered.chunks is None else ChunkSpool(),
    )


def _on_cluster(array: xr.DataArray) -> bool:
    """Whether chunks are results that a ``distributed`` cluster holds."""
    distributed = sys.modules.get("distributed")
    if distributed is None or array.chunks is None:
        return False
    layers = array.data.__dask_graph__().layers.values()
    # Other layers make their tasks when they are asked for them, and hold no results.
    kept = (layer for layer in layers if isinstance(layer, MaterializedLayer) and len(layer))
    return any(isinstance(next(iter(layer.values())), distributed.Future) for layer in kept)


def _touched(sizes: tuple[int, ...], part: slice) -> list[tuple[int, slice]]:
    """Numbers and places, along one axis, of the chunks that ``part`` meets."""
    stops = np.cumsum(sizes)
    first = int(np.searchsorted(stops, part.start, side="right"))
    last = int(np.searchsorted(stops, part.stop, side="left"))
    return [(k, slice(int(stops[k]) - sizes[k], int(stops[k]))) for k in range(first, last + 1)]


def _shared(frame: slice, other: slice) -> slice:
    """What two parts of an axis share, counted from the start of ``frame``."""
    start, stop = max(frame.start, other.start), min(frame.stop, other.stop)
    return slice(start - frame.start, stop - frame.start)


def _token(array: xr.DataArray) -> str:
    """A fingerprint of the content; for a file that xarray reads lazily, of its size and time.

    Hashing the pixels of such a file would read it whole, and it may be larger than the memory.
    """
    file = array.encoding.get("source")
    # xarray has no public way to ask whether the pixels are still in the file.
    if file is None or array.chunks is not None or array.variable._in_memory:
        return str(dask.base.tokenize(array))
    keys = []
    layer: Any = array.variable._data
    while layer is not None:
        if hasattr(layer, "key"):
            keys.append(repr(layer.key))
        layer = getattr(layer, "array", None)
    facts = stamp_files([str(file)]), array.shape, str(array.dtype), keys
    return str(dask.base.tokenize(facts, dict(array.coords), array.attrs))


def _band_first(array: xr.DataArray, y: str, x: str, label: str) -> xr.DataArray:
    others = [str(d) for d in array.dims if d not in (y, x)]
    long = [d for d in others if array.sizes[d] != 1]
    band = find_axis(array, BAND_NAMES) if len(long) != 1 else long[0]
    if len(long) > 1:
        raise SourceError(
            f"{label} has dimensions {dict(array.sizes)}; a raster has y, x and one of bands. "
            f"Select one entry of {', '.join(d for d in long if d != band)} first."
        )
    if band is None:
        band = others[0] if others else None
    single = {d: 0 for d in others if d != band}
    array = array.isel(single)
    if band is None:
        band = "band"
        array = array.expand_dims(band)
    return array.transpose(band, y, x)


def _mask_coordinate(array: xr.DataArray, y: str, x: str) -> xr.DataArray | None:
    mask = array.coords.get("mask")
    if mask is None or mask.dtype != bool or set(map(str, mask.dims)) != {y, x}:
        return None
    return mask.transpose(y, x).drop_vars(list(mask.coords))


def _block_shape(array: xr.DataArray) -> tuple[int, int] | None:
    chunks = array.chunks or array.encoding.get("preferred_chunks")
    if isinstance(chunks, tuple):
        return max(chunks[1]), max(chunks[2])
    if isinstance(chunks, dict):
        rows, cols = (chunks.get(dim) for dim in array.dims[1:])
        if isinstance(rows, int) and isinstance(cols, int):
            return rows, cols
    return None
