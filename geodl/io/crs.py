"""Coordinate reference systems as one canonical WKT text, and what follows from it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pyproj
from pyproj.exceptions import CRSError, ProjError

from geodl.base.errors import GridMismatchError, OptionError

Bounds = tuple[float, float, float, float]


def crs_text(value: Any, where: str = "crs") -> str:
    """Canonical WKT of anything that states a CRS.

    The text of a CRS that equals one of a known authority is that authority's own, so that the
    same CRS from a GeoTIFF, a GeoPackage and a Zarr store is the same text.

    Parameters
    ----------
    value
        EPSG number, ``"EPSG:32633"``, WKT, PROJ text, or a CRS object of pyproj or rasterio.
    where
        The argument or file, for the message.

    Raises
    ------
    OptionError
        PROJ does not understand it.
    """
    text = value.to_wkt() if hasattr(value, "to_wkt") else value
    return _canonical(text if isinstance(text, (str, int)) else str(text), where)


@functools.lru_cache(maxsize=256)
def _canonical(text: str | int, where: str) -> str:
    try:
        crs = pyproj.CRS.from_user_input(text)
        # EPSG first: CRS84, which GeoJSON and PROJ texts name, is EPSG:4326 but for the axis order.
        for authority in (crs.to_authority("EPSG", 20), crs.to_authority(min_confidence=70)):
            if authority is not None:
                known = pyproj.CRS.from_authority(*authority)
                if known.equals(crs, ignore_axis_order=True):
                    return str(known.to_wkt())
        return str(crs.to_wkt())
    except (CRSError, ProjError) as error:
        raise OptionError(
            f"{where}: {str(text)[:80]!r} is no CRS that PROJ knows ({error}); "
            "give an EPSG code such as 'EPSG:32633', or WKT."
        ) from error


@functools.lru_cache(maxsize=256)
def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two WKT texts mean the same CRS, axis order aside; None equals None only."""
    if one is None or other is None or one == other:
        return one == other
    return bool(pyproj.CRS(one).equals(pyproj.CRS(other), ignore_axis_order=True))


def crs_label(crs: str | None) -> str:
    """A short name for messages: ``EPSG:32633``, the CRS's own name, or ``pixel space``."""
    if crs is None:
        return "pixel space (no CRS)"
    parsed = pyproj.CRS(crs)
    authority = parsed.to_authority()
    return ":".join(authority) if authority else str(parsed.name)


@functools.lru_cache(maxsize=64)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """From one WKT to another, x before y; kept for the next call."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def transform_bounds(bounds: Bounds, source: str | None, target: str | None, what: str) -> Bounds:
    """Bounds in another CRS, densified along the edges.

    In a geographic CRS ``xmin`` above ``xmax``, given or returned, means across the antimeridian.

    Raises
    ------
    GridMismatchError
        One side has no CRS, or the area cannot be expressed in ``target``.
    """
    if same_crs(source, target):
        return bounds
    if source is None or target is None:
        raise GridMismatchError(
            f"{what} lies in {crs_label(source)} and the target in {crs_label(target)}; "
            "state the missing CRS with assume_crs."
        )
    try:
        moved = transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    except ProjError as error:
        moved = (np.inf,) * 4
        reason = f" ({error})"
    else:
        reason = ""
    if not np.all(np.isfinite(moved)):
        raise GridMismatchError(
            f"{what} in {crs_label(source)} has no place in {crs_label(target)}{reason}; "
            "choose a CRS that covers it."
        )
    return (float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3]))


@functools.lru_cache(maxsize=256)
def full_turn(crs: str | None) -> float | None:
    """What once around the Earth measures along x: 360 in degrees; None unless geographic."""
    known = None if crs is None else pyproj.CRS(crs)
    if known is None or not known.is_geographic or not known.axis_info:
        return None
    return 2 * math.pi / float(known.axis_info[0].unit_conversion_factor)


# At the equator: good enough to tell whether objects look larger than a model knows them.
_METRES_PER_DEGREE = 111_320.0


@functools.lru_cache(maxsize=256)
def metres_per_unit(crs: str) -> float:
    """Metres on the ground of one unit of a CRS given as WKT; degrees are taken at the equator."""
    known = pyproj.CRS.from_user_input(crs)
    if known.is_geographic:
        return _METRES_PER_DEGREE
    return float(known.axis_info[0].unit_conversion_factor) if known.axis_info else 1.0


@functools.lru_cache(maxsize=256)
def vertical_unit(crs: str | None) -> str | None:
    """Name of the unit of heights, ``US survey foot`` for example; None where it is not stated."""
    axes = [] if crs is None else pyproj.CRS(crs).axis_info
    return next((axis.unit_name for axis in axes if axis.direction in ("up", "down")), None)


def reference_metres(reference: Any) -> float:
    """Metres per unit of an Esri ``spatialReference`` object; 1 where it states nothing usable."""
    if not isinstance(reference, dict):
        return 1.0
    stated = reference.get("latestWkid") or reference.get("wkid") or reference.get("wkt")
    if stated is None:
        return 1.0
    for authority in ("EPSG", "ESRI"):
        try:
            wkid = isinstance(stated, int)
            crs = pyproj.CRS.from_authority(authority, stated) if wkid else pyproj.CRS(stated)
        except (CRSError, ProjError):
            continue
        return metres_per_unit(crs.to_wkt())
    return 1.0
