"""Zarr stores and NetCDF files: opened through xarray, one raster variable chosen, values raw."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import xarray as xr
import zarr

from geodl.base.errors import OptionError, SourceError
from geodl.base.options import nearest
from geodl.io.array_grid import spatial_axes, time_axis
from geodl.io.locations import Location

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".he5")
# Opened stores that a process keeps; the objects hold file handles but no pixels.
_KEPT = 16
# Groups of satellite products lie this deep.
_GROUPS_DEEP = 4

_opened: OrderedDict[tuple[str, str, int], xr.Dataset] = OrderedDict()
_lock = threading.Lock()


def is_zarr(location: Location) -> bool:
    """Whether a location is a Zarr store, v2 or v3."""
    local = location.local
    if local is not None:
        return local.is_dir() and any((local / mark).exists() for mark in _ZARR_MARKS)
    return location.kind != "gdal" and location.suffix == ".zarr"


def is_netcdf(location: Location) -> bool:
    """Whether a location is a NetCDF or HDF5 file that xarray opens."""
    if location.kind == "gdal":
        return False
    return location.suffix in _NETCDF_SUFFIXES


def open_dataset(location: Location, stamp: str) -> xr.Dataset:
    """A store's variables with raw values and decoded coordinates; kept open in this process.

    Parameters
    ----------
    location
        A Zarr store or NetCDF file.
    stamp
        Changes when the content does.

    Raises
    ------
    SourceError
        It cannot be opened; names the location.
    """
    key = (location.text, stamp, os.getpid())
    with _lock:
        if key in _opened:
            _opened.move_to_end(key)
            return _opened[key]
        dataset = _open(location)
        _opened[key] = dataset
        while len(_opened) > _KEPT:
            _opened.popitem(last=False)
        return dataset


def _open(location: Location) -> xr.Dataset:
    # Values stay as stored: scale, offset and fill value are described, not applied.
    options: dict[str, Any] = {"mask_and_scale": False, "decode_coords": "all", "chunks": None}
    try:
        if is_zarr(location):
            dataset = _open_zarr(location, options)
        elif location.kind == "local":
            dataset = xr.open_dataset(location.text, **options)
        else:
            file = fsspec.open(location.text).open()
            dataset = xr.open_dataset(file, engine="h5netcdf", **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        kind = "Zarr store" if is_zarr(location) else "NetCDF file"
        # xarray's advice about its engines goes over several lines and is none for this case.
        reason = str(error).split(" Consider ")[0]
        raise SourceError(
            f"{location.text} cannot be opened as a {kind} of rasters: {reason}{_advice(location)}"
        ) from error
    if not dataset.data_vars and is_zarr(location):
        _check_groups(location)
    return _scaled_coordinates(dataset)


def _advice(location: Location) -> str:
    """What else to try with a Zarr store that xarray cannot take; empty for other files."""
    if not is_zarr(location):
        return ""
    return (
        " Arrays that were not written by xarray may lack the names of their axes: pass "
        'xarray.DataArray(dask.array.from_zarr(path), dims=("band", "y", "x")).'
    )


def _check_groups(location: Location) -> None:
    """Refuse a Zarr store whose arrays all lie in groups within it.

    Raises
    ------
    SourceError
        Names the groups.
    """
    root = zarr.open_group(location.text, mode="r")
    nodes = root.members(max_depth=_GROUPS_DEEP)
    arrays = [name for name, node in nodes if isinstance(node, zarr.Array) and "/" in name]
    holders = sorted({name.rpartition("/")[0] for name in arrays})
    if holders:
        raise SourceError(
            f"{location.text} holds its arrays in groups; give one of them: "
            + ", ".join(f"{location.text}/{name}" for name in holders[:10])
        )


def _open_zarr(location: Location, options: dict[str, Any]) -> xr.Dataset:
    system, path = fsspec.core.url_to_fs(location.text)
    # Consolidated metadata is outside the v3 specification, and its absence warns.
    consolidated = bool(
        not system.exists(f"{path}/zarr.json") and system.exists(f"{path}/.zmetadata")
    )
    return xr.open_zarr(location.text, consolidated=consolidated, **options)


def _scaled_coordinates(dataset: xr.Dataset) -> xr.Dataset:
    """Coordinates that are packed as integers, unpacked: they are places, not pixels."""
    for name, coordinate in dataset.coords.items():
        attributes = coordinate.attrs
        if coordinate.ndim == 1 and ("scale_factor" in attributes or "add_offset" in attributes):
            values = coordinate.values * float(attributes.get("scale_factor", 1.0))
            values = values + float(attributes.get("add_offset", 0.0))
            dataset = dataset.assign_coords({name: (coordinate.dims, values, attributes)})
    return dataset


def raster_variables(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that look like rasters: numbers over at least two axes.

    Where some variables have y and x axes by name, others (bounds of cells) are no candidates.
    """
    found = []
    for name, array in dataset.data_vars.items():
        if array.ndim < 2 or array.dtype.kind not in "biufc":
            continue
        if any(str(d) in ("bnds", "bounds", "nv", "vertices") for d in array.dims):
            continue
        y, x = spatial_axes(array)
        if array.sizes[y] > 1 or array.sizes[x] > 1:
            found.append(str(name))
    return found


