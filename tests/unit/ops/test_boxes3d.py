"""Overlap, suppression and precision of oriented boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from geodl.base.errors import DataError
from geodl.core.oriented import OrientedBoxes
from geodl.ops.boxes3d import footprints, oriented_precision, paired_overlap, suppress_oriented

BOX = [10.0, 20.0, 1.0, 4.0, 2.0, 3.0, 0.0]


def found(rows: list[list[float]], scores: list[float], labels: list[int]) -> OrientedBoxes:
    return OrientedBoxes(np.array(rows), np.array(scores, np.float32), np.array(labels, np.int64))


def test_footprints_turn_anticlockwise() -> None:
    plain, turned = footprints(np.array([BOX, [*BOX[:6], math.pi / 2]]))
    assert plain.bounds == (8, 19, 12, 21)
    np.testing.assert_allclose(turned.bounds, (9, 18, 11, 22), atol=1e-9)
    slanted = footprints(np.array([[0, 0, 0, 2, 0.1, 1, math.pi / 4]]))[0]
    assert slanted.contains(shapely.Point(0.6, 0.6))
    assert not slanted.contains(shapely.Point(0.6, -0.6))


def test_overlap_of_ground_and_of_volume() -> None:
    other = [12.0, 20.0, 2.5, 4.0, 2.0, 3.0, 0.0]
    pair = np.array([BOX]), np.array([other])
    assert paired_overlap(*pair, solid=False)[0] == pytest.approx(4 / 12)
    assert paired_overlap(*pair, solid=True)[0] == pytest.approx(6 / 42)
    above = np.array([[*BOX[:2], 4.0, *BOX[3:]]])
    assert paired_overlap(pair[0], above, solid=True)[0] == 0


def test_the_weaker_of_two_turned_boxes_is_dropped() -> None:
    # Their bounds overlap well, they themselves hardly.
    cross = [*BOX[:3], 4.0, 0.2, 3.0, math.pi / 4], [*BOX[:3], 4.0, 0.2, 3.0, -math.pi / 4]
    kept = suppress_oriented(found([*map(list, cross), BOX, BOX], [0.5, 0.4, 0.3, 0.9],
                                   [1, 1, 2, 2]), 0.3)  # fmt: skip
    np.testing.assert_allclose(kept.scores, [0.9, 0.5, 0.4])
    assert len(suppress_oriented(OrientedBoxes.none(), 0.3)) == 0


def test_precision_at_every_recall() -> None:
    truth = [(np.array([BOX, [30.0, *BOX[1:]]]), np.array([1, 1]))]
    far = [90.0, *BOX[1:]]
    answer = found([BOX, far, [30.0, *BOX[1:]]], [0.9, 0.8, 0.7], [1, 1, 1])
    # Right, wrong, right: precision 1 up to half of the objects, two thirds beyond.
    expected = (51 * 1 + 50 * 2 / 3) / 101
    scores = oriented_precision(truth, [answer], 2, 0.5)
    assert scores[0] == pytest.approx(expected)
    assert math.isnan(scores[1])
    twice = found([BOX, BOX], [0.9, 0.8], [1, 1])
    assert oriented_precision(truth, [twice], 1, 0.5)[0] == pytest.approx(51 / 101)
    assert oriented_precision(truth, [OrientedBoxes.none()], 1, 0.5)[0] == 0
    with pytest.raises(DataError, match="blocks"):
        oriented_precision(truth, [], 1, 0.5)
