"""Boxes with scores: the order is the same for any order of arrival."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodl.core.detections import Detections


def boxes_of(rows: list[tuple[float, ...]]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


_CORNER = st.integers(0, 3)
_ROWS = st.lists(
    st.tuples(_CORNER, _CORNER, _CORNER, _CORNER, st.sampled_from([0.25, 0.5]), st.integers(1, 2)),
    max_size=8,
)


@given(_ROWS, st.randoms(use_true_random=False))
def test_order_does_not_depend_on_arrival(rows: list[tuple[float, ...]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = boxes_of(rows).ordered(), boxes_of(shuffled).ordered()
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_best_first_then_upper_then_left_then_class() -> None:
    found = boxes_of(
        [
            (5, 1, 9, 9, 0.5, 1),
            (0, 2, 9, 9, 0.5, 1),
            (1, 1, 9, 9, 0.5, 2),
            (1, 1, 9, 9, 0.5, 1),
            (9, 9, 9, 9, 0.9, 1),
        ]
    ).ordered()
    assert found.scores[0] == pytest.approx(0.9)
    assert found.boxes[1:, :2].tolist() == [[1, 1], [1, 1], [5, 1], [0, 2]]
    assert found.labels[1:3].tolist() == [1, 2]


def test_none_and_concatenate() -> None:
    assert len(Detections.none()) == 0
    assert len(Detections.concatenate([])) == 0
    one = boxes_of([(0, 0, 1, 1, 0.5, 1)])
    both = Detections.concatenate([one, Detections.none(), one.shift(10, 20)])
    assert len(both) == 2
    assert both.boxes.dtype == np.float64
    assert both.scores.dtype == np.float32
    assert both.labels.dtype == np.int64
    assert both.boxes[1].tolist() == [20, 10, 21, 11]


def test_shift_leaves_the_original() -> None:
    one = boxes_of([(0, 0, 1, 1, 0.5, 1)])
    one.shift(3, 4)
    assert one.boxes[0].tolist() == [0, 0, 1, 1]


def test_take_by_mask_and_by_position() -> None:
    three = boxes_of([(i, 0, i + 1, 1, 0.5, i + 1) for i in range(3)])
    assert three.take(np.array([False, True, True])).labels.tolist() == [2, 3]
    assert three.take(np.array([2, 0])).labels.tolist() == [3, 1]
