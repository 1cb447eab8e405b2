"""Which tile a detection belongs to: the one whose core holds its centre."""

from __future__ import annotations

import numpy as np

from geodl.core.detections import Detections
from geodl.core.grid import Window

# A box that comes so near to a tile's edge is taken for one that the edge cuts.
_EDGE_PX = 2.0


def owned(
    found: Detections, tile: Window, core: Window, raster: Window
) -> tuple[Detections, np.ndarray]:
    """What one tile found that belongs to it.

    Parameters
    ----------
    found
        In pixels of the tile.
    tile, core
        What the tile sees and what it owns, in pixels of the raster.
    raster
        Beyond it tiles are mirrored; boxes are clipped to it before their centres are taken.

    Returns
    -------
    Detections in pixels of the raster, and bool (N,): those that an edge of the tile cuts which is
    no edge of the raster; a neighbour sees these whole.
    """
    found = found.shift(tile.row, tile.col)
    cut = _touches(found.boxes, tile, raster)
    limit = np.array([raster.width, raster.height] * 2, np.float64)
    found = Detections(np.clip(found.boxes, 0, limit), found.scores, found.labels)
    x0, y0, x1, y1 = found.boxes.T
    col, row = centres(found.boxes)
    own = (row >= core.row) & (row < core.row_stop) & (col >= core.col) & (col < core.col_stop)
    own &= (x1 > x0) & (y1 > y0)
    return found.take(own), cut[own]


def centres(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (N,) of the centres of boxes (N, 4)."""
    return (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2


def _touches(boxes: np.ndarray, tile: Window, raster: Window) -> np.ndarray:
    x0, y0, x1, y1 = boxes.T
    touched: np.ndarray = np.zeros(len(boxes), bool)
    if tile.col > raster.col:
        touched |= x0 <= tile.col + _EDGE_PX
    if tile.row > raster.row:
        touched |= y0 <= tile.row + _EDGE_PX
    if tile.col_stop < raster.col_stop:
        touched |= x1 >= tile.col_stop - _EDGE_PX
    if tile.row_stop < raster.row_stop:
        touched |= y1 >= tile.row_stop - _EDGE_PX
    return touched
