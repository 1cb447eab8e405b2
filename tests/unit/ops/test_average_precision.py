from __future__ import annotations

import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.core.detections import Detections
from geodl.ops.average_precision import COCO_THRESHOLDS, average_precision, mean_precision

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
