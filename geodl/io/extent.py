"""Extents and references of ``context`` dictionaries, and the pixels they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

from geodl.base.errors import OptionError, PlanError
from geodl.base.options import as_float, check_known
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import Bounds, crs_label, crs_text, full_turn, transform_bounds

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_extent(value: Any) -> tuple[Bounds | None, str | None]:
    """``{"xmin", "ymin", "xmax", "ymax", "spatialReference": {"wkid"}}`` as bounds and CRS.

    Degrees may have ``xmin`` above ``xmax``: across the antimeridian, as in GeoJSON.

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
    crs = read_crs(value.get("spatialReference"), "extent spatialReference")
    # Without a CRS the raster's own counts, which is not known yet.
    around = xmin > xmax and (crs is None or full_turn(crs) is not None)
    if ymin >= ymax or (xmin >= xmax and not around):
        raise _empty((xmin, ymin, xmax, ymax))
    return (xmin, ymin, xmax, ymax), crs


def _empty(bounds: Bounds) -> OptionError:
    xmin, ymin, xmax, ymax = bounds
    return OptionError(f"extent is empty: x {xmin:g}..{xmax:g}, y {ymin:g}..{ymax:g}")


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


def split_extent(bounds: Bounds, crs: str | None) -> list[Bounds]:
    """Bounds as boxes with ``xmin`` below ``xmax``: two where they cross the antimeridian."""
    xmin, ymin, xmax, ymax = bounds
    if xmin <= xmax:
        return [bounds]
    half = (full_turn(crs) or 360.0) / 2
    return [(xmin, ymin, half, ymax), (-half, ymin, xmax, ymax)]


def extent_window(bounds: Bounds, crs: str | None, grid: GeoGrid, name: str) -> Window:
    """Whole pixels of a raster that cover an extent, as far as the raster reaches.

    Longitudes mean the same place a full turn further: an extent of -180..-179 meets a raster of
    179..181, and one of -10..10 both ends of a raster of 0..360.

    Parameters
    ----------
    bounds, crs
        As :func:`read_extent` gives them; without a CRS they are in the raster's.
    name
        Of the raster.

    Raises
    ------
    OptionError
        ``xmin`` is above ``xmax``, and not in degrees.
    PlanError
        They do not overlap, or at the two ends of the raster only.
    GridMismatchError
        The extent states a CRS and the raster has none.
    """
    if crs is not None:
        bounds = transform_bounds(bounds, crs, grid.crs, "the extent")
    found = [w for w in _windows(bounds, grid) if not w.empty]
    if not found:
        raise PlanError(
            f"The extent {tuple(round(b, 6) for b in bounds)} does not overlap {name}, which "
            f"covers {tuple(round(b, 6) for b in grid.bounds)} in {crs_label(grid.crs)}. An extent "
            "without a spatialReference is taken in the CRS of the run."
        )
    row, col = min(w.row for w in found), min(w.col for w in found)
    bottom, right = max(w.row_stop for w in found), max(w.col_stop for w in found)
    whole = Window(row=row, col=col, height=bottom - row, width=right - col)
    if whole.pixels > sum(window.pixels for window in found):
        raise PlanError(
            f"The extent {tuple(round(b, 6) for b in bounds)} meets {name} at both of its ends "
            f"({_sides_text(grid)}) and not between them. Run each part by itself, or open the "
            "raster with the ends put together, such as by xarray's roll() with new longitudes."
        )
    return whole


def _windows(bounds: Bounds, grid: GeoGrid) -> list[Window]:
    """Parts of the raster that the extent means; in degrees also a full turn further."""
    xmin, ymin, xmax, ymax = bounds
    turn = full_turn(grid.crs)
    if turn is None:
        if xmin > xmax:
            raise _empty(bounds)
        return [grid.window_for_bounds(*bounds)]
    if xmin > xmax:
        xmax += turn
    return [
        grid.window_for_bounds(xmin + shift, ymin, xmax + shift, ymax)
        for shift in (-turn, 0.0, turn)
    ]


def _sides_text(grid: GeoGrid) -> str:
    west, _, east, _ = grid.bounds
    return f"x {west:g} and {east:g}"
