"""Which pixels hold data: nodata values and NaN, band by band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from geodl.base.errors import PlanError
from geodl.core.grid import GeoGrid, Window


def nodata_for(dtype: np.dtype[Any], nodata: float | None) -> float | None:
    """The nodata value as pixels of ``dtype`` hold it; None where they cannot.

    A float32 raster stores -3.4e38 as the nearest float32, which the double of the header is not.
    """
    if nodata is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    if dtype.kind in "iu":
        whole = math.isfinite(nodata) and float(nodata).is_integer()
        limits = np.iinfo(dtype)
        return float(nodata) if whole and limits.min <= nodata <= limits.max else None
    return float(nodata)


def band_validity(plane: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """bool (H, W), True where one band has data; None where nothing can be missing.

    Parameters
    ----------
    plane
        (H, W), any dtype.
    nodata
        As :func:`nodata_for` gives it. NaN is never data.
    """
    floating = plane.dtype.kind in "fc"
    if nodata is None or math.isnan(nodata):
        return ~np.isnan(plane) if floating else None
    valid: np.ndarray = plane != plane.dtype.type(nodata)
    if floating:
        valid &= ~np.isnan(plane)
    return valid


def any_band_valid(data: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray:
    """bool (H, W), True where at least one band has data.

    Parameters
    ----------
    data
        (C, H, W).
    nodata
        One value per band, as :func:`nodata_for` gives them.
    """
    mask: np.ndarray | None = None
    for plane, value in zip(data, nodata, strict=True):
        valid = band_validity(plane, value)
        if valid is None:
            return np.ones(data.shape[1:], dtype=bool)
        mask = valid if mask is None else np.logical_or(mask, valid, out=mask)
        if mask.all():
            break
    return np.ones(data.shape[1:], dtype=bool) if mask is None else mask


def check_inside(name: str, grid: GeoGrid, window: Window) -> None:
    """Refuse a window that leaves the raster.

    Raises
    ------
    PlanError
        Names the raster and both sizes.
    """
    if window.empty or not grid.window.contains(window):
        raise PlanError(
            f"{name}: the window of rows {window.row}..{window.row_stop} and columns {window.col}.."
            f"{window.col_stop} is not inside the raster of {grid.height} x {grid.width} pixels."
        )
