from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList

from geodl.models.region_options import region_options
from geodl.nets.backbones import Backbone
from geodl.nets.regions import RegionNet, StridedAnchors, octave_sizes

SIDE = 64
FEW = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_post_nms_top_n_train": 40,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_batch_size_per_image": 16,
}


def pyramid_resnet() -> BackboneWithFPN:
    """torchvision's own ResNet with its own pyramid."""
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    return BackboneWithFPN(
        resnet18(weights=None), layers, [64, 128, 256, 512], 256, norm_layer=nn.BatchNorm2d
    )


def as_bare(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights by torchvision's names."""
    return {
        key.removeprefix("detector.").replace("backbone.body.body.", "backbone.body."): value
        for key, value in state.items()
    }


def batch() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(3)
    x = torch.randn(2, 3, SIDE, SIDE)
    boxes = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 30.0, 60.0, 50.0]])
    return x, [
        {"boxes": boxes, "labels": torch.tensor([1, 2])},
        {"boxes": boxes[:1] + 5, "labels": torch.tensor([2])},
    ]


@pytest.fixture(scope="module")
def pair() -> tuple[RegionNet, FasterRCNN]:
    torch.manual_seed(0)
    ours = RegionNet(Backbone("resnet18", 3), 2, 8.0, region_options(FEW))
    bare = FasterRCNN(
        pyramid_resnet(), num_classes=3, min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3,
        image_std=[1.0] * 3, rpn_anchor_generator=AnchorGenerator(
            ((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5
        ), **FEW,
    )  # fmt: skip
    bare.load_state_dict(as_bare(ours.state_dict()))
    return ours, bare


def test_losses_are_those_of_bare_torchvision_with_the_same_weights(pair) -> None:
    ours, bare = (net.train() for net in pair)
    x, targets = batch()
    torch.manual_seed(7)
    expected = bare(list(x), [dict(t) for t in targets])
    torch.manual_seed(7)
    # Its transform draws a size for each image, of the one that was given.
    for _ in x:
        torch.empty(1).uniform_()
    found = ours(x).losses(targets)
    assert set(found) == {*expected, "loss"}
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert found["loss"].item() == pytest.approx(float(sum(expected.values()).detach()), rel=1e-6)


def test_boxes_are_those_of_bare_torchvision_with_the_same_weights(pair) -> None:
    ours, bare = (net.eval() for net in pair)
    x, _ = batch()
    with torch.inference_mode():
        expected = bare(list(x))
        found = ours(x).decode(0.0)
    for one, (boxes, scores, labels) in zip(expected, found, strict=True):
        assert len(boxes) > 3
        assert torch.allclose(boxes, one["boxes"], atol=1e-4)
        assert torch.allclose(scores, one["scores"], atol=1e-6)
        assert torch.equal(labels, one["labels"])


def test_losses_of_validation_repeat_and_leave_the_users_random_state(pair) -> None:
    net = pair[0].eval()
    x, targets = batch()
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = (net(x).losses(targets)["loss"] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not net.detector.rpn.training


def test_a_batch_without_boxes_teaches_background(pair) -> None:
    net = pair[0].train()
    x, _ = batch()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = net(x).losses([empty, empty])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert losses["loss_rpn_box_reg"] == losses["loss_box_reg"] == 0
    assert losses["loss_classifier"] > 0
    net.zero_grad()


def test_half_precision_ends_before_coordinates(pair) -> None:
    net = pair[0].eval()
    x, targets = batch()
    with torch.no_grad():
        exact = net(x).losses(targets)["loss"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = net(x)
        # The engine asks for losses after the mixed-precision part has ended.
        rough = output.losses(targets)["loss"]
        boxes, scores, _ = output.decode(0.0)[0]
    assert output.maps[0].dtype == torch.bfloat16
    assert boxes.dtype == scores.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_anchors_lie_on_the_strides_for_any_size() -> None:
    anchors = StridedAnchors((4, 8), octave_sizes(8.0, 2))
    images = ImageList(torch.zeros(1, 3, 24, 28), [(21, 25)])
    found = anchors(images, [torch.zeros(1, 1, 6, 7), torch.zeros(1, 1, 3, 4)])[0]
    centres = ((found[:, :2] + found[:, 2:]) / 2).reshape(-1, 3, 2)[:, 1]
    assert len(centres) == 6 * 7 + 3 * 4
    assert centres[7 * 6 - 1].tolist() == [24, 20]
    assert centres[-1].tolist() == [24, 16]
    sides = (found[:, 2:] - found[:, :2]).prod(dim=1).sqrt()
    assert sides[: 6 * 7 * 3].mean() == pytest.approx(8, abs=0.5)
    assert sides[6 * 7 * 3 :].mean() == pytest.approx(16, abs=1)


def test_odd_sizes_keep_boxes_inside_the_image(pair) -> None:
    with torch.inference_mode():
        for boxes, _, _ in pair[0].eval()(torch.randn(2, 3, 51, 77)).decode(0.0):
            assert len(boxes)
            assert boxes.min() >= 0
            assert (boxes <= torch.tensor([77.0, 51.0, 77.0, 51.0])).all()
