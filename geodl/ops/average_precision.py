"""Average precision of detections, as COCO defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geodl.base.errors import DataError
from geodl.base.packages import require
from geodl.core.detections import Detections
from geodl.ops.nms import order

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


def average_precision(
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    found: Sequence[Detections],
    class_count: int,
    iou_thresholds: Sequence[float] = (0.5,),
) -> np.ndarray:
    """Area under the precision-recall curve at 101 recalls, by class and IoU threshold.

    Parameters
    ----------
    truth
        For each image, boxes (N, 4) x0, y0, x1, y1 in pixels and labels int (N,) 1..K.
    found
        For each image, in the same frame; all count, however many there are.
    class_count
        K.
    iou_thresholds
        Least IoU of a match, each in 0..1.

    Returns
    -------
    float64 (K, T); NaN for a class without truth.

    Raises
    ------
    DataError
        Different numbers of images.
    MissingPackageError
        faster-coco-eval is not installed.
    """
    package = _package(len(truth), len(found))
    return _evaluated(
        package,
        "bbox",
        _annotations(truth),
        _results(found),
        (len(truth), class_count),
        iou_thresholds,
    )


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks bool (N, H, W) as COCO's run lengths, some hundred bytes each."""
    package = require("faster_coco_eval.core.mask", "detection")
    columns = np.asfortranarray(np.moveaxis(np.asarray(masks, np.uint8), 0, -1))
    codes: list[dict[str, Any]] = package.encode(columns) if len(masks) else []
    return codes


def mask_precision(
    truth: Sequence[tuple[Sequence[Any], np.ndarray]],
    found: Sequence[tuple[Sequence[Any], Detections]],
    class_count: int,
    iou_thresholds: Sequence[float] = (0.5,),
) -> np.ndarray:
    """:func:`average_precision` with the IoU of masks.

    Parameters
    ----------
    truth
        For each image, masks of :func:`encode_masks` and labels int (N,) 1..K.
    found
        For each image, masks and their detections, in the same order.
    """
    package = _package(len(truth), len(found))
    codec = require("faster_coco_eval.core.mask", "detection")
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (masks, labels) in enumerate(truth, start=1):
        for mask, label in zip(masks, np.asarray(labels).tolist(), strict=True):
            row = _row(len(annotations) + 1, image, label, [0.0, 0.0, 0.0, 0.0])
            annotations.append({**row, "segmentation": mask, "area": float(codec.area(mask))})
    for image, (masks, part) in enumerate(found, start=1):
        for place in order(part.boxes, part.scores, part.labels).tolist():
            label, score = int(part.labels[place]), float(part.scores[place])
            row = _row(len(results) + 1, image, label, [0.0, 0.0, 0.0, 0.0])
            area = float(codec.area(masks[place]))
            results.append({**row, "segmentation": masks[place], "area": area, "score": score})
    sizes = len(truth), class_count
    return _evaluated(package, "segm", annotations, results, sizes, iou_thresholds)


def _package(images: int, answers: int) -> Any:
    if images != answers:
        raise DataError(f"truth has {images} images, detections {answers}")
    return require("faster_coco_eval", "detection")


def _evaluated(
    package: Any,
    what: str,
    annotations: list[dict[str, Any]],
    results: list[dict[str, Any]],
    sizes: tuple[int, int],
    iou_thresholds: Sequence[float],
) -> np.ndarray:
    """float64 (K, T) of (images, K); NaN for a class without truth."""
    images, class_count = sizes
    scores = np.full((class_count, len(iou_thresholds)), np.nan)
    if not annotations:
        return scores
    # The package asks for the size of every image, also of one that no mask tells of.
    size = next((row["segmentation"]["size"] for row in annotations if "segmentation" in row), None)
    height, width = size or (1, 1)
    shapes = [{"id": i, "height": height, "width": width} for i in range(1, images + 1)]
    coco_truth = _index(package, annotations, shapes, class_count)
    coco_found = _index(package, results, shapes, class_count)
    evaluation = package.COCOeval_faster(coco_truth, coco_found, what, print_function=_silent)
    evaluation.params.iouThrs = np.asarray(iou_thresholds, np.float64)
    # COCO scores the best 100 of an image; a chip of a forest or a car park holds more.
    counts = np.bincount([row["image_id"] for row in results], minlength=1)
    evaluation.params.maxDets = [max(1, int(counts.max(initial=0)))]
    evaluation.params.areaRng = [[0.0, 1e20]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # (T, recalls, K, areas, limits); -1 where the class has no truth.
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]
    with_truth = (precision >= 0).all(axis=1).T
    scores[with_truth] = precision.mean(axis=1).T[with_truth]
    return scores


def mean_precision(scores: np.ndarray) -> float:
    """Mean over the classes that have truth, and over thresholds; 0 where none has."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else 0.0


def _annotations(truth: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, (boxes, labels) in enumerate(truth, start=1):
        for box, label in zip(_xywh(boxes), np.asarray(labels).tolist(), strict=True):
            rows.append(_row(len(rows) + 1, image, label, box))
    return rows


def _results(found: Sequence[Detections]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, part in enumerate(found, start=1):
        # Equal scores are matched in the order of arrival, which must not matter.
        part = part.ordered()
        for box, label, score in zip(
            _xywh(part.boxes), part.labels.tolist(), part.scores.tolist(), strict=True
        ):
            rows.append({**_row(len(rows) + 1, image, label, box), "score": score})
    return rows


def _row(number: int, image: int, label: int, box: list[float]) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": label,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    rows: list[list[float]] = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
    return rows


def _index(
    package: Any, rows: list[dict[str, Any]], images: list[dict[str, Any]], classes: int
) -> Any:
    content = {
        "images": images,
        "annotations": rows,
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
    }
    return package.COCO(content, print_function=_silent)


def _silent(*_: object) -> None:
    """faster-coco-eval reports its progress through this."""
