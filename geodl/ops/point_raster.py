"""Points in the cells of a raster."""

from __future__ import annotations

import numpy as np

from geodl.core.points import lattice_index, run_starts


def cell_of(
    xy: np.ndarray, cell: float, corner: tuple[int, int], shape: tuple[int, int]
) -> np.ndarray:
    """int64 (N,): row-major number of each point's cell; -1 outside.

    A cell owns its left and upper edge. Which one a point lies in depends on the lattice alone, so
    that windows side by side share no point and lose none.

    Parameters
    ----------
    xy
        float64 (N, 2).
    cell
        Side of a cell; the lattice is anchored at the CRS's origin.
    corner
        Row, downwards, and column on the lattice of the window's upper left cell, whose corner
        lies at ``(column * cell, -row * cell)``.
    shape
        Rows and columns of the window.
    """
    row = lattice_index(-xy[:, 1], cell) - corner[0]
    col = lattice_index(xy[:, 0], cell) - corner[1]
    inside = (row >= 0) & (col >= 0) & (row < shape[0]) & (col < shape[1])
    return np.where(inside, row * shape[1] + col, -1)


def count_in_cells(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int64 (H, W): points in each cell."""
    return np.bincount(cells[cells >= 0], minlength=shape[0] * shape[1]).reshape(shape)


def extreme_in_cells(
    cells: np.ndarray, values: np.ndarray, shape: tuple[int, int], *, least: bool = False
) -> np.ndarray:
    """float32 (H, W): greatest (or least) value in each cell, NaN where there is none.

    Values that are NaN count nowhere, as in :func:`mean_in_cells`.
    """
    worst = np.inf if least else -np.inf
    found = np.full(shape[0] * shape[1], worst)
    kept = (cells >= 0) & ~np.isnan(values)
    (np.minimum if least else np.maximum).at(found, cells[kept], values[kept])
    found[np.isinf(found)] = np.nan
    return found.reshape(shape).astype(np.float32)


def mean_in_cells(cells: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (H, W): mean value in each cell, NaN where there is none."""
    size = shape[0] * shape[1]
    kept = (cells >= 0) & ~np.isnan(values)
    total = np.bincount(cells[kept], weights=values[kept], minlength=size)
    count = np.bincount(cells[kept], minlength=size)
    with np.errstate(invalid="ignore"):
        return (total / np.where(count, count, np.nan)).reshape(shape).astype(np.float32)


def first_in_voxels(xyz: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Which point of each voxel comes first.

    Parameters
    ----------
    xyz
        float64 (N, 3).
    spacing
        Side of a voxel; the lattice is anchored at the CRS's origin.

    Returns
    -------
    int64 (M, 3) voxels, and int64 (M,) positions of their first points, by voxel.

    Raises
    ------
    DataError
        Coordinates that are not finite.
    """
    voxels = lattice_index(xyz.reshape(-1), spacing).reshape(-1, 3)
    first = first_of_each(voxels)
    return voxels[first], first


def first_of_each(rows: np.ndarray) -> np.ndarray:
    """int64 (M,): positions of the first of equal rows int64 (N, 3), by row."""
    # A stable sort: some ten times as fast as np.unique over an axis.
    order = np.lexsort(rows.T[::-1])
    found: np.ndarray = order[run_starts(*rows[order].T)]
    return found
