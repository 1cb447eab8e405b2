"""Points in the cells of a raster."""

from __future__ import annotations

import numpy as np


def cell_of(
    xy: np.ndarray, left: float, top: float, cell: float, shape: tuple[int, int]
) -> np.ndarray:
    """int64 (N,): row-major number of each point's cell; -1 outside.

    A cell owns its left and upper edge.

    Parameters
    ----------
    xy
        float64 (N, 2).
    left, top
        Corner of the raster.
    cell
        Side of a cell.
    shape
        Rows and columns.
    """
    col = np.floor((xy[:, 0] - left) / cell)
    row = np.floor((top - xy[:, 1]) / cell)
    inside = (row >= 0) & (col >= 0) & (row < shape[0]) & (col < shape[1])
    found = np.where(inside, row * shape[1] + col, -1)
    return found.astype(np.int64)


def count_in_cells(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int64 (H, W): points in each cell."""
    return np.bincount(cells[cells >= 0], minlength=shape[0] * shape[1]).reshape(shape)


def extreme_in_cells(
    cells: np.ndarray, values: np.ndarray, shape: tuple[int, int], *, least: bool = False
) -> np.ndarray:
    """float32 (H, W): greatest (or least) value in each cell, NaN where there is none."""
    worst = np.inf if least else -np.inf
    found = np.full(shape[0] * shape[1], worst)
    kept = cells >= 0
    (np.minimum if least else np.maximum).at(found, cells[kept], values[kept])
    found[np.isinf(found)] = np.nan
    return found.reshape(shape).astype(np.float32)


def mean_in_cells(cells: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (H, W): mean value in each cell, NaN where there is none."""
    size = shape[0] * shape[1]
    kept = cells >= 0
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
    """
    voxels = np.floor(xyz / spacing).astype(np.int64)
    kept, first = np.unique(voxels, axis=0, return_index=True)
    return kept, first
