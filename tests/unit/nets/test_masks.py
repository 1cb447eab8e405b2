from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from geodl.models.region_options import region_options
from geodl.nets.backbones import Backbone
from geodl.nets.masks import MaskRegionNet, PointMaskNet

SIDE = 64
FEW = {
    "rpn_pre_nms_top_n_train": 60,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 20,
    "rpn_post_nms_top_n_test": 5,
    "box_batch_size_per_image": 8,
    "box_detections_per_img": 4,
}


def batch() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(3)
    boxes = torch.tensor([[4.0, 6.0, 22.0, 20.0], [30.0, 30.0, 60.0, 50.0]])
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 6:20, 4:22] = masks[1, 30:50, 30:60] = True
    return torch.randn(2, 3, SIDE, SIDE), [
        {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks},
        {"boxes": boxes[:1], "labels": torch.tensor([2]), "masks": masks[:1]},
    ]


@pytest.fixture(scope="module")
def pair() -> tuple[MaskRegionNet, MaskRCNN]:
    torch.manual_seed(0)
    ours = MaskRegionNet(Backbone("resnet18", 3), 2, 8.0, region_options(FEW))
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    pyramid = BackboneWithFPN(
        resnet18(weights=None), layers, [64, 128, 256, 512], 256, norm_layer=nn.BatchNorm2d
    )
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5)
    bare = MaskRCNN(
        pyramid, num_classes=3, min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3,
        image_std=[1.0] * 3, rpn_anchor_generator=anchors, **FEW,
    )  # fmt: skip
    bare.load_state_dict(
        {
            key.removeprefix("detector.").replace("backbone.body.body.", "backbone.body."): value
            for key, value in ours.state_dict().items()
        }
    )
    return ours, bare


@pytest.fixture(scope="module")
def pointed() -> PointMaskNet:
    torch.manual_seed(0)
    return PointMaskNet(Backbone("timm:mobilenetv3_small_050", 3), 2, 8.0, region_options(FEW))


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
        assert torch.allclose(found[key], value, rtol=1e-5), key


def test_boxes_and_masks_are_those_of_bare_torchvision(pair) -> None:
    ours, bare = (net.eval() for net in pair)
    x, _ = batch()
    with torch.inference_mode():
        expected, found = bare(list(x)), ours(x).decode_masks(0.0)
    for one, (boxes, scores, labels, masks) in zip(expected, found, strict=True):
        assert len(boxes) > 1
        assert torch.allclose(boxes, one["boxes"], atol=1e-4)
        assert torch.allclose(scores, one["scores"], atol=1e-6)
        assert torch.equal(labels, one["labels"])
        assert masks.shape == (len(boxes), SIDE, SIDE)
        assert torch.allclose(masks, one["masks"][:, 0], atol=1e-5)


def test_points_learn_and_refine(pointed: PointMaskNet) -> None:
    x, targets = batch()
    losses = pointed.train()(x).losses(targets)
    assert {"loss_mask", "loss_point"} < set(losses)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pointed.points.parameters())
    pointed.zero_grad()
    with torch.inference_mode():
        output = pointed.eval()(x)
        assert output.found()[0]["masks"].shape[-1] == 112
        masks = output.decode_masks(0.0)[0][3]
    assert 0 <= masks.min() < masks.max() <= 1


def test_a_batch_without_objects_teaches_background(pointed: PointMaskNet) -> None:
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.long),
        "masks": torch.zeros(0, SIDE, SIDE, dtype=torch.bool),
    }
    losses = pointed.train()(batch()[0]).losses([empty, empty])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert losses["loss_mask"] == losses["loss_point"] == 0
    pointed.zero_grad()


def test_nothing_found_gives_no_masks(pointed: PointMaskNet) -> None:
    with torch.inference_mode():
        answers = pointed.eval()(batch()[0]).decode_masks(1.0)
    assert [masks.shape for *_, masks in answers] == [(0, SIDE, SIDE)] * 2
