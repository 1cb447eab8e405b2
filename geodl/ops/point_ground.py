"""The ground under points: a triangulated surface through those that are classified as ground."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError, cKDTree

from geodl.base.packages import require
from geodl.core.points import run_starts

_NEIGHBOURS = 8


def averaged(points: np.ndarray, spacing: float) -> np.ndarray:
    """Mean of the points in each square cell: a surface does not need all of them.

    Parameters
    ----------
    points
        float64 (N, 3).
    spacing
        Side of a cell; the lattice is anchored at the CRS's origin.

    Returns
    -------
    float64 (M, 3), by cell.
    """
    if not len(points):
        return points
    cells = np.floor(points[:, :2] / spacing).astype(np.int64)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    cells, points = cells[order], points[order]
    starts = run_starts(*cells.T)
    counts = np.diff(np.append(starts, len(points)))
    means: np.ndarray = np.add.reduceat(points, starts, axis=0) / counts[:, None]
    return means


def ground_heights(ground: np.ndarray, xy: np.ndarray, near: float = 0.0) -> np.ndarray:
    """Height of the ground at places.

    Linear in the triangles of a Delaunay triangulation; outside of it, and where the ground points
    span no triangle, that of the nearest ground point.

    Parameters
    ----------
    ground
        float64 (G, 3): ground points.
    xy
        float64 (N, 2), same CRS.
    near
        Within this distance of a ground point heights stay in the range of the nearest ones:
        slivers at the edge of a triangulation join points that are far apart.

    Returns
    -------
    float64 (N,); NaN where there is no ground point at all.
    """
    heights = np.full(len(xy), np.nan)
    if not len(ground) or not len(xy):
        return heights
    # Coordinates of a CRS are large against the distances between points.
    origin = ground[0, :2]
    places, xy = ground[:, :2] - origin, xy - origin
    if len(ground) >= 3:
        # Qhull refuses points that are all in one line or place.
        with contextlib.suppress(QhullError), _one_thread():
            # The search walks from triangle to triangle: neighbours in turn are 100 times faster.
            order = _in_rows(xy)
            heights[order] = LinearNDInterpolator(places, ground[:, 2])(xy[order])
    distance, nearest = cKDTree(places).query(xy, min(_NEIGHBOURS, len(ground)))
    distance, nearest = (v.reshape(len(xy), -1) for v in (distance, nearest))
    around = ground[nearest, 2]
    heights = np.where(np.isnan(heights), around[:, 0], heights)
    held = distance[:, 0] < near
    heights[held] = np.clip(heights[held], around[held].min(axis=1), around[held].max(axis=1))
    return heights


def _one_thread() -> Any:
    """scipy inverts a small matrix for each triangle: BLAS threads make that 50 times slower."""
    return require("threadpoolctl", "points").threadpool_limits(limits=1, user_api="blas")


def _in_rows(xy: np.ndarray) -> np.ndarray:
    """int64 (N,): places row by row, as many rows as there are in a square of N."""
    low, high = xy[:, 1].min(), xy[:, 1].max()
    rows = np.floor((xy[:, 1] - low) / max(high - low, 1e-9) * np.sqrt(len(xy)))
    found: np.ndarray = np.lexsort((xy[:, 0], rows))
    return found
