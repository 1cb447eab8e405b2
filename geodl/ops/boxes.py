"""Areas and overlaps of boxes ``x0, y0, x1, y1``."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """float64 (N,): area of each box; 0 where it is reversed."""
    size = np.clip(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0.0, None)
    area: np.ndarray = size[:, 0] * size[:, 1]
    return area


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union, row by row.

    Parameters
    ----------
    first, second
        (N, 4) each, in any one frame.

    Returns
    -------
    float64 (N,), 0..1; 0 for two boxes without area. Exactly symmetric.
    """
    first, second = first.astype(np.float64, copy=False), second.astype(np.float64, copy=False)
    low = np.maximum(first[:, :2], second[:, :2])
    size = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - low, 0.0, None)
    common = size[:, 0] * size[:, 1]
    union = areas(first) + areas(second) - common
    ratio: np.ndarray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratio


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64 (N, M): IoU of each of N boxes with each of M boxes."""
    n, m = len(first), len(second)
    left = np.repeat(first, m, axis=0)
    right = np.tile(second, (n, 1))
    return paired_iou(left, right).reshape(n, m)
