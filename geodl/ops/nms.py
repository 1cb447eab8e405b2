"""Class-wise non-maximum suppression, for one tile or for all detections of a raster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import shapely

from geodl.base.errors import DataError
from geodl.base.options import as_float
from geodl.core.detections import Detections
from geodl.ops.boxes import paired_iou

Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ratios (P,) of pairs given by the positions (P,) of their first and second."""

# Up to this many boxes of a class, all pairs are compared; a tree costs more than that.
_FEW = 128
# Boxes looked up in the tree at once: bounds the memory of their pairs.
_LOOKED_UP = 4096


def order(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions by best score; ties by upper edge, left edge, class, then the other edges.

    It does not depend on the order in which boxes arrive, except among identical ones.

    Returns
    -------
    int64 (N,)
    """
    keys = (boxes[:, 2], boxes[:, 3], labels, boxes[:, 0], boxes[:, 1])
    return np.lexsort((*keys, -scores.astype(np.float64)))


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray | None,
    max_overlap: float,
    *,
    overlap: Overlap | None = None,
) -> np.ndarray:
    """Greedy non-maximum suppression: keep a box unless a better one kept overlaps it too much.

    Parameters
    ----------
    boxes
        (N, 4): x0, y0, x1, y1 in any one frame. A million take some seconds.
    scores
        (N,).
    labels
        int (N,): only boxes of one label suppress each other. None is one label for all.
    max_overlap
        Overlap up to which both are kept, 0..1.
    overlap
        Of objects whose bounds are the boxes; None is the IoU of the boxes themselves.

    Returns
    -------
    int64 (M,): positions of the boxes kept, in :func:`order`.

    Raises
    ------
    DataError
        Lengths that differ, or a coordinate or score that is not finite.
    OptionError
        ``max_overlap`` outside 0..1.
    """
    max_overlap = as_float(max_overlap, "max_overlap", minimum=0.0, maximum=1.0)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    scores = np.asarray(scores)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels)
    if not len(boxes) == len(scores) == len(labels):
        raise DataError(
            f"{len(boxes)} boxes came with {len(scores)} scores and {len(labels)} labels"
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError("a box or a score is not a finite number; the model's output is broken")
    ranked = order(boxes, scores, labels)
    sorted_labels = labels[ranked]
    keep = np.ones(len(ranked), bool)
    for label in np.unique(sorted_labels):
        members = np.flatnonzero(sorted_labels == label)
        keep[members] = _greedy(boxes, ranked[members], max_overlap, overlap)
    return ranked[keep]


def suppress_detections(found: Detections, max_overlap: float) -> Detections:
    """What :func:`suppress` keeps, best first."""
    return found.take(suppress(found.boxes, found.scores, found.labels, max_overlap))


def _greedy(
    boxes: np.ndarray, ranked: np.ndarray, max_overlap: float, overlap: Overlap | None
) -> np.ndarray:
    """bool (N,): kept, of the boxes of one class whose positions come best first."""

    def too_much(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        first, second = ranked[first], ranked[second]
        if overlap is None:
            ratio = paired_iou(boxes[first], boxes[second])
        else:
            ratio = overlap(first, second)
        return ratio > max_overlap

    alive = np.ones(len(ranked), bool)
    for first, second in _meeting(boxes[ranked], alive):
        bad = too_much(first, second)
        if not bad.any():
            continue
        first, second = first[bad], second[bad]
        # Pairs come by the better box's rank, so its own fate is settled when its turn comes.
        starts = np.flatnonzero(np.r_[True, first[1:] != first[:-1]])
        stops = np.r_[starts[1:], len(first)]
        for box, start, stop in zip(
            first[starts].tolist(), starts.tolist(), stops.tolist(), strict=True
        ):
            if alive[box]:
                alive[second[start:stop]] = False
    return alive


def _meeting(boxes: np.ndarray, alive: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (better, worse) of boxes that meet, by the better one's rank, in parts.

    Boxes that are no longer alive when their part comes are not looked up.
    """
    if len(boxes) < 2:
        return
    if len(boxes) <= _FEW:
        yield np.triu_indices(len(boxes), 1)
        return
    # The tree refuses reversed boxes; those have no area and no overlap.
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    shapes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    tree = shapely.STRtree(shapes)
    for start in range(0, len(boxes), _LOOKED_UP):
        asked = start + np.flatnonzero(alive[start : start + _LOOKED_UP])
        first, second = tree.query(shapes[asked])
        first = asked[first]
        later = second > first
        first, second = first[later], second[later]
        by_rank = np.lexsort((second, first))
        yield first[by_rank], second[by_rank]
