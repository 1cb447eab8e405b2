from __future__ import annotations

import pytest
import torch

from geodl.nets.backbones import Backbone
from geodl.nets.yolo import YoloNet, YoloOutput

PRIORS = [[8, 8], [12, 16], [20, 20], [30, 30], [40, 50], [60, 60], [80, 80], [90, 99], [120, 120]]
SIDE = 64


@pytest.fixture(scope="module")
def net() -> YoloNet:
    torch.manual_seed(0)
    return YoloNet(Backbone("timm:mobilenetv3_small_050", 3), 2, PRIORS)


def output(net: YoloNet) -> YoloOutput:
    torch.manual_seed(1)
    with torch.no_grad():
        return net.eval()(torch.randn(2, 3, SIDE, SIDE))


def test_there_are_three_anchors_in_each_cell_of_three_grids(net: YoloNet) -> None:
    found = output(net)
    assert found.answers.shape == (2, 3 * (8 * 8 + 4 * 4 + 2 * 2), 7)
    assert found.cells[:, 2].unique().tolist() == [8, 16, 32]
    assert found.priors[:3].tolist() == PRIORS[:3]
    assert found.priors[-3:].tolist() == PRIORS[6:]


def test_an_object_goes_to_the_prior_of_its_shape_in_the_cell_of_its_centre(net: YoloNet) -> None:
    found = output(net)
    boxes = torch.tensor([[10.0, 20.0, 18.0, 28.0], [2.0, 3.0, 62.0, 63.0]])
    anchors, taken = found.assigned(boxes)
    assert taken.tolist() == [0, 1]
    assert found.priors[anchors].tolist() == [[8, 8], [60, 60]]
    assert found.cells[anchors].tolist() == [[1, 3, 8], [2, 2, 16]]


def test_of_two_objects_for_one_anchor_one_is_learned(net: YoloNet) -> None:
    box = torch.tensor([[10.0, 20.0, 18.0, 28.0]])
    anchors, taken = output(net).assigned(torch.cat([box, box + 0.5]))
    assert len(anchors) == 1
    assert taken.tolist() == [1]


def test_the_place_is_decoded_as_in_the_paper(net: YoloNet) -> None:
    answers = torch.zeros(1, 1, 7)
    answers[0, 0, 2] = 0.5
    cells, priors = torch.tensor([[3.0, 1.0, 16.0]]), torch.tensor([[30.0, 20.0]])
    x0, y0, x1, y1 = YoloOutput(answers, cells, priors, (64, 64)).boxes()[0, 0].tolist()
    assert (x0 + x1) / 2 == pytest.approx(3.5 * 16)
    assert (y0 + y1) / 2 == pytest.approx(1.5 * 16)
    assert x1 - x0 == pytest.approx(30 * 2.718281828**0.5)
    assert y1 - y0 == pytest.approx(20)


def test_right_answers_have_nearly_no_loss_and_are_decoded(net: YoloNet) -> None:
    found = output(net)
    box = torch.tensor([[16.0, 16.0, 24.0, 24.0]])
    (anchor,), _ = found.assigned(box)
    answers = torch.zeros_like(found.answers)
    answers[..., 4] = -20
    answers[:, anchor, 4], answers[:, anchor, 5], answers[:, anchor, 6] = 20, -20, 20
    right = YoloOutput(answers, found.cells, found.priors, found.shape)
    target = {"boxes": box, "labels": torch.tensor([2])}
    assert right.losses([target, target])["loss"] < 1e-4
    boxes, scores, labels = right.decode(0.5)[0]
    assert boxes.tolist() == box.tolist()
    assert scores.item() == pytest.approx(1)
    assert labels.tolist() == [2]
    wrong = right.losses([{**target, "labels": torch.tensor([1])}] * 2)
    assert wrong["class_loss"] > 10
    assert wrong["location_loss"] < 1e-4


def test_boxes_that_overlap_an_object_are_no_background(net: YoloNet) -> None:
    found = output(net)
    box = torch.tensor([[16.0, 16.0, 24.0, 24.0]])
    (anchor,), _ = found.assigned(box)
    answers = torch.zeros_like(found.answers)
    answers[..., 4] = -20
    answers[:, anchor, 4:6] = 20
    # The neighbour's prior, moved as near as its cell allows, with a high objectness.
    near = anchor + 1
    answers[:, near, 2:4] = torch.log(torch.tensor([8 / 12, 8 / 16]))
    answers[:, near, 4] = 20
    output_ = YoloOutput(answers, found.cells, found.priors, found.shape)
    target = {"boxes": box, "labels": torch.tensor([1])}
    assert output_.losses([target, target])["object_loss"] < 1e-4
    far = {"boxes": box + 32, "labels": torch.tensor([1])}
    assert output_.losses([far, far])["object_loss"] > 10


def test_a_batch_without_boxes_teaches_background(net: YoloNet) -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = net.train()(torch.randn(2, 3, SIDE, SIDE)).losses([empty, empty])
    losses["loss"].backward()
    assert losses["location_loss"] == losses["class_loss"] == 0
    assert losses["object_loss"] > 0
    assert torch.isfinite(losses["loss"])
    net.zero_grad()
