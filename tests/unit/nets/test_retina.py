from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from geodl.nets.backbones import Backbone
from geodl.nets.retina import RetinaPyramidNet

# A whole number of the coarsest cells: torchvision's own strides are wrong elsewhere.
SIDE = 128


def bare_net() -> RetinaNet:
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    pyramid = BackboneWithFPN(
        resnet18(weights=None), layers, [128, 256, 512], 256, LastLevelP6P7(512, 256),
        norm_layer=nn.BatchNorm2d,
    )  # fmt: skip
    anchors = AnchorGenerator(
        tuple((16 * 2**i, 24 * 2**i) for i in range(5)), ((0.5, 1.0, 2.0),) * 5
    )
    head = RetinaNetHead(256, 6, 2, norm_layer=partial(nn.GroupNorm, 32))
    head.regression_head._loss_type = "giou"
    return RetinaNet(
        pyramid, 2, min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3, image_std=[1.0] * 3,
        anchor_generator=anchors, head=head, score_thresh=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[RetinaPyramidNet, RetinaNet]:
    torch.manual_seed(0)
    ours, bare = RetinaPyramidNet(Backbone("resnet18", 3), 2, [0.5, 0.75], [0.5, 1, 2]), bare_net()
    # Spread the scores, which all start at one in a hundred.
    nn.init.normal_(ours.detector.head.classification_head.cls_logits.weight, std=0.1)
    bare.load_state_dict(
        {
            key.removeprefix("detector.").replace("backbone.body.body.", "backbone.body."): value
            for key, value in ours.state_dict().items()
        }
    )
    return ours, bare


def batch() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(3)
    boxes = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 30.0, 70.0, 60.0]])
    return torch.randn(2, 3, SIDE, SIDE), [
        {"boxes": boxes, "labels": torch.tensor([1, 2])},
        {"boxes": boxes[:1] + 5, "labels": torch.tensor([2])},
    ]


def test_losses_are_those_of_bare_torchvision_with_the_same_weights(pair) -> None:
    ours, bare = (net.train() for net in pair)
    x, targets = batch()
    # Its classes count from 0.
    expected = bare(list(x), [{**t, "labels": t["labels"] - 1} for t in targets])
    found = ours(x).losses(targets)
    assert set(found) == {*expected, "loss"}
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_boxes_are_those_of_bare_torchvision_with_the_same_weights(pair) -> None:
    ours, bare = (net.eval() for net in pair)
    x, _ = batch()
    with torch.inference_mode():
        expected, found = bare(list(x)), ours(x).decode(0.0)
    for one, (boxes, scores, labels) in zip(expected, found, strict=True):
        solid = (one["boxes"][:, 2:] > one["boxes"][:, :2]).all(dim=1)
        assert len(boxes) == solid.sum() > 30
        assert torch.allclose(boxes, one["boxes"][solid], atol=1e-4)
        assert torch.allclose(scores, one["scores"][solid], atol=1e-6)
        assert torch.equal(labels, one["labels"][solid] + 1)


def test_a_threshold_leaves_the_better_boxes(pair) -> None:
    net = pair[0].eval()
    x, _ = batch()
    with torch.inference_mode():
        every = net(x).decode(0.0)[0]
        least = float(every[1].median())
        few, none = net(x).decode(least)[0], net(x).decode(1.0)[0]
    kept = every[1] >= least
    assert 0 < kept.sum() < len(kept)
    assert torch.equal(few[0][: kept.sum()], every[0][kept])
    assert [len(part) for part in none] == [0, 0, 0]


def test_a_batch_without_boxes_teaches_background(pair) -> None:
    net = pair[0].train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = net(batch()[0]).losses([empty, empty])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert losses["bbox_regression"] == 0
    assert losses["classification"] > 0
    net.zero_grad()
