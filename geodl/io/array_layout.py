"""A raster made from an xarray object, with the axes of that object: what composes must line up."""

from __future__ import annotations

from typing import Any

import rioxarray  # noqa: F401  (registers the .rio accessor that writes the transform)
import xarray as xr
from affine import Affine

from geodl.base.errors import SourceError
from geodl.core.grid import GeoGrid
from geodl.io.array_grid import spatial_axes
from geodl.io.datasets import choose_variable
from geodl.io.raster_array import open_array


def with_axes_of(raster: xr.DataArray, given: Any, grid: GeoGrid) -> xr.DataArray:
    """The raster with the axes of the array that it was made from.

    xarray puts arrays together by the names of their axes and by equal coordinates, and ``where``
    wants them in one order. Coordinates computed anew differ in the last digit, and those pixels
    would be left out without a word.

    Parameters
    ----------
    raster
        Dims (band, y, x), rows from north to south, on ``grid``.
    given
        A DataArray, or a Dataset of one raster; anything else, or an array on another grid, leaves
        the raster as it is.
    grid
        Of ``raster``.

    Returns
    -------
    The same pixels, dims (band, rows, columns) as ``given`` names them, with its coordinates
    along them and in its order of rows; also those that need no other axis (the time of a slice).
    """
    if isinstance(given, xr.Dataset):
        given = choose_variable(given, None, "the Dataset")
    if not isinstance(given, xr.DataArray):
        return raster
    y, x = spatial_axes(given)
    single = given.isel({dim: 0 for dim in given.dims if dim not in (y, x)})
    try:
        stated = open_array(single, token="", assume_crs=grid.crs)
    except SourceError:
        return raster
    if stated.grid != grid:
        return raster
    if stated.flipped_y:
        a, b, c, d, e, f = grid.transform
        upwards = Affine(a, b, c, d, -e, f + e * grid.height)
        raster = raster.isel(y=slice(None, None, -1)).rio.write_transform(upwards)
    raster = raster.rename({old: new for old, new in (("y", y), ("x", x)) if old != new})
    return raster.assign_coords(_shared_coordinates(raster, single, {y, x}))


def _shared_coordinates(
    raster: xr.DataArray, given: xr.DataArray, axes: set[str]
) -> dict[str, xr.DataArray]:
    """Coordinates of ``given`` along the axes, and those over them that the raster lacks."""
    taken = {}
    for name, coordinate in given.coords.items():
        if name in axes:
            attributes = raster.coords[name].attrs if name in raster.coords else {}
            taken[str(name)] = coordinate.assign_attrs({**attributes, **coordinate.attrs})
        elif (
            name not in raster.coords
            and name != given.rio.grid_mapping
            and set(map(str, coordinate.dims)) <= axes
        ):
            taken[str(name)] = coordinate
    return {name: coordinate.reset_coords(drop=True) for name, coordinate in taken.items()}
