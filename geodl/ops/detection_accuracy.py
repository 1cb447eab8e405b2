"""Detections against the truth: which is right, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geodl.ops.nms import order
from geodl.ops.polygon_overlap import Polygons, polygon_iou, touching_pairs

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the precision (Lin et al. 2014, 1405.0312)."""

# An overlap that equals the least one counts; rounding must not decide.
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of a detection and a true object of its class that overlap.

    Parameters
    ----------
    found, truth
        int64 (P,): positions; best detection first, its largest overlap first.
    iou
        float64 (P,), above 0.
    """

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


def candidates(
    found: Polygons,
    found_labels: np.ndarray,
    scores: np.ndarray,
    truth: Polygons,
    truth_labels: np.ndarray,
) -> Candidates:
    """All pairs that may be a match.

    Parameters
    ----------
    found, truth
        N and M polygons in one CRS.
    found_labels, truth_labels
        int (N,) and (M,): only equal ones match.
    scores
        float (N,). Ties are broken by place, whatever order the detections came in.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for i, j in touching_pairs(found, truth):
        same = found_labels[i] == truth_labels[j]
        i, j = i[same], j[same]
        iou = polygon_iou(found, i, truth, j)
        parts.append((i[iou > 0], j[iou > 0], iou[iou > 0]))
    if not parts:
        none = np.zeros(0, np.int64)
        return Candidates(none, none, np.zeros(0))
    i, j, iou = (np.concatenate([part[k] for part in parts]) for k in range(3))
    rank = np.empty(len(found), np.int64)
    rank[order(found.bounds, scores, found_labels)] = np.arange(len(found))
    best_first = np.lexsort((j, -iou, rank[i]))
    return Candidates(i[best_first], j[best_first], iou[best_first])


def match(pairs: Candidates, found_count: int, truth_count: int, min_iou: float) -> np.ndarray:
    """Give each detection, best first, the free true object that it overlaps most.

    The standard rule: a true object is matched once, so that a second detection of it is a false
    alarm, however well it lies.

    Returns
    -------
    int64 (found_count,): position of the true object, or -1 for a false alarm.
    """
    matched = np.full(found_count, -1, np.int64)
    taken = np.zeros(truth_count, bool)
    enough = pairs.iou >= min_iou - _ROUNDING
    for i, j in zip(pairs.found[enough].tolist(), pairs.truth[enough].tolist(), strict=True):
        if matched[i] < 0 and not taken[j]:
            matched[i], taken[j] = j, True
    return matched


@dataclass(frozen=True, eq=False)
class ClassAccuracy:
    """Counts of one class, or of all, and the curve of its detections.

    Parameters
    ----------
    true_positive, false_positive, false_negative
        Hits, false alarms and misses.
    curve
        float64 (101,): the best precision at each of ``RECALLS`` or beyond; NaN without truth.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    curve: np.ndarray

    @property
    def precision(self) -> float:
        """Hits among the detections; 0 without any."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Hits among the true objects; 0 without any."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        wrong = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + wrong)

    @property
    def average_precision(self) -> float:
        """Mean of the curve: the area below it; NaN without truth."""
        return float(self.curve.mean())


def class_accuracy(right: np.ndarray, truth_count: int) -> ClassAccuracy:
    """Accuracy of the detections of one class.

    Parameters
    ----------
    right
        bool (N,): whether each is a hit, best score first.
    truth_count
        True objects of the class.
    """
    hits = int(right.sum())
    return ClassAccuracy(hits, len(right) - hits, truth_count - hits, _curve(right, truth_count))


def all_classes(parts: Sequence[ClassAccuracy]) -> ClassAccuracy:
    """Counts added up; the curve is the mean over the classes that have truth."""
    known = [part.curve for part in parts if not np.isnan(part.curve).any()]
    curve = np.mean(known, axis=0) if known else np.full(len(RECALLS), np.nan)
    return ClassAccuracy(
        sum(part.true_positive for part in parts),
        sum(part.false_positive for part in parts),
        sum(part.false_negative for part in parts),
        curve,
    )


def _curve(right: np.ndarray, truth_count: int) -> np.ndarray:
    if truth_count == 0:
        return np.full(len(RECALLS), np.nan)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / truth_count, RECALLS, side="left")
    curve: np.ndarray = np.r_[best_beyond, 0.0][place]
    return curve


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
