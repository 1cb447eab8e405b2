"""Oriented boxes in three dimensions with scores and classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class OrientedBoxes:
    """Objects found among points.

    Parameters
    ----------
    boxes
        float64 (N, 7): x, y, z of the bottom's centre, length, width, height, yaw (radians,
        anticlockwise from x); in units of the CRS, around the block's origin or in the CRS itself.
    scores
        float32 (N,), 0..1.
    labels
        int64 (N,), network output 1..K.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls) -> OrientedBoxes:
        return cls(np.zeros((0, 7), np.float64), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def take(self, which: np.ndarray) -> OrientedBoxes:
        """Those at the given positions, or where a bool mask is True."""
        return OrientedBoxes(self.boxes[which], self.scores[which], self.labels[which])

    def shift(self, x: float, y: float, z: float) -> OrientedBoxes:
        """Moved by an offset."""
        return OrientedBoxes(self.boxes + np.array([x, y, z, 0, 0, 0, 0]), self.scores, self.labels)
