"""Scores of a pixel classifier from a confusion matrix, by scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodl.core.contract import IGNORE_INDEX
from geodl.tasks.base import Batch, Meter


def confusion(truth: Tensor, predicted: Tensor, outputs: int) -> Tensor:
    """Pixels by true and predicted class.

    Parameters
    ----------
    truth
        int64, 0..outputs-1; ``IGNORE_INDEX`` does not count.
    predicted
        int64 of the same shape.

    Returns
    -------
    int64 (outputs, outputs), truth down, prediction across.
    """
    counted = truth != IGNORE_INDEX
    pairs = truth[counted] * outputs + predicted[counted]
    return torch.bincount(pairs, minlength=outputs**2).reshape(outputs, outputs)


class ConfusionMeter(Meter):
    """Adds confusion matrices; accuracy and mean IoU come from the sum.

    Attributes
    ----------
    matrix
        int64 (K + 1, K + 1), truth down.
    """

    def __init__(self, outputs: int) -> None:
        self.matrix = torch.zeros(outputs, outputs, dtype=torch.int64)

    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        self.matrix = self.matrix + result["state"].to(self.matrix.device)

    def compute(self) -> dict[str, float]:
        counts = self.counts()
        return {"accuracy": accuracy(counts), "mIoU": mean_iou(counts)}

    def saw_labels(self) -> bool:
        return bool(self.matrix[1:].any())

    def counts(self) -> np.ndarray:
        """int64 (K + 1, K + 1), truth down."""
        return self.matrix.cpu().numpy()


def accuracy(counts: np.ndarray) -> float:
    """Share of pixels with the right class; 0 without pixels."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else 0.0


def occurring(counts: np.ndarray) -> np.ndarray:
    """bool (K + 1,), True for classes in truth or prediction."""
    return (counts.sum(axis=0) + counts.sum(axis=1)) > 0


def class_iou(counts: np.ndarray) -> np.ndarray:
    """float64 (K + 1,), intersection over union; 0 for a class that occurs nowhere."""
    both = np.diag(counts)
    return _ratio(both, counts.sum(axis=0) + counts.sum(axis=1) - both)


def mean_iou(counts: np.ndarray) -> float:
    """Mean over the classes that occur in truth or prediction; 0 without pixels."""
    seen = occurring(counts)
    return float(class_iou(counts)[seen].mean()) if seen.any() else 0.0


def precision_recall_f1(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 (K + 1,) each; 0 where nothing was predicted, or nothing was there."""
    both = np.diag(counts)
    predicted, true = counts.sum(axis=0), counts.sum(axis=1)
    return _ratio(both, predicted), _ratio(both, true), _ratio(2 * both, predicted + true)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