def choose_variable(dataset: xr.Dataset, variable: str | None, label: str) -> xr.DataArray:
    """The raster of a dataset.

    Raises
    ------
    SourceError
        There is none, or several and none is named; lists them.
    OptionError
        There is no variable of that name; lists those that are.
    """
    names = raster_variables(dataset)
    if variable is not None:
        if variable in dataset.variables:
            return dataset[variable]
        raise OptionError(
            f"{label} has no variable {variable!r}.{nearest(variable, names)} "
            f"Its rasters: {', '.join(names) or 'none'}."
        )
    if len(names) == 1:
        return dataset[names[0]]
    if not names:
        raise SourceError(f"{label} holds no raster: none of its variables has y and x axes.")
    raise SourceError(
        f"{label} holds several rasters; choose with geodl.open_raster(..., variable=...): "
        f"{', '.join(sorted(names))}."
    )


def choose_time(array: xr.DataArray, time: Any, label: str) -> int | None:
    """Position of one time; None without a time axis. A series of one needs no choice.

    Parameters
    ----------
    array
        With or without a time axis.
    time
        A position, or a date as text, ``datetime`` or ``datetime64``; None takes the only entry.
    label
        For messages.

    Raises
    ------
    SourceError
        Several times and none chosen; says which there are.
    OptionError
        There is no such time, or no time axis.
    """
    axis = time_axis(array)
    if axis is None:
        if time is not None:
            raise OptionError(f"{label} has no time axis; leave time= out.")
        return None
    count = array.sizes[axis]
    if time is None:
        if count == 1:
            return 0
        raise SourceError(
            f"{label} is a series of {count} times ({time_range(array, axis)}); choose one with "
            "geodl.open_raster(..., time=...), a date or a position."
        )
    return time_position(array, axis, time, label)


def time_range(array: xr.DataArray, axis: str) -> str:
    """The first and last time, for messages."""
    if axis not in array.coords:
        return f"positions 0..{array.sizes[axis] - 1}"
    values = array.coords[axis].values
    return f"{_time_text(values[0])} .. {_time_text(values[-1])}"


def _time_text(value: Any) -> str:
    return (
        str(np.datetime_as_string(value, unit="s"))
        if isinstance(value, np.datetime64)
        else str(value)
    )


def time_position(array: xr.DataArray, axis: str, time: Any, label: str) -> int:
    """Position of a time on the axis: an exact match, or the only entry of that day, month or year.

    Raises
    ------
    OptionError
        None or several match; says what there is.
    """
    count = array.sizes[axis]
    if isinstance(time, (int, np.integer)) and not isinstance(time, bool):
        if -count <= time < count:
            return int(time) % count
        raise OptionError(f"{label} has {count} times; there is none at position {time}.")
    if axis not in array.coords:
        raise OptionError(
            f"{label} gives its times no dates; choose one by position, 0..{count - 1}."
        )
    index = array.indexes[axis]
    wanted = time
    if isinstance(index, pd.DatetimeIndex) and not isinstance(time, str):
        wanted = pd.Timestamp(time)
    try:
        found = np.atleast_1d(np.arange(count)[index.get_loc(wanted)])
    except (KeyError, ValueError, TypeError):
        found = np.array([], dtype=int)
    if len(found) == 1:
        return int(found[0])
    problem = "no time" if len(found) == 0 else f"{len(found)} times"
    raise OptionError(
        f"{label} has {problem} for {time!r} ({time_range(array, axis)}, {count} in all); give one "
        "of its times or a position."
    )
