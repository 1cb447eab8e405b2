from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.nets.anchors import AnchorLayout
from geodl.nets.matching import assign, generalized_iou, iou_matrix
from geodl.ops import boxes as reference

LAYOUT = AnchorLayout((16, 8), (2.0,), ((1.0, 1.0),))
ANCHORS = LAYOUT.anchors(64, 64, 64)


def random_boxes(seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([low, low + 2 + torch.rand(count, 2, generator=generator) * 20], dim=1)


def test_iou_agrees_with_the_numpy_one():
    one, two = random_boxes(0, 30), random_boxes(1, 20)
    expected = reference.iou_matrix(one.numpy(), two.numpy())
    assert torch.allclose(iou_matrix(one, two).double(), torch.from_numpy(expected), atol=1e-6)


def test_generalized_iou_by_hand():
    one = torch.tensor([[0.0, 0, 10, 10]] * 3)
    two = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10]])
    assert generalized_iou(one, two).tolist() == pytest.approx([1, 0, -1 / 3])


def test_without_objects_all_is_background():
    assert (assign(ANCHORS, torch.zeros(0, 4)) == -1).all()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_every_object_gets_an_anchor_that_overlaps_it(seed, count):
    boxes = random_boxes(seed, count)
    match = assign(ANCHORS, boxes)
    assert set(match.tolist()) - {-1} == set(range(count))
    own = torch.nonzero(match >= 0).flatten()
    overlap = iou_matrix(torch.cat(ANCHORS)[own], boxes)
    assert (overlap[torch.arange(len(own)), match[own]] > 0).all()


def test_an_anchor_wanted_twice_goes_to_the_better_overlap():
    boxes = torch.tensor([[20.0, 20, 36, 36], [24, 24, 44, 44]])
    match = assign(ANCHORS, boxes)
    overlap = iou_matrix(torch.cat(ANCHORS), boxes)
    both = (match >= 0) & (overlap.min(dim=1).values > 0.5)
    assert (match[both] == overlap[both].argmax(dim=1)).all()


def test_more_objects_than_anchors_do_no_harm():
    one = AnchorLayout((1,), (1.0,), ((1.0, 1.0),)).anchors(64, 64, 64)
    match = assign(one, random_boxes(3, 5))
    assert match.shape == (1,)
    assert match[0] in range(5)


def test_an_object_that_lies_far_outside_takes_no_anchor():
    match = assign(ANCHORS, torch.tensor([[900.0, 900, 910, 910]]))
    assert (match == -1).all()
