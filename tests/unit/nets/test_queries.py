"""Detectors with queries: losses and boxes against transformers' own, padding, starting weights."""

import pytest
import torch
from torch import nn

from geodl.base.packages import require
from geodl.nets.backbones import Backbone
from geodl.nets.queries import (
    QueryNet,
    QueryOutput,
    _centres,
    _keep,
    as_labels,
    cells,
    corners,
    d_fine,
    deformable_detr,
    rt_detr,
)
from geodl.nets.region_queries import RegionQueryNet

FEW = {
    "num_queries": 12, "width": 64, "encoder_layers": 1, "decoder_layers": 2,
    "denoising_queries": 6,
}  # fmt: skip
MAKERS = {"deformable": deformable_detr, "rt": rt_detr, "fine": d_fine}
TARGETS = [
    {"boxes": torch.tensor([[3.0, 4, 20, 30], [30, 30, 50, 60]]), "labels": torch.tensor([1, 3])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]


@pytest.fixture(scope="module")
def nets():
    found = {}
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        body = Backbone("resnet18", 3)
        found[name] = QueryNet(body, make(body, 3, FEW)).eval()
    return found


def image(side=64):
    return torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(MAKERS))
def test_losses_and_answers_are_those_of_transformers(nets, name):
    net = nets[name]
    x = image()
    with torch.inference_mode():
        output = net(x)
        ours = output.losses(TARGETS)
        net.detr.loss_function = net.criterion
        try:
            theirs = net.detr(pixel_values=x, labels=as_labels(TARGETS, x))
        finally:
            net.detr.loss_function = _keep
    assert torch.allclose(output.logits, theirs.logits)
    assert torch.allclose(output.boxes, theirs.pred_boxes)
    assert float(ours["loss"]) == pytest.approx(float(theirs.loss), rel=1e-5)


@pytest.mark.parametrize("name", list(MAKERS))
def test_training_reaches_every_weight_also_without_objects(nets, name):
    net = nets[name].train()
    try:
        for targets in (TARGETS, TARGETS[1:] * 2):
            net.zero_grad(set_to_none=True)
            losses = net(image()).losses(targets)
            losses["loss"].backward()
            assert torch.isfinite(losses["loss"])
            if targets is TARGETS:
                lost = {n for n, p in net.named_parameters() if p.grad is None}
                # Constants that D-FINE holds as parameters.
                assert lost <= {"detr.model.decoder.reg_scale", "detr.model.decoder.up"}
    finally:
        net.eval()
    with pytest.raises(RuntimeError, match="eval"):
        net.train()(image()).decode(0.5)
    net.eval()


def test_right_answers_cost_nothing_and_wrong_ones_do(nets):
    net = nets["deformable"]
    x = image()
    labels = as_labels(TARGETS[:1], x)
    boxes = torch.rand((1, 12, 4), generator=torch.Generator().manual_seed(2)) * 0.2 + 0.4
    logits = torch.full((1, 12, 3), -20.0)
    for query, (box, label) in enumerate(
        zip(labels[0]["boxes"], labels[0]["class_labels"], strict=True)
    ):
        boxes[0, query], logits[0, query, label] = box, 20.0
    answer = {
        "logits": logits, "pred_boxes": boxes, "outputs_class": logits[None].repeat(2, 1, 1, 1),
        "outputs_coord": boxes[None].repeat(2, 1, 1, 1),
    }  # fmt: skip
    right = net.losses_of(answer, labels, x)
    assert float(right["loss"]) == pytest.approx(0.0, abs=1e-4)
    wrong = net.losses_of({**answer, "logits": -logits}, labels, x)
    assert float(wrong["loss"]) > 1


def test_boxes_come_in_pixels_of_the_image_that_was_padded():
    answer = {
        "logits": torch.tensor([[[4.0, -4.0], [-9.0, 1.0], [-9.0, -9.0], [5.0, 0.0]]]),
        "pred_boxes": torch.tensor(
            [[[0.5, 0.25, 0.5, 0.25], [0.9, 0.5, 0.4, 0.5], [0.5, 0.5, 0.2, 0.2],
              [0.97, 0.97, 0.01, 0.01]]]
        ),
    }  # fmt: skip
    output = QueryOutput(answer, lambda _: {}, (77, 70), (96, 96))
    boxes, scores, labels = output.decode(0.5)[0]
    # The last lies in the padding.
    assert boxes.tolist() == [[24.0, 12.0, 70.0, 36.0], [pytest.approx(67.2), 24.0, 70.0, 72.0]]
    assert labels.tolist() == [1, 2]
    assert torch.allclose(scores, torch.tensor([4.0, 1.0]).sigmoid())


def test_labels_and_corners_undo_each_other():
    x = torch.zeros((2, 3, 64, 128))
    labels = as_labels(TARGETS, x)
    back = corners(labels[0]["boxes"]) * torch.tensor([128.0, 64, 128, 64])
    assert torch.allclose(back, TARGETS[0]["boxes"])
    assert labels[0]["class_labels"].tolist() == [0, 2]
    assert labels[1]["boxes"].shape == (0, 4)


@pytest.mark.parametrize("name", list(MAKERS))
def test_odd_sizes_run_and_boxes_stay_inside(nets, name):
    with torch.inference_mode():
        found = nets[name](image(77)).decode(0.0)
    for boxes, scores, labels in found:
        assert len(boxes) == len(scores) == len(labels)
        assert (boxes >= 0).all()
        assert (boxes <= 77).all()


def test_weights_start_so_that_training_can(nets):
    for net in nets.values():
        own = net.detr.model
        new = [part for part in own.children() if part is not own.backbone]
        norms = [m for part in new for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(bool((norm.weight > 0.5).any()) for norm in norms)
        scores = net(image()).logits.detach().sigmoid()
        assert float(scores.mean()) < 0.05
        heads = own.decoder.bbox_embed
        assert heads[0].layers[0].weight is not heads[1].layers[0].weight
    deformable = nets["deformable"].detr
    assert deformable.bbox_embed is deformable.model.decoder.bbox_embed


def test_centres_of_places_are_those_of_transformers():
    encoder = require("transformers.models.deformable_detr.modeling_deformable_detr", "x")
    shapes, ratios = [(5, 7), (3, 4)], torch.ones(2, 2, 2)
    theirs = encoder.DeformableDetrEncoder.get_reference_points(shapes, ratios, "cpu")
    assert torch.equal(_centres(shapes, ratios, "cpu"), theirs)


def test_places_of_a_tile():
    assert cells(64) == 64 + 16 + 4
    assert cells(70) == cells(96) == 144 + 36 + 9


def test_region_queries_learn_what_the_backbone_sees_in_a_region():
    torch.manual_seed(0)
    body = Backbone("resnet18", 3).requires_grad_(False)
    net = RegionQueryNet(body, deformable_detr(body, 1, FEW))
    net.train()
    body.eval()
    targets = [{**t, "labels": torch.ones_like(t["labels"])} for t in TARGETS]
    losses = net(image()).losses(targets)
    losses["loss"].backward()
    assert float(losses["loss_embedding"].detach()) > 0
    assert all(p.grad is not None for p in net.embedding.parameters())
    assert all(p.grad is None for p in body.parameters())
    assert not body.training
    empty = net(image()).losses(targets[1:] * 2)
    assert torch.isfinite(empty["loss"])
    seen = net._encoded(image(), [as_labels(targets, image())[0]["boxes"]] * 2)
    assert seen.shape == (4, 512)
    assert not torch.allclose(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])
