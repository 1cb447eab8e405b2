"""The files behind a source, so that none of them is replaced by a product made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import dask.base
import xarray as xr

from geodl.core.blocks import RasterSource
from geodl.io.handles import opened
from geodl.io.known import WindowReader
from geodl.io.raster_file import RasterFile


def source_files(source: RasterSource) -> Iterator[str]:
    """Paths and URLs that a source reads: of a VRT also its parts, of an array what it came from.

    An array that was computed in memory, or by somebody else's functions, has none.
    """
    if isinstance(source, RasterFile):
        with opened(source.location, source.stamp) as dataset:
            yield from dataset.files
    yield from _within(source)


def _within(value: Any) -> Iterator[str]:
    location = getattr(value, "location", None)
    if location is not None:
        yield location.text
    if not is_dataclass(value):
        return
    for field in fields(value):
        part = getattr(value, field.name)
        for item in part if isinstance(part, tuple) else (part,):
            if isinstance(item, RasterSource):
                yield from source_files(item)
            elif isinstance(item, xr.DataArray):
                yield from _behind(item)


def _behind(array: xr.DataArray) -> Iterator[str]:
    """What an array's tasks read, where ``open_raster`` or xarray made them."""
    named = array.encoding.get("source")
    if named is not None:
        yield str(named)
    if not dask.base.is_dask_collection(array.data):
        return
    for name, layer in array.data.__dask_graph__().layers.items():
        task = next(iter(layer.values()), ()) if name.startswith("geodl_read_") else ()
        if isinstance(task, tuple) and task and isinstance(task[0], WindowReader):
            yield from source_files(task[0].source)
