from __future__ import annotations

import numpy as np
import pytest

from geodl.ops.boxes import areas, iou_matrix, paired_iou

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 9], [4, 4, 2, 8.0]])


def test_areas_of_empty_and_reversed_boxes_are_zero():
    assert areas(BOXES).tolist() == [100, 100, 100, 0, 0]


def test_iou_by_hand():
    assert iou_matrix(BOXES[:3], BOXES[:3]) == pytest.approx(
        np.array([[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]])
    )


def test_boxes_without_area_overlap_nothing_not_even_themselves():
    assert iou_matrix(BOXES[3:], BOXES).tolist() == np.zeros((2, 5)).tolist()


def test_iou_is_exactly_symmetric():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (300, 2))
    boxes = np.hstack([low, low + rng.uniform(1, 20, (300, 2))])
    other = boxes[::-1]
    assert (paired_iou(boxes, other) == paired_iou(other, boxes)).all()
