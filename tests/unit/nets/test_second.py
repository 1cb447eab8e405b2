"""Anchors, codes and losses of SECOND."""

from __future__ import annotations

import math

import torch

from geodl.nets.anchors3d import (
    bounds_overlap,
    decode,
    direction_bins,
    encode,
    match_anchors,
    nearest_bounds,
    turned,
)
from geodl.nets.second import Anchors, SecondOutput


def boxes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


CAR = [0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0]


def test_codes_come_back() -> None:
    anchors = boxes(CAR, [3.0, 1.0, -1.0, 10.0, 8.0, 5.0, math.pi / 2])
    objects = boxes([0.4, -0.3, 0.2, 4.4, 1.8, 1.6, 0.7], [2.0, 2.0, 0.0, 9.0, 8.5, 6.0, -2.5])
    assert torch.allclose(decode(encode(objects, anchors), anchors), objects, atol=1e-5)


def test_the_direction_gives_back_the_half_of_the_turn() -> None:
    yaw = torch.tensor([0.3, -0.3, 3.0, -3.0, 1.6])
    found = turned(yaw + math.pi, direction_bins(yaw))
    assert torch.allclose(found, yaw, atol=1e-5)


def test_bounds_turn_to_the_nearest_quarter() -> None:
    found = nearest_bounds(boxes([*CAR[:6], 0.2], [*CAR[:6], 1.7]))
    assert torch.allclose(found, torch.tensor([[-2.0, -1, 2, 1], [-1.0, -2, 1, 2]]))
    assert torch.allclose(
        bounds_overlap(found, found), torch.tensor([[1.0, 4 / 12], [4 / 12, 1.0]])
    )


def test_anchors_take_objects_of_their_class() -> None:
    anchors = boxes(CAR, [0.5, 0, 0, 4, 2, 1, 0], [9.0, 0, 0, 4, 2, 1, 0], CAR)
    of_class = torch.tensor([1, 1, 1, 2])
    state, match = match_anchors(anchors, of_class, boxes(CAR), torch.tensor([1]))
    assert state.tolist() == [1, 1, 0, 0]
    assert match.tolist()[:2] == [0, 0]
    # An object that no anchor overlaps well has the best one all the same.
    small = boxes([0.0, 0, 0, 1.0, 1.0, 1.0, 0])
    state, match = match_anchors(anchors, of_class, small, torch.tensor([2]))
    assert state.tolist() == [0, 0, 0, 1]
    none = match_anchors(anchors, of_class, boxes(CAR)[:0], torch.zeros(0, dtype=torch.int64))
    assert none[0].tolist() == [0, 0, 0, 0]


def output(score: float) -> SecondOutput:
    anchors = Anchors(boxes(CAR).view(1, 1, 1, 7), torch.tensor([1]))
    codes = torch.zeros(1, 1, 1, 1, 7, requires_grad=True)
    directions = torch.tensor([4.0, -4.0]).view(1, 1, 1, 1, 2)
    return SecondOutput(torch.full((1, 1, 1, 1), score), codes, directions, anchors)


def test_the_right_answer_costs_less() -> None:
    target = [{"boxes": boxes(CAR), "labels": torch.tensor([1])}]
    right, wrong = output(6.0).losses(target), output(-6.0).losses(target)
    assert right["loss"] < 0.01 < 1 < wrong["loss"]
    aside = [{"boxes": boxes([0.5, 0, 0, 4, 2, 1.5, 0.3]), "labels": torch.tensor([1])}]
    assert output(6.0).losses(aside)["box"] > right["box"] + 0.01
    around = [{"boxes": boxes([*CAR[:6], -math.pi + 0.1]), "labels": torch.tensor([1])}]
    assert output(6.0).losses(around)["direction"] > 1
    assert torch.isfinite(output(6.0).losses([{k: v[:0] for k, v in target[0].items()}])["loss"])


def test_scores_above_the_threshold_become_boxes() -> None:
    found, scores, labels = output(3.0).decode(0.5)[0]
    assert torch.allclose(found, boxes(CAR), atol=1e-6)
    assert torch.allclose(scores, torch.sigmoid(torch.tensor([3.0])))
    assert labels.tolist() == [1]
    assert len(output(-3.0).decode(0.5)[0][0]) == 0
