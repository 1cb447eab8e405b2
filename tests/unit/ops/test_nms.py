from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.base.errors import DataError, OptionError
from geodl.core.detections import Detections
from geodl.ops import nms
from geodl.ops.boxes import iou_matrix
from geodl.ops.nms import order, suppress, suppress_detections


def some_boxes(seed: int, count: int, side: float = 60.0):
    rng = np.random.default_rng(seed)
    # Whole numbers make many exact ties.
    low = rng.integers(0, side, (count, 2)).astype(float)
    boxes = np.hstack([low, low + rng.integers(1, 20, (count, 2))])
    scores = (rng.integers(1, 6, count) / 5).astype(np.float32)
    return boxes, scores, rng.integers(1, 4, count)


def by_definition(boxes, scores, labels, max_overlap):
    overlap = iou_matrix(boxes, boxes)
    kept: list[int] = []
    for i in order(boxes, scores, labels):
        if all(labels[i] != labels[j] or overlap[i, j] <= max_overlap for j in kept):
            kept.append(int(i))
    return kept


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6), count=st.integers(0, 80), overlap=st.sampled_from([0, 0.1, 0.5, 1])
)
def test_it_is_the_greedy_definition(seed, count, overlap):
    boxes, scores, labels = some_boxes(seed, count)
    assert suppress(boxes, scores, labels, overlap).tolist() == by_definition(
        boxes, scores, labels, overlap
    )


@pytest.mark.parametrize("part", [7, 4096])
def test_the_tree_gives_what_all_pairs_give(monkeypatch, part):
    boxes, scores, labels = some_boxes(3, 600, side=120)
    expected = by_definition(boxes, scores, labels, 0.2)
    monkeypatch.setattr(nms, "_FEW", 0)
    monkeypatch.setattr(nms, "_LOOKED_UP", part)
    assert suppress(boxes, scores, labels, 0.2).tolist() == expected


def test_the_result_does_not_depend_on_the_order_of_arrival():
    boxes, scores, labels = some_boxes(5, 400)
    shuffled = np.random.default_rng(1).permutation(400)
    one = suppress(boxes, scores, labels, 0.3)
    two = shuffled[suppress(boxes[shuffled], scores[shuffled], labels[shuffled], 0.3)]
    assert np.array_equal(boxes[one], boxes[two])
    assert np.array_equal(labels[one], labels[two])


def test_ties_go_by_score_then_y_then_x_then_class():
    boxes = np.array([[5, 1, 9, 9], [0, 2, 9, 9], [4, 1, 9, 9], [4, 1, 9, 9], [9, 9, 10, 10.0]])
    scores = np.array([0.5, 0.5, 0.5, 0.5, 0.9])
    labels = np.array([1, 1, 2, 1, 1])
    assert order(boxes, scores, labels).tolist() == [4, 3, 2, 0, 1]


def test_boxes_that_only_touch_are_both_kept_at_overlap_zero():
    boxes = np.array([[0, 0, 5, 5], [5, 0, 10, 5], [4, 0, 9, 5.0]])
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), None, 0.0).tolist() == [0, 1]


def test_without_labels_all_boxes_compete():
    boxes = np.array([[0, 0, 5, 5], [0, 0, 5, 5.0]])
    scores = np.array([0.5, 0.6])
    assert suppress(boxes, scores, None, 0.5).tolist() == [1]
    assert suppress(boxes, scores, np.array([1, 2]), 0.5).tolist() == [1, 0]


def test_a_suppressed_box_suppresses_nothing():
    boxes = np.array([[0, 0, 10, 10], [6, 0, 16, 10], [12, 0, 22, 10.0]])
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), None, 0.2).tolist() == [0, 2]


def test_detections_come_back_best_first():
    boxes, scores, labels = some_boxes(2, 50)
    found = suppress_detections(Detections(boxes, scores, labels), 0.3)
    assert 0 < len(found) < 50
    assert (np.diff(found.scores) <= 0).all()


def test_a_chain_of_overlaps_is_no_trap():
    """Rounds of parallel suppression would take as many rounds as the chain has links."""
    count = 20_000
    left = np.arange(count) * 6.0
    boxes = np.stack([left, np.zeros(count), left + 10, np.full(count, 10.0)], axis=1)
    started = time.process_time()
    kept = suppress(boxes, np.linspace(1, 0.5, count), None, 0.2)
    assert kept.tolist() == list(range(0, count, 2))
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "overlap", "error"),
    [
        (np.zeros((2, 4)), np.zeros(1), None, 0.5, DataError),
        (np.full((1, 4), np.nan), np.zeros(1), None, 0.5, DataError),
        (np.zeros((1, 4)), np.array([np.inf]), None, 0.5, DataError),
        (np.zeros((1, 4)), np.zeros(1), None, 1.5, OptionError),
    ],
)
def test_bad_input_is_refused(boxes, scores, labels, overlap, error):
    with pytest.raises(error):
        suppress(boxes, scores, labels, overlap)
