"""``open_raster``: a source as a lazily read ``xarray.DataArray``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from geodl.base.errors import OptionError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import Window
from geodl.io.known import WindowReader, remember_reader
from geodl.io.raster_folder import listed
from geodl.io.raster_view import UNNAMED, block_shape
from geodl.io.series import series_times
from geodl.io.source import Bands, open_source

# Side and size of a chunk when none is asked for: large enough that a task's overhead is small,
# small enough that a few chunks per thread fit a worker.
CHUNK_PX = 2048
CHUNK_BYTES = 128 * 2**20
Chunks = str | int | Sequence[Any] | Mapping[str, Any]


def open_raster(
    source: Any,
    *,
    bands: Bands | None = None,
    bounds: Sequence[float] | None = None,
    crs: Any = None,
    resolution: float | tuple[float, float] | None = None,
    resampling: str = "bilinear",
    chunks: Chunks = "auto",
    masked: bool = False,
    assume_crs: Any = None,
    nodata: float | None = None,
    variable: str | Sequence[str] | None = None,
    time: Any = None,
) -> xr.DataArray:
    """Open a raster lazily: only headers are read.

    Parameters
    ----------
    source
        A path, URL, fsspec location or GDAL name; a Zarr store or NetCDF file; an xarray object; a
        STAC item or collection of items; or a list of these: a mosaic, earlier items on top. A
        folder, or a pattern such as ``tiles/*.tif``, is the list of its rasters by name.
    bands
        Numbers from 1, or names, in the order wanted; one or several. All by default but alpha,
        which makes the mask unless it is asked for by name.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the CRS of the result: the whole pixels that cover it.
    crs, resolution, resampling
        To reproject and resample: EPSG code, WKT or CRS object; pixel size in units of the result's
        CRS; ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"average"``, ``"mode"``, ...
    chunks
        ``"auto"``: about 2048 pixels square, whole tiles of the file; a number of pixels;
        ``(y, x)``; or a dict by dimension.
    masked
        Float with NaN where there is no data.
    assume_crs
        The CRS of a source that states none.
    nodata
        Replaces the source's own nodata value.
    variable, time
        Which variable, and which one time, of a Zarr store, NetCDF file or xarray object; several
        variables, or assets of a STAC item, become bands.

    Returns
    -------
    Dask-backed array with dims ``(band, y, x)``, or ``(time, band, y, x)`` for a series of which no
    time is chosen; the source's own dtype and values. ``band`` counts from 1; ``long_name`` names
    the bands where the source does. The boolean coordinate ``mask`` is True where there is data.
    CRS, transform and nodata are in ``.rio``; scale and offset of the file in ``attrs``.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing at the path, or no raster; names it.
    OptionError
        An option outside its domain, or a band, variable or time that does not exist.
    GridMismatchError
        Grids that cannot be brought together: a missing CRS, or bounds outside the raster.
    """
    options: dict[str, Any] = {
        "bands": bands,
        "bounds": bounds,
        "crs": crs,
        "resolution": resolution,
        "resampling": resampling,
        "masked": masked,
        "assume_crs": assume_crs,
        "nodata": nodata,
        "variable": variable,
    }
    source = listed(source)
    times = None if time is not None else series_times(source, variable)
    if times is None:
        return as_array(open_source(source, time=time, **options), chunks)
    name, values = times
    layers = [
        as_array(open_source(source, time=position, **options), chunks)
        for position in range(len(values))
    ]
    return _stack(layers, name, values)


def as_array(source: RasterSource, chunks: Chunks = "auto") -> xr.DataArray:
    """A source as a lazily read array; see :func:`open_raster`.

    Raises
    ------
    OptionError
        Chunks that no array can have.
    """
    sizes = _chunk_sizes(source, chunks)
    data, mask, reader = _lazy_blocks(source, sizes)
    array = xr.DataArray(
        data,
        dims=("band", "y", "x"),
        coords=_coordinates(source),
        attrs=_attributes(source),
        name=_label(source.name),
    )
    array = array.assign_coords(mask=(("y", "x"), mask))
    array = _georeferenced(array, source)
    remember_reader(array, reader)
    return array


def _chunk_sizes(source: RasterSource, chunks: Chunks) -> tuple[tuple[int, ...], ...]:
    """Chunks of rows and columns; the bands stay together, as tiles of a file hold them."""
    shape = source.grid.shape
    wanted: Any = chunks
    if isinstance(chunks, str) and chunks == "auto":
        wanted = _auto_chunks(source)
    elif isinstance(chunks, Mapping):
        wanted = tuple(chunks.get(dim, -1) for dim in ("y", "x"))
    elif isinstance(chunks, Sequence) and len(chunks) == 3:
        wanted = tuple(chunks)[1:]
    try:
        sizes: tuple[tuple[int, ...], ...] = normalize_chunks(wanted, shape, dtype=source.dtype)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise OptionError(
            f"chunks={chunks!r} do not fit a raster of {shape[0]} x {shape[1]} pixels ({error}); "
            "give 'auto', a number of pixels, (y, x) or a dict by dimension."
        ) from error
    return sizes


def _auto_chunks(source: RasterSource) -> tuple[int, int]:
    """Whole tiles of the file, near 2048 pixels square and within 128 MiB."""
    rows, cols = block_shape(source) or (CHUNK_PX, CHUNK_PX)
    pixel_bytes = max(1, source.count * source.dtype.itemsize)
    budget = min(CHUNK_PX * CHUNK_PX, max(1, CHUNK_BYTES // pixel_bytes))
    width = min(source.grid.width, _whole_tiles(cols, min(CHUNK_PX, int(budget**0.5))))
    # A file in strips is read in whole strips: wide chunks of fewer rows.
    height = min(source.grid.height, _whole_tiles(rows, max(1, budget // width)))
    height = min(height, max(_whole_tiles(rows, CHUNK_PX), rows))
    return height, width


def _whole_tiles(tile: int, wanted: int) -> int:
    return max(1, wanted // tile) * tile


def _lazy_blocks(
    source: RasterSource, sizes: tuple[tuple[int, ...], ...]
) -> tuple[da.Array, da.Array, WindowReader]:
    """Pixels and mask as Dask arrays that share one read per chunk."""
    reader = WindowReader(source)
    token = tokenize(source.identity(), source.name, sizes)
    # Underscores: the dashboard groups tasks by the text before the first hyphen.
    names = [f"geodl_{what}_{_label(source.name)}-{token}" for what in ("read", "pixels", "mask")]
    windows = _chunk_windows(sizes)
    reads = {(names[0], i, j): (reader, window) for (i, j), window in windows.items()}
    pixels = {(names[1], 0, i, j): (_data, (names[0], i, j)) for i, j in windows}
    masks = {(names[2], i, j): (_mask, (names[0], i, j)) for i, j in windows}
    layers: dict[str, dict[Any, Any]] = {names[0]: reads, names[1]: pixels, names[2]: masks}
    needs: dict[str, set[str]] = {names[0]: set(), names[1]: {names[0]}, names[2]: {names[0]}}
    data = da.Array(
        HighLevelGraph({n: layers[n] for n in names[:2]}, {n: needs[n] for n in names[:2]}),
        names[1],
        chunks=((source.count,), *sizes),
        dtype=source.dtype,
    )
    mask = da.Array(
        HighLevelGraph({n: layers[n] for n in names[::2]}, {n: needs[n] for n in names[::2]}),
        names[2],
        chunks=sizes,
        dtype=np.dtype(bool),
    )
    return data, mask, reader


def _label(name: str) -> str:
    """A source's name in letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9]+", "_", Path(name).stem).strip("_")[:40] or "raster"


def _chunk_windows(sizes: tuple[tuple[int, ...], ...]) -> dict[tuple[int, int], Window]:
    rows, cols = (np.cumsum([0, *axis]).tolist() for axis in sizes)
    return {
        (i, j): Window(row=rows[i], col=cols[j], height=height, width=width)
        for i, height in enumerate(sizes[0])
        for j, width in enumerate(sizes[1])
    }


def _data(block: RasterBlock) -> np.ndarray:
    return block.data


def _mask(block: RasterBlock) -> np.ndarray:
    return block.mask


def _coordinates(source: RasterSource) -> dict[str, Any]:
    grid = source.grid
    coordinates: dict[str, Any] = {"band": ("band", np.arange(1, source.count + 1))}
    names = list(source.band_names)
    if not all(UNNAMED.fullmatch(name) for name in names):
        coordinates["band"] = ("band", np.arange(1, source.count + 1), {"long_name": names})
        coordinates["long_name"] = ("band", np.array(names, dtype=str))
    a, b, c, d, e, f = grid.transform
    if b == 0 and d == 0:
        # A rotated grid has no coordinate per axis; its transform is in .rio.
        geographic = grid.crs is not None and grid.crs.startswith("GEOG")
        coordinates["x"] = ("x", c + a * (np.arange(grid.width) + 0.5), _axis("X", geographic))
        coordinates["y"] = ("y", f + e * (np.arange(grid.height) + 0.5), _axis("Y", geographic))
    return coordinates


def _axis(axis: str, geographic: bool) -> dict[str, str]:
    names = {"X": ("longitude", "degrees_east"), "Y": ("latitude", "degrees_north")}
    if geographic:
        return {"axis": axis, "standard_name": names[axis][0], "units": names[axis][1]}
    return {"axis": axis}


def _attributes(source: RasterSource) -> dict[str, Any]:
    """Scale and offset as the source states them: a number, or one per band where they differ."""
    attributes: dict[str, Any] = {}
    for name, field, neutral in (("scale_factor", "scales", 1.0), ("add_offset", "offsets", 0.0)):
        values = tuple(getattr(source, field, ()))
        if any(value != neutral for value in values):
            attributes[name] = values[0] if len(set(values)) == 1 else values
    return attributes


def _georeferenced(array: xr.DataArray, source: RasterSource) -> xr.DataArray:
    if source.nodata is not None:
        array = array.rio.write_nodata(source.nodata)
    array = array.rio.write_transform(source.grid.affine)
    if source.grid.crs is not None:
        array = array.rio.write_crs(source.grid.crs)
    return array


def _stack(layers: list[xr.DataArray], name: str, values: np.ndarray) -> xr.DataArray:
    """Arrays of one grid along time, each with its own mask."""
    first = layers[0]
    stacked = xr.DataArray(
        da.stack([layer.data for layer in layers]),
        dims=("time", *first.dims),
        coords={k: v for k, v in first.coords.items() if k != "mask"},
        attrs=first.attrs,
    )
    masks = da.stack([layer.coords["mask"].data for layer in layers])
    stacked = stacked.assign_coords(time=("time", values), mask=(("time", "y", "x"), masks))
    stacked.encoding = dict(first.encoding)
    return stacked
