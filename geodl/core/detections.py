"""Boxes with scores and classes, in pixels of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one frame (a tile, a block or a whole raster).

    Parameters
    ----------
    boxes
        float64 (N, 4): x0, y0, x1, y1 in pixel edges of the frame (x right, y down).
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
    def none(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float64), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        if not parts:
            return cls.none()
        return cls(
            np.concatenate([p.boxes for p in parts]).astype(np.float64, copy=False),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.labels for p in parts]),
        )

    def take(self, which: np.ndarray) -> Detections:
        """Those at the given positions, or where a bool mask is True."""
        return Detections(self.boxes[which], self.scores[which], self.labels[which])

    def shift(self, rows: float, cols: float) -> Detections:
        """In a frame whose origin lies ``rows`` above and ``cols`` left of this one's."""
        offset = np.array([cols, rows, cols, rows], np.float64)
        return Detections(self.boxes + offset, self.scores, self.labels)

    def ordered(self) -> Detections:
        """Best score first; ties by upper edge, left edge, class: the same for any arrival."""
        keys = (self.boxes[:, 2], self.boxes[:, 3], self.labels, self.boxes[:, 0], self.boxes[:, 1])
        return self.take(np.lexsort((*keys, -self.scores.astype(np.float64))))
