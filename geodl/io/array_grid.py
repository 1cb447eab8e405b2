"""What an xarray object says of itself: axes, CRS, transform, nodata and names of bands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor that reads CRS and nodata)
import xarray as xr
from rioxarray.exceptions import RioXarrayError

from geodl.base.errors import PlanError, SourceError
from geodl.core.grid import GeoGrid
from geodl.io.crs import crs_text

X_NAMES = ("x", "lon", "longitude", "easting", "grid_longitude", "rlon", "projection_x_coordinate")
Y_NAMES = ("y", "lat", "latitude", "northing", "grid_latitude", "rlat", "projection_y_coordinate")
BAND_NAMES = ("band", "bands", "channel", "channels", "wavelength", "spectral")
TIME_NAMES = ("time", "t", "date", "datetime", "valid_time")
# Coordinates may be this far from even spacing, in pixels: float32 degrees are not exact.
_EVEN_TOLERANCE_PX = 0.05
# A stored transform this close to the coordinates is the exact one.
_SAME_TRANSFORM_PX = 1e-3


def find_axis(array: xr.DataArray, names: tuple[str, ...], axis: str | None = None) -> str | None:
    """The dimension with one of the names, or whose coordinate states the CF axis."""
    for dim in map(str, array.dims):
        attributes = array.coords[dim].attrs if dim in array.coords else {}
        stated = (attributes.get("axis"), attributes.get("standard_name"))
        if dim.lower() in names or (axis is not None and stated[0] == axis) or stated[1] in names:
            return dim
    return None


def spatial_axes(array: xr.DataArray) -> tuple[str, str]:
    """Names of the row and column dimensions; the last two where nothing says otherwise.

    Raises
    ------
    SourceError
        Fewer than two dimensions.
    """
    if array.ndim < 2:
        raise SourceError(
            f"The array {array.name!r} has dimensions {array.dims}; a raster needs y and x."
        )
    y = find_axis(array, Y_NAMES, "Y")
    x = find_axis(array, X_NAMES, "X")
    if y is None or x is None or x == y:
        y, x = str(array.dims[-2]), str(array.dims[-1])
    return y, x


def time_axis(array: xr.DataArray) -> str | None:
    """The dimension of time, if the array has one."""
    dim = find_axis(array, TIME_NAMES, "T")
    if dim is not None:
        return dim
    for name in map(str, array.dims):
        if name in array.coords and np.issubdtype(array.coords[name].dtype, np.datetime64):
            return name
    return None


def stated_nodata(array: xr.DataArray) -> float | None:
    """Nodata as attributes or encoding state it; None where nothing does."""
    encoded = array.rio.encoded_nodata
    if encoded is not None and array.dtype.kind == "f":
        return math.nan
    for name in ("_FillValue", "missing_value", "fill_value", "nodata"):
        value = array.attrs.get(name, array.encoding.get(name) if name == "_FillValue" else None)
        if value is not None and np.size(value) == 1:
            try:
                return float(np.asarray(value).item())
            except (TypeError, ValueError):
                continue
    return None


def band_names(array: xr.DataArray) -> tuple[str, ...]:
    count = array.shape[0]
    band = str(array.dims[0])
    named = array.coords.get("long_name")
    candidates: list[Any] = [
        named.values if named is not None and named.dims == (band,) else None,
        array.coords[band].attrs.get("long_name") if band in array.coords else None,
        array.attrs.get("long_name"),
        array.coords[band].values if band in array.coords else None,
    ]
    for names in candidates:
        texts = [names] if isinstance(names, str) else names
        fits = texts is not None and np.ndim(texts) == 1 and len(texts) == count
        if fits and all(isinstance(text, str) for text in texts):
            return tuple(map(str, texts))
    return tuple(f"Band_{n}" for n in range(1, count + 1))


def array_grid(
    array: xr.DataArray, y: str, x: str, label: str, assume_crs: str | None
) -> tuple[GeoGrid, bool]:
    """The grid with y downwards, and whether the rows have to be turned over for it."""
    crs = _stated_crs(array, y, x, label) or assume_crs
    height, width = array.sizes[y], array.sizes[x]
    if height == 0 or width == 0:
        raise SourceError(f"{label} is empty: {dict(array.sizes)}.")
    if crs is None:
        return GeoGrid(width=width, height=height, transform=(1, 0, 0, 0, 1, 0)), False
    x_axis, y_axis = _even_axis(array, x, label), _even_axis(array, y, label)
    transform = _transform(x_axis, y_axis, _stored_transform(array), max(height, width))
    if transform is None:
        raise SourceError(
            f"{label} has a CRS but neither {y} and {x} coordinates nor a stored transform; "
            "add them with .rio.write_transform()."
        )
    a, b, c, d, e, f = transform
    flipped = b == d == 0 and e > 0 and y_axis is not None
    if flipped:
        e, f = -e, f + e * height
    try:
        grid = GeoGrid(width=width, height=height, transform=(a, b, c, d, e, f), crs=crs)
    except PlanError as error:
        raise SourceError(f"{label} has no usable grid: {error}.") from error
    return grid, flipped


def _stated_crs(array: xr.DataArray, y: str, x: str, label: str) -> str | None:
    try:
        crs = array.rio.crs
    except (RioXarrayError, ValueError):
        crs = None
    if crs is not None:
        return crs_text(crs, label)
    units = [str(array.coords[d].attrs.get("units", "")) for d in (y, x) if d in array.coords]
    names = {y.lower(), x.lower()}
    degrees = (
        len(units) == 2 and units[0].startswith("degrees_n") and units[1].startswith("degrees_e")
    )
    if degrees or names in ({"latitude", "longitude"}, {"lat", "lon"}):
        return crs_text("EPSG:4326")
    return None


def _stored_transform(array: xr.DataArray) -> tuple[float, ...] | None:
    mapping = array.rio.grid_mapping
    text = array.coords[mapping].attrs.get("GeoTransform") if mapping in array.coords else None
    if text is None:
        return None
    try:
        c, a, b, f, d, e = (float(part) for part in str(text).split())
    except ValueError:
        return None
    return a, b, c, d, e, f


def _even_axis(array: xr.DataArray, dim: str, label: str) -> tuple[float, float] | None:
    """(first centre, step) of an evenly spaced coordinate; None without one or with one entry.

    Raises
    ------
    SourceError
        The spacing is not even.
    """
    if dim not in array.coords or array.coords[dim].ndim != 1 or array.sizes[dim] < 2:
        return None
    values = np.asarray(array.coords[dim].values, dtype=np.float64)
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = values[0] + step * np.arange(len(values))
    if step == 0 or not np.all(np.abs(values - even) <= _EVEN_TOLERANCE_PX * abs(step)):
        raise SourceError(
            f"{label}: the coordinate {dim!r} is not evenly spaced; resample the data to a regular "
            "grid first."
        )
    return float(values[0]), float(step)


def _transform(
    x_axis: tuple[float, float] | None,
    y_axis: tuple[float, float] | None,
    stored: tuple[float, ...] | None,
    size_px: int,
) -> tuple[float, ...] | None:
    if x_axis is None or y_axis is None:
        return stored
    (x0, a), (y0, e) = x_axis, y_axis
    found = (a, 0.0, x0 - a / 2, 0.0, e, y0 - e / 2)
    if stored is None or stored[1] or stored[3]:
        return found
    sa, _, sc, _, se, sf = stored
    # Coordinates are centres in floating point; the stored transform is exact, unless the array
    # was cut since: then it is off by whole pixels.
    cols, rows = (found[2] - sc) / sa, (found[5] - sf) / se
    whole = (
        abs(cols - round(cols)) < _SAME_TRANSFORM_PX
        and abs(rows - round(rows)) < _SAME_TRANSFORM_PX
    )
    drift = max(abs(a / sa - 1), abs(e / se - 1)) * size_px
    if whole and drift < _SAME_TRANSFORM_PX:
        return sa, 0.0, sc + sa * round(cols), 0.0, se, sf + se * round(rows)
    return found
