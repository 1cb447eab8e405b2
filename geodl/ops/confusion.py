"""The confusion matrix of two classifications, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class PairCounts:
    """Counts of pairs of true and found class values, gathered part by part.

    Memory grows with the number of different pairs, not of pixels.
    """

    by_pair: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Count two arrays of whole numbers of one shape."""
        true_values, true_place = np.unique(truth, return_inverse=True)
        found_values, found_place = np.unique(found, return_inverse=True)
        across = len(found_values)
        counts = np.bincount(
            true_place.ravel() * across + found_place.ravel(), minlength=len(true_values) * across
        )
        for place in np.flatnonzero(counts):
            pair = int(true_values[place // across]), int(found_values[place % across])
            self.by_pair[pair] = self.by_pair.get(pair, 0) + int(counts[place])

    def matrix(self) -> ConfusionMatrix:
        """What was gathered so far."""
        values = sorted({value for pair in self.by_pair for value in pair})
        return ConfusionMatrix.from_pairs(values, self.by_pair.items())


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts by true and found class with their scores.

    Parameters
    ----------
    values
        K class values in rising order.
    counts
        int64 (K, K), truth down, found across.
    """

    values: tuple[int, ...]
    counts: np.ndarray

    @classmethod
    def from_pairs(
        cls, values: Iterable[int], pairs: Iterable[tuple[tuple[int, int], int]]
    ) -> ConfusionMatrix:
        """From counts by (true value, found value)."""
        order = tuple(values)
        place = {value: i for i, value in enumerate(order)}
        counts = np.zeros((len(order), len(order)), np.int64)
        for (true, found), count in pairs:
            counts[place[true], place[found]] += count
        return cls(order, counts)

    @property
    def total(self) -> int:
        """Pixels or points that were compared."""
        return int(self.counts.sum())

    @property
    def precision(self) -> np.ndarray:
        """float64 (K,): share of what was found as a class that is of it; 0 without any."""
        return _ratio(np.diag(self.counts), self.counts.sum(axis=0))

    @property
    def recall(self) -> np.ndarray:
        """float64 (K,): share of a class that was found; 0 without any."""
        return _ratio(np.diag(self.counts), self.counts.sum(axis=1))

    @property
    def f1(self) -> np.ndarray:
        """float64 (K,): harmonic mean of precision and recall."""
        sides = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        return _ratio(2 * np.diag(self.counts), sides)

    @property
    def iou(self) -> np.ndarray:
        """float64 (K,): intersection over union."""
        both = np.diag(self.counts)
        return _ratio(both, self.counts.sum(axis=0) + self.counts.sum(axis=1) - both)

    @property
    def accuracy(self) -> float:
        """Share of all that has the right class; 0 without any."""
        return float(np.trace(self.counts) / self.total) if self.total else 0.0

    @property
    def mean_iou(self) -> float:
        """Mean over the classes; 0 without any."""
        return float(self.iou.mean()) if self.values else 0.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; 0 where chance explains all (Cohen 1960)."""
        if not self.total:
            return 0.0
        shares = self.counts / self.total
        chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
        return (self.accuracy - chance) / (1 - chance) if chance < 1 else 0.0


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
