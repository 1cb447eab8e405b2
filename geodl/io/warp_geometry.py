"""Which source pixels a block of another grid needs, and how strongly it reduces them."""

from __future__ import annotations

import math

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geodl.base.errors import GridMismatchError
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import Bounds, crs_label, full_turn, same_crs, transform_bounds

# Points per side at which a block is looked up in the source.
_STEPS = 32
# Reach of each kernel in source pixels (target pixels where the target is coarser).
_REACH_PX = {"nearest": 1, "bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}
_NOTHING = Window(row=0, col=0, height=0, width=0)


def source_positions(
    source: GeoGrid, target: GeoGrid, cols: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where points of ``target`` lie in ``source``.

    Parameters
    ----------
    source, target
        Two grids.
    cols, rows
        float64 (N,), pixel edges of ``target``.

    Returns
    -------
    float64 (N,) columns and rows of ``source``; NaN in both where the projection fails.
    """
    xs, ys = _apply(target.affine, cols, rows)
    if target.crs is not None and source.crs is not None and not same_crs(source.crs, target.crs):
        try:
            moved = rasterio.warp.transform(target.crs, source.crs, xs, ys)
        except CPLE_BaseError:
            lost_all = np.full(len(cols), np.nan)
            return lost_all, lost_all
        xs, ys = np.asarray(moved[0]), np.asarray(moved[1])
    found_cols, found_rows = _apply(~source.affine, xs, ys)
    lost = ~(np.isfinite(found_cols) & np.isfinite(found_rows))
    return np.where(lost, np.nan, found_cols), np.where(lost, np.nan, found_rows)


def _apply(affine: Affine, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An affine map of arrays; the operator of ``Affine`` is typed for single numbers."""
    a, b, c, d, e, f = affine[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def scale_xy(source: GeoGrid, target: GeoGrid) -> tuple[float, float]:
    """Target pixels per source pixel along the target's columns and rows; below 1 reduces.

    Taken in the middle of the target. GDAL would measure it anew in each block, so that kernels
    would change from block to block.
    """
    middle = np.array([target.width / 2, target.height / 2])
    cols = middle[0] + np.array([-0.5, 0.5, 0.0, 0.0])
    rows = middle[1] + np.array([0.0, 0.0, -0.5, 0.5])
    found_cols, found_rows = source_positions(source, target, cols, rows)
    if np.isnan(found_cols).any():
        return 1.0, 1.0
    steps = np.hypot(np.diff(found_cols)[::2], np.diff(found_rows)[::2])
    return 1.0 / max(float(steps[0]), 1e-9), 1.0 / max(float(steps[1]), 1e-9)


def source_window(
    source: GeoGrid, target: GeoGrid, resampling: str, scale: tuple[float, float]
) -> Window:
    """The part of ``source`` that the kernel can reach from anywhere in ``target``.

    Returns
    -------
    A window inside ``source``; empty where the two do not meet.
    """
    cols, rows = np.meshgrid(
        np.linspace(0, target.width, _STEPS + 1), np.linspace(0, target.height, _STEPS + 1)
    )
    found_cols, found_rows = source_positions(source, target, cols.ravel(), rows.ravel())
    if np.isnan(found_cols).all():
        return _NOTHING
    span = float(max(np.nanmax(v) - np.nanmin(v) for v in (found_cols, found_rows)))
    # Between two points a curved edge bulges by less than an eighth of the step.
    reach = _REACH_PX.get(resampling, 1) * max(1.0, *(1 / s for s in scale)) + 2 + span / _STEPS / 8
    if np.isnan(found_cols).any():
        # The block crosses the limit of the projection; up to a whole step may be missing.
        reach += span / _STEPS
    row, col = _floor(np.nanmin(found_rows) - reach), _floor(np.nanmin(found_cols) - reach)
    row_stop, col_stop = _ceil(np.nanmax(found_rows) + reach), _ceil(np.nanmax(found_cols) + reach)
    reached = Window(row=row, col=col, height=row_stop - row, width=col_stop - col)
    return reached.intersect(source.window)


def _floor(value: float) -> int:
    return math.floor(max(-1e15, value))


def _ceil(value: float) -> int:
    return math.ceil(min(1e15, value))


def default_grid(
    grid: GeoGrid, crs: str, resolution: tuple[float, float] | None, name: str
) -> GeoGrid:
    """GDAL's grid for a raster in another CRS: same diagonal in pixels, or the given pixel size.

    A raster across the antimeridian gets longitudes beyond half a turn, in place of a grid around
    the Earth.

    Raises
    ------
    GridMismatchError
        The raster has no place in ``crs``.
    """
    left, bottom, right, top = grid.bounds
    turn = full_turn(crs)
    if turn is not None and grid.crs is not None:
        there = transform_bounds(grid.bounds, grid.crs, crs, name)
        if there[0] > there[2]:
            return _across(grid, crs, resolution, (there[0], there[1], there[2] + turn, there[3]))
    try:
        transform, width, height = rasterio.warp.calculate_default_transform(
            grid.crs,
            crs,
            grid.width,
            grid.height,
            left=left,
            bottom=bottom,
            right=right,
            top=top,
            resolution=resolution,
        )
    except (RasterioError, CPLE_BaseError) as error:
        raise GridMismatchError(
            f"{name} in {crs_label(grid.crs)} has no place in {crs_label(crs)} ({error}); choose a "
            "CRS that covers it."
        ) from error
    a, b, c, d, e, f = transform[:6]
    return GeoGrid(width=int(width), height=int(height), transform=(a, b, c, d, e, f), crs=crs)


def _across(
    grid: GeoGrid, crs: str, resolution: tuple[float, float] | None, bounds: Bounds
) -> GeoGrid:
    """A grid over bounds in ``crs``; by default with as many pixels along the diagonal."""
    west, south, east, north = bounds
    if resolution is None:
        cell = math.hypot(east - west, north - south) / math.hypot(grid.width, grid.height)
        resolution = cell, cell
    x, y = resolution
    return GeoGrid(
        width=max(1, math.ceil((east - west) / x - 1e-3)),
        height=max(1, math.ceil((north - south) / y - 1e-3)),
        transform=(x, 0, west, 0, -y, north),
        crs=crs,
    )
