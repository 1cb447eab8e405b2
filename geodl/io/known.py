"""Arrays that ``open_raster`` made, and the sources that they were made from.

A tool that is given such an array reads windows from the source itself, not chunks of the array. An
array is known by the name of its Dask graph, which every computation on it changes.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

import dask.base
import numpy as np
import xarray as xr

from geodl.base.errors import SourceError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import Window
from geodl.io.raster_array import open_array


class WindowReader:
    """Reads windows of one source; the object that an array's tasks share.

    Parameters
    ----------
    source
        Any source.
    """

    def __init__(self, source: RasterSource) -> None:
        self.source = source

    def __call__(self, window: Window) -> RasterBlock:
        return self.source.read(window)


_readers: WeakValueDictionary[tuple[str, str], WindowReader] = WeakValueDictionary()


def _names(array: xr.DataArray) -> tuple[str, str] | None:
    mask = array.coords.get("mask")
    if mask is None or not dask.base.is_dask_collection(array.data):
        return None
    return (array.data.name, mask.data.name) if dask.base.is_dask_collection(mask.data) else None


def remember_reader(array: xr.DataArray, reader: WindowReader) -> None:
    """Note which reader an array's tasks call, as long as a graph holds it."""
    names = _names(array)
    if names is not None:
        _readers[names] = reader


def known_source(array: xr.DataArray) -> RasterSource | None:
    """The source that an untouched array was made from, else None.

    New coordinates, another CRS or another nodata value count as touched.
    """
    names = _names(array)
    reader = None if names is None else _readers.get(names)
    if reader is None:
        return None
    source = reader.source
    if array.shape != (source.count, *source.grid.shape):
        return None
    try:
        stated = open_array(array, token="")
    except SourceError:
        return None
    same_nodata = np.array_equal(
        [np.nan if stated.nodata is None else stated.nodata],
        [np.nan if source.nodata is None else source.nodata],
        equal_nan=True,
    )
    close = np.allclose(stated.grid.transform, source.grid.transform, rtol=1e-9, atol=1e-9)
    return source if same_nodata and close and stated.grid.crs == source.grid.crs else None
