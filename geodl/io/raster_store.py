"""Rasters in Zarr stores and NetCDF files: a name that each process opens for itself."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geodl.base.files import sha256_json
from geodl.core.blocks import RasterBlock
from geodl.core.grid import GeoGrid, Window
from geodl.io.array_grid import time_axis
from geodl.io.datasets import choose_time, choose_variable, open_dataset
from geodl.io.locations import Location, stamp_files, stamp_folder, stamp_remote
from geodl.io.raster_array import ArrayRaster, open_array


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRaster:
    """One variable at one time of a Zarr store or NetCDF file.

    Parameters
    ----------
    location, stamp
        What is opened, and a text that changes when it does.
    variable
        Name in the store.
    time
        Position on the time axis; None where there is none.
    override
        Replaces the stated nodata.
    assume_crs
        WKT for a store that states no CRS.
    positions
        Selected bands from 0.
    content
        JSON text for :meth:`identity`.
    """

    location: Location
    stamp: str
    variable: str
    time: int | None
    override: float | None
    assume_crs: str | None
    positions: tuple[int, ...]
    content: str
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    block_shape: tuple[int, int] | None

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window.

        Raises
        ------
        SourceError
            The store cannot be read there; names it.
        """
        array = _array(
            self.location, self.stamp, self.variable, self.time, self.override, self.assume_crs
        )
        if self.positions != tuple(range(array.count)):
            array = array.select_bands(self.positions)
        return array.read(window)

    def select_bands(self, positions: tuple[int, ...]) -> StoreRaster:
        return replace(
            self,
            positions=tuple(self.positions[p] for p in positions),
            count=len(positions),
            band_names=tuple(self.band_names[p] for p in positions),
        )

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "store",
            "content": json.loads(self.content),
            "variable": self.variable,
            "time": self.time,
            "bands": list(self.positions),
            "nodata": repr(self.nodata),
            "grid": self.grid.to_json(),
        }


@functools.lru_cache(maxsize=64)
def _array(
    location: Location,
    stamp: str,
    variable: str,
    time: int | None,
    nodata: float | None,
    assume_crs: str | None,
) -> ArrayRaster:
    array = open_dataset(location, stamp)[variable]
    axis = time_axis(array)
    if axis is not None:
        array = array.isel({axis: time or 0})
    return open_array(array, name=location.text, nodata=nodata, assume_crs=assume_crs, token=stamp)


def store_stamp(location: Location) -> dict[str, Any]:
    """What tells one content of a store from another: sizes and times, or what a server says."""
    local = location.local
    if local is None:
        return {"remote": stamp_remote(location)}
    return {"files": stamp_folder(local) if local.is_dir() else stamp_files([str(local)])}


def open_store(
    location: Location,
    *,
    variable: str | None = None,
    time: Any = None,
    nodata: float | None = None,
    assume_crs: str | None = None,
) -> StoreRaster:
    """One variable at one time of a store.

    Raises
    ------
    SourceError
        It cannot be opened, or holds several rasters or times and none is chosen; lists them.
    OptionError
        There is no such variable or time.
    """
    content = store_stamp(location)
    stamp = sha256_json(content)[:16]
    array = choose_variable(open_dataset(location, stamp), variable, location.text)
    position = choose_time(array, time, location.text)
    facts = _array(location, stamp, str(array.name), position, nodata, assume_crs)
    return StoreRaster(
        location=location,
        stamp=stamp,
        variable=str(array.name),
        time=position,
        override=nodata,
        assume_crs=assume_crs,
        positions=tuple(range(facts.count)),
        content=json.dumps(content),
        name=location.text,
        grid=facts.grid,
        count=facts.count,
        dtype=facts.dtype,
        band_names=facts.band_names,
        nodata=facts.nodata,
        block_shape=facts.block_shape,
    )
