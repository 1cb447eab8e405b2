from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn import functional

from geodl.nets.anchors import AnchorLayout
from geodl.nets.backbones import Backbone
from geodl.nets.ssd import (
    LEAST_NEGATIVES,
    NEGATIVES,
    AnchorOutput,
    LossOptions,
    SingleShotNet,
    level_of,
    to_grid,
)

LAYOUT = AnchorLayout((8, 4), (1.5,), ((1.0, 1.0), (1.5, 0.65)))


def make(version=2, tile=64, layout=LAYOUT, classes=2, **options) -> SingleShotNet:
    torch.manual_seed(0)
    return SingleShotNet(
        Backbone("resnet18", 3), layout, classes, tile, version=version, drop=0.0, **options
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (50, 70)])
def test_there_is_one_answer_per_anchor_at_any_image_size(version, shape):
    out = make(version).eval()(torch.randn(2, 3, *shape))
    anchors = sum(len(part) for part in out.anchors)
    assert out.logits.shape == (2, anchors, 2)
    assert out.offsets.shape == (2, anchors, 4)


@pytest.mark.parametrize("version", [1, 2])
def test_cells_and_anchors_go_together(version):
    """A change in one corner of the image moves the scores of that corner's anchors most."""
    net = make(version).eval()
    x = torch.randn(1, 3, 64, 64)
    changed = x.clone()
    changed[..., 40:, 8:24] += 3
    one, two = net(x), net(changed)
    moved = (one.logits - two.logits).abs().sum(dim=2)[0]
    first = moved[: len(one.anchors[0])].argmax()
    x_centre, y_centre = (one.anchors[0][first, :2] + one.anchors[0][first, 2:]) / 2
    assert 4 <= x_centre <= 28
    assert 36 <= y_centre <= 64


def test_the_starting_scores_are_those_of_the_bias():
    out = make(bias=-3.0).eval()(torch.randn(1, 3, 64, 64))
    assert out.logits.mean().item() == pytest.approx(-3.0, abs=0.2)


def test_a_grid_reads_the_map_of_its_resolution():
    assert [level_of(px) for px in (2, 4, 7.9, 8, 24.9, 32, 100)] == [0, 0, 0, 1, 2, 3, 3]
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert to_grid(x, (4, 4)) is x
    assert torch.equal(to_grid(x, (2, 2)), functional.avg_pool2d(x, 2))
    assert to_grid(x, (8, 8)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("version", [1, 2])
def test_layer_groups_hold_every_parameter_once_backbone_first(version):
    net = make(version)
    groups = net.layer_groups()
    found = [id(p) for group in groups for module in group for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in net.parameters())
    backbone = {id(p) for p in net.backbone.parameters()}
    assert {id(p) for g in groups[:2] for m in g for p in m.parameters()} == backbone


def target(*boxes, labels=None):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.long),
    }


ANCHOR = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])


def output(logits, offsets=None, **options) -> AnchorOutput:
    logits = torch.tensor(logits, dtype=torch.float32)
    offsets = torch.zeros(*logits.shape[:2], 4) if offsets is None else offsets
    return AnchorOutput(logits, offsets, [ANCHOR], (45, 45), LossOptions(**options))


def test_losses_by_hand():
    logits = [[[2.0, -1.0], [0.5, -3.0], [-4.0, -4.0]]]
    losses = output(logits).losses([target([0, 0, 10, 10])])
    bce = functional.binary_cross_entropy_with_logits
    truth = torch.zeros(1, 3, 2)
    truth[0, 0, 0] = 1
    # One positive; both negatives are among the hardest that count.
    assert losses["class_loss"] == pytest.approx(
        bce(torch.tensor(logits), truth, reduction="sum").item()
    )
    assert losses["location_loss"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss"] == losses["class_loss"] + losses["location_loss"]


def test_only_the_hardest_negatives_count():
    count = 200
    anchors = torch.arange(count).float()[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    logits = torch.full((1, count, 1), -5.0)
    logits[0, 100:140] = 2.0
    out = AnchorOutput(logits, torch.zeros(1, count, 4), [anchors], (4000, 4000), LossOptions())
    for boxes, expected in (
        ([], LEAST_NEGATIVES),
        (anchors[:10].tolist(), NEGATIVES * 10),
    ):
        losses = out.losses([target(*boxes)])
        positive = len(boxes) * functional.softplus(torch.tensor(5.0))
        hardest = expected * functional.softplus(torch.tensor(2.0))
        total = (positive + hardest) / max(1, len(boxes))
        assert losses["class_loss"].item() == pytest.approx(total.item(), rel=1e-4)


def test_the_location_share_weighs_the_parts():
    logits = [[[2.0], [0.5], [-4.0]]]
    offsets = torch.full((1, 3, 4), 0.7)
    parts = output(logits, offsets).losses([target([0, 0, 10, 10])])
    shared = output(logits, offsets, location_share=0.8).losses([target([0, 0, 10, 10])])
    expected = 0.2 * parts["class_loss"] + 0.8 * parts["location_loss"]
    assert shared["loss"].item() == pytest.approx(expected.item())


def test_focal_loss_forgives_what_is_easy():
    easy = output([[[6.0], [-6.0], [-6.0]]], focal=True).losses([target([0, 0, 10, 10])])
    hard = output([[[-6.0], [6.0], [-6.0]]], focal=True).losses([target([0, 0, 10, 10])])
    assert easy["class_loss"] < 1e-5
    assert hard["class_loss"] > 1


def test_losses_of_an_image_without_objects_are_finite_and_have_gradients():
    net = make().train()
    losses = net(torch.randn(2, 3, 64, 64)).losses([target(), target()])
    assert losses["location_loss"] == 0
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_decoding_gives_the_best_class_of_each_anchor_inside_the_image():
    logits = [[[2.0, -1.0], [-5.0, -5.0], [0.0, 1.0]]]
    ((boxes, scores, labels),) = output(logits).decode(0.5)
    assert boxes.tolist() == [[0, 0, 10, 10], [40, 40, 45, 45]]
    assert scores.tolist() == pytest.approx([0.8808, 0.7311], abs=1e-4)
    assert labels.tolist() == [1, 2]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("focal", [False, True])
def test_it_learns_where_a_bright_square_is(version, focal):
    torch.manual_seed(0)
    layout = AnchorLayout((8,), (2.0,), ((1.0, 1.0),))
    net = make(version, layout=layout, classes=1, losses=LossOptions(focal=focal)).train()
    x = torch.zeros(4, 3, 64, 64)
    targets = []
    for i, (left, top) in enumerate([(4, 4), (30, 10), (12, 40), (42, 36)]):
        x[i, :, top : top + 16, left : left + 16] = 2
        targets.append(target([left, top, left + 16, top + 16]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(25):
        loss = net(x).losses(targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (boxes, scores, _), truth in zip(net(x).decode(0.0), targets, strict=True):
        best = boxes[scores.argmax()]
        assert (best - truth["boxes"][0]).abs().max() < 6


def test_it_survives_pickling():
    net = make().eval()
    x = torch.randn(1, 3, 64, 64)
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(net(x).logits, again(x).logits)
