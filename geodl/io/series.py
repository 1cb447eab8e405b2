"""Series of rasters: whether a source has a time axis with more than one entry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geodl.base.files import sha256_json
from geodl.io.array_grid import time_axis
from geodl.io.datasets import choose_variable, is_netcdf, is_zarr, open_dataset
from geodl.io.locations import locate
from geodl.io.raster_store import store_stamp


def series_times(
    source: Any, variable: str | Sequence[str] | None
) -> tuple[str, np.ndarray] | None:
    """Name and values of the time axis of a series; None for everything else.

    Parameters
    ----------
    source
        As ``open_raster`` takes it.
    variable
        Name of the variable in a store or Dataset; the first of several.

    Raises
    ------
    SourceError, OptionError
        A store that cannot be opened, or whose variable is ambiguous or missing.
    """
    first = (
        variable if variable is None or isinstance(variable, str) else next(iter(variable), None)
    )
    array = _array(source, first)
    axis = None if array is None else time_axis(array)
    if array is None or axis is None or array.sizes[axis] < 2:
        return None
    if axis in array.coords:
        return axis, array.coords[axis].values
    return axis, np.arange(array.sizes[axis])


def _array(source: Any, variable: str | None) -> xr.DataArray | None:
    if isinstance(source, xr.DataArray):
        return source
    if isinstance(source, xr.Dataset):
        return choose_variable(source, variable, "the Dataset")
    if not isinstance(source, (str, os.PathLike)):
        return None
    location = locate(source)
    if not (is_zarr(location) or is_netcdf(location)):
        return None
    stamp = sha256_json(store_stamp(location))[:16]
    return choose_variable(open_dataset(location, stamp), variable, location.text)
