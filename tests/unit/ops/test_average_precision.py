from __future__ import annotations

import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.core.detections import Detections
from geodl.ops.average_precision import (
    COCO_THRESHOLDS,
    average_precision,
    encode_masks,
    mask_precision,
    mean_precision,
)

pytest.importorskip("faster_coco_eval")


def found(boxes, scores, labels) -> Detections:
    return Detections(
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
    )


def true(boxes, labels):
    return np.array(boxes, float).reshape(-1, 4), np.array(labels)


TRUTH = [true([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 2]), true([[0, 0, 10, 10]], [1])]


def test_a_perfect_detector_has_one_and_a_class_without_truth_has_none():
    detections = [
        found([[0, 0, 10, 10], [20, 20, 30, 30]], [0.9, 0.8], [1, 2]),
        found([[0, 0, 10, 10]], [0.7], [1]),
    ]
    scores = average_precision(TRUTH, detections, 3)
    assert scores[:2, 0] == pytest.approx([1, 1])
    assert np.isnan(scores[2, 0])
    assert mean_precision(scores) == pytest.approx(1)


def test_a_better_scored_false_alarm_halves_the_precision():
    """Precision is 1/2 at the only recall that is reached, which is half of the objects."""
    detections = [found([[50, 50, 60, 60], [0, 0, 10, 10]], [0.9, 0.8], [1, 1]), Detections.none()]
    scores = average_precision(TRUTH, detections, 2)
    assert scores[0, 0] == pytest.approx(0.5 * 51 / 101)
    assert scores[1, 0] == 0


def test_the_iou_threshold_decides_what_is_right():
    detections = [found([[0, 0, 10, 6]], [0.9], [1]), found([[0, 0, 10, 10]], [0.8], [1])]
    truth = [true([[0, 0, 10, 10]], [1])] * 2
    scores = average_precision(truth, detections, 1, (0.5, 0.6, 0.7))
    assert scores[0, :2] == pytest.approx([1, 1])
    assert scores[0, 2] < 0.6


def test_more_than_a_hundred_objects_in_an_image_all_count():
    left = np.arange(150) * 20.0
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)
    labels = np.ones(150, np.int64)
    detections = [Detections(boxes, np.linspace(0.9, 0.5, 150).astype(np.float32), labels)]
    assert average_precision([(boxes, labels)], detections, 1)[0, 0] == pytest.approx(1)


def test_equal_scores_are_ranked_alike_in_any_order_of_arrival():
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]]
    one = found(boxes, [0.5] * 3, [1] * 3)
    two = found(boxes[::-1], [0.5] * 3, [1] * 3)
    truth = [true([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 1])]
    assert average_precision(truth, [one], 1) == average_precision(truth, [two], 1)


def test_no_truth_at_all_is_no_score():
    scores = average_precision([true([], [])], [Detections.none()], 2, COCO_THRESHOLDS)
    assert scores.shape == (2, 10)
    assert np.isnan(scores).all()
    assert mean_precision(scores) == 0


def test_images_must_correspond():
    with pytest.raises(DataError, match="2 images"):
        average_precision(TRUTH, [], 2)


def coco_by_hand(kind: str, truth: list, results: list, images: int, side: int) -> list[float]:
    """AP50 of two classes by faster-coco-eval from COCO's own JSON, without any code of ours."""
    from faster_coco_eval import COCO, COCOeval_faster

    content = {
        "images": [{"id": i, "height": side, "width": side} for i in range(1, images + 1)],
        "annotations": truth,
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }
    quiet = {"print_function": lambda *_: None}
    index = COCO(content, **quiet)
    evaluation = COCOeval_faster(index, index.loadRes(results), kind, **quiet)
    evaluation.evaluate()
    evaluation.accumulate()
    # The first threshold is 0.5; all areas; at most 100 of an image.
    return [float(evaluation.eval["precision"][0, :, k, 0, -1].mean()) for k in range(2)]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_it_equals_an_independent_coco_evaluation(kind: str) -> None:
    from faster_coco_eval.core import mask as codec

    rng = np.random.default_rng(3)
    side, truth, answers, rows, results = 40, [], [], [], []
    for image in range(1, 7):
        corner = rng.integers(0, 28, (5, 2))
        boxes = np.hstack([corner, corner + rng.integers(4, 12, (5, 2))]).astype(float)
        labels = rng.integers(1, 3, 5)
        moved = np.clip(boxes + rng.integers(-2, 3, (5, 4)), 0, side)
        moved = np.vstack([moved, boxes[:2] + 1])
        scores = rng.permutation(7) / 10 + 0.1
        answer = np.append(labels, rng.integers(1, 3, 2))
        truth.append((boxes, labels))
        answers.append(found(moved, scores, answer))
        for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
            rows.append(
                {"id": len(rows) + 1, "image_id": image, "category_id": label, "iscrowd": 0,
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                 "segmentation": [polygon]}
            )  # fmt: skip
        for (x0, y0, x1, y1), score, label in zip(moved, scores, answer, strict=True):
            row = {"image_id": image, "category_id": int(label), "score": float(score)}
            box = [float(v) for v in (x0, y0, x1 - x0, y1 - y0)]
            code = codec.encode(np.asfortranarray(filled(np.array([[x0, y0, x1, y1]]), side)[0]))
            own = {"bbox": box} if kind == "bbox" else {"segmentation": code}
            results.append({**row, **own})
    expected = coco_by_hand(kind, rows, results, 6, side)
    if kind == "bbox":
        scores = average_precision(truth, answers, 2)[:, 0]
    else:
        masks = [(encode_masks(filled(boxes, side)), labels) for boxes, labels in truth]
        seen = [(encode_masks(filled(part.boxes, side)), part) for part in answers]
        scores = mask_precision(masks, seen, 2)[:, 0]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert 0.05 < scores.min() < scores.max() < 0.999


def filled(boxes: np.ndarray, side: int) -> np.ndarray:
    masks = np.zeros((len(boxes), side, side), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    return masks
