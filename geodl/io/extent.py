"""Extents and references of ``context`` dictionaries, and the pixels they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

from geodl.base.errors import OptionError, PlanError
from geodl.base.options import as_float, check_known
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import Bounds, crs_text, transform_bounds

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_extent(value: Any) -> tuple[Bounds | None, str | None]:
    """``{"xmin", "ymin", "xmax", "ymax", "spatialReference": {"wkid"}}`` as bounds and CRS.

    Raises
    ------
    UnknownOptionError, OptionError
        Not such a mapping, a side that is missing or no number, an empty extent.
    """
    if value is None:
        return None, None
    if not isinstance(value, Mapping):
        raise OptionError(
            'extent is {"xmin", "ymin", "xmax", "ymax", "spatialReference": {"wkid"}}, '
            f"not {value!r}"
        )
    check_known(value, (*_SIDES, "spatialReference"), "extent")
    missing = [side for side in _SIDES if side not in value]
    if missing:
        raise OptionError(f"extent lacks {', '.join(missing)}")
    xmin, ymin, xmax, ymax = (as_float(value[side], f"extent {side}") for side in _SIDES)
    if xmin >= xmax or ymin >= ymax:
        raise OptionError(f"extent is empty: x {xmin:g}..{xmax:g}, y {ymin:g}..{ymax:g}")
    reference = value.get("spatialReference")
    return (xmin, ymin, xmax, ymax), read_crs(reference, "extent spatialReference")


def read_crs(value: Any, name: str) -> str | None:
    """WKT of a CRS given as ``{"wkid": n}``, ``{"wkt": ...}`` or anything that pyproj reads.

    Raises
    ------
    OptionError
        No CRS that PROJ knows, neither of EPSG nor of Esri.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        check_known(value, ("wkid", "latestWkid", "wkt"), name)
        value = value.get("latestWkid") or value.get("wkid") or value.get("wkt")
    try:
        return crs_text(value, name)
    except OptionError:
        pass
    try:
        return crs_text(CRS.from_authority("ESRI", value), name)
    except (CRSError, TypeError) as error:
        raise OptionError(
            f'{name}={value!r} is no CRS; give {{"wkid": 32633}}, an EPSG number or WKT'
        ) from error


def extent_window(bounds: Bounds, crs: str | None, grid: GeoGrid, name: str) -> Window:
    """Whole pixels of a raster that cover an extent, as far as the raster reaches.

    Parameters
    ----------
    bounds, crs
        As :func:`read_extent` gives them; without a CRS they are in the raster's.
    name
        Of the raster.

    Raises
    ------
    PlanError
        They do not overlap.
    GridMismatchError
        The extent states a CRS and the raster has none.
    """
    if crs is not None:
        bounds = transform_bounds(bounds, crs, grid.crs, "the extent")
    window = grid.window_for_bounds(*bounds)
    if window.empty:
        raise PlanError(
            f"The extent {tuple(round(b, 6) for b in bounds)} does not overlap {name}, which "
            f"covers {tuple(round(b, 6) for b in grid.bounds)}."
        )
    return window
