"""Test-time augmentation by the symmetries of the square, for scores and for boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Policy = Literal["mean", "max", "min"]

# A symmetry is (transpose, flip rows, flip columns), applied in this order.
Symmetry = tuple[bool, bool, bool]

_ALL: tuple[Symmetry, ...] = tuple(
    (transpose, rows, cols)
    for transpose in (False, True)
    for rows in (False, True)
    for cols in (False, True)
)
# An image that is not a map has an up and a down: only mirroring left to right keeps its sense.
_UPRIGHT: tuple[Symmetry, ...] = ((False, False, False), (False, False, True))


def symmetries(image_space: str) -> tuple[Symmetry, ...]:
    """The symmetries under which a model trained in ``image_space`` sees the same things."""
    return _ALL if image_space == "MAP_SPACE" else _UPRIGHT


def turn(x: Tensor, symmetry: Symmetry) -> Tensor:
    """Apply a symmetry to (..., H, W)."""
    transpose, rows, cols = symmetry
    if transpose:
        x = x.transpose(-1, -2)
    axes = [axis for axis, flip in ((-2, rows), (-1, cols)) if flip]
    return x.flip(axes) if axes else x


def turn_back(x: Tensor, symmetry: Symmetry) -> Tensor:
    """Undo :func:`turn`."""
    transpose, rows, cols = symmetry
    x = turn(x, (False, rows, cols))
    return x.transpose(-1, -2) if transpose else x


def turn_boxes_back(boxes: np.ndarray, symmetry: Symmetry, height: int, width: int) -> np.ndarray:
    """Undo :func:`turn` for boxes.

    Parameters
    ----------
    boxes
        (N, 4) x0, y0, x1, y1 found in the turned image.
    height, width
        Of the image before it was turned.
    """
    transpose, rows, cols = symmetry
    if transpose:
        height, width = width, height
    x0, y0, x1, y1 = boxes.T
    if rows:
        y0, y1 = height - y1, height - y0
    if cols:
        x0, x1 = width - x1, width - x0
    if transpose:
        x0, y0, x1, y1 = y0, x0, y1, x1
    return np.stack([x0, y0, x1, y1], axis=1)


def merged_scores(
    scores: Callable[[Tensor], Tensor], x: Tensor, which: tuple[Symmetry, ...], policy: Policy
) -> Tensor:
    """Scores (B, K, H, W) of ``x`` merged over symmetries; summed in one order, so repeatable."""
    total: Tensor | None = None
    for symmetry in which:
        found = turn_back(scores(turn(x, symmetry).contiguous()), symmetry)
        if total is None:
            total = found.clone()
        elif policy == "mean":
            total += found
        else:
            total = torch.maximum(total, found) if policy == "max" else torch.minimum(total, found)
    if total is None:
        raise ValueError("no symmetry was given")
    return total / len(which) if policy == "mean" else total
