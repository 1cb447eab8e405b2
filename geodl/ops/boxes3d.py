"""Overlap, suppression and scores of oriented boxes: x, y, z bottom, length, width, height, yaw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from geodl.base.errors import DataError
from geodl.core.oriented import OrientedBoxes
from geodl.ops.nms import suppress

_RECALLS = np.linspace(0, 1, 101)


def footprints(boxes: np.ndarray) -> np.ndarray:
    """Polygons (N,) of boxes (N, 7), seen from above."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 7)
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = corners[None] * boxes[:, None, 3:5]
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = boxes[:, :1] + local[:, :, 0] * cos - local[:, :, 1] * sin
    y = boxes[:, 1:2] + local[:, :, 0] * sin + local[:, :, 1] * cos
    polygons: np.ndarray = shapely.polygons(np.stack([x, y], axis=2))
    return polygons


def paired_overlap(first: np.ndarray, second: np.ndarray, *, solid: bool) -> np.ndarray:
    """float64 (N,): intersection over union of pairs of boxes.

    Parameters
    ----------
    first, second
        (N, 7) each.
    solid
        Of volumes; otherwise of footprints.
    """
    first, second = (np.asarray(b, np.float64).reshape(-1, 7) for b in (first, second))
    shared = shapely.area(shapely.intersection(footprints(first), footprints(second)))
    sizes = [b[:, 3] * b[:, 4] for b in (first, second)]
    if solid:
        top = np.minimum(first[:, 2] + first[:, 5], second[:, 2] + second[:, 5])
        shared = shared * np.maximum(top - np.maximum(first[:, 2], second[:, 2]), 0)
        sizes = [size * b[:, 5] for size, b in zip(sizes, (first, second), strict=True)]
    union = sizes[0] + sizes[1] - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)


def suppress_oriented(found: OrientedBoxes, max_overlap: float) -> OrientedBoxes:
    """Class-wise non-maximum suppression by the overlap of turned footprints, best first.

    Raises
    ------
    OptionError
        ``max_overlap`` outside 0..1.
    DataError
        Numbers that are not finite.
    """
    shapes = footprints(found.boxes)
    area = shapely.area(shapes)

    def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        shared = shapely.area(shapely.intersection(shapes[first], shapes[second]))
        union = area[first] + area[second] - shared
        return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)

    bounds = shapely.bounds(shapes).reshape(-1, 4)
    return found.take(suppress(bounds, found.scores, found.labels, max_overlap, overlap=overlap))


def oriented_precision(
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    found: Sequence[OrientedBoxes],
    class_count: int,
    iou_threshold: float,
) -> np.ndarray:
    """Average precision of each class at 101 recalls, by the overlap of volumes.

    Parameters
    ----------
    truth
        For each block boxes (N, 7) and labels (N,) 1..K.
    found
        For each block.
    class_count
        K.
    iou_threshold
        Least overlap of a match, 0..1.

    Returns
    -------
    float64 (K,); NaN for a class without truth.

    Raises
    ------
    DataError
        Different numbers of blocks.
    """
    if len(truth) != len(found):
        raise DataError(f"truth has {len(truth)} blocks, detections {len(found)}")
    scores = np.full(class_count, np.nan)
    for label in range(1, class_count + 1):
        total = sum(int((labels == label).sum()) for _, labels in truth)
        if not total:
            continue
        ranks, hits = [], []
        for (boxes, labels), part in zip(truth, found, strict=True):
            own = part.take(part.labels == label)
            own = own.take(np.argsort(-own.scores, kind="stable"))
            ranks.append(own.scores)
            hits.append(_matched(boxes[labels == label], own.boxes, iou_threshold))
        scores[label - 1] = _area(np.concatenate(ranks), np.concatenate(hits), total)
    return scores


def _matched(truth: np.ndarray, boxes: np.ndarray, threshold: float) -> np.ndarray:
    """bool (N,): boxes, best first, that take a true box which no better one has taken."""
    hits = np.zeros(len(boxes), bool)
    if not len(truth) or not len(boxes):
        return hits
    pairs = paired_overlap(
        np.repeat(boxes, len(truth), axis=0), np.tile(truth, (len(boxes), 1)), solid=True
    ).reshape(len(boxes), len(truth))
    free = np.ones(len(truth), bool)
    for i, row in enumerate(pairs):
        best = int(np.where(free, row, -1.0).argmax())
        if free[best] and row[best] >= threshold:
            free[best] = False
            hits[i] = True
    return hits


def _area(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    ranked = hits[np.argsort(-scores, kind="stable")]
    right = np.cumsum(ranked)
    precision = right / np.arange(1, len(ranked) + 1)
    # At each recall the best precision that is reached there or beyond.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / total, _RECALLS)
    reached = places < len(ranked)
    return (
        float(np.where(reached, best[np.minimum(places, len(best) - 1)], 0.0).mean())
        if len(ranked)
        else 0.0
    )
