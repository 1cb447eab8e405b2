"""RT-DETR v2 from the weights of its authors: every layer finds its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.base.models import MODELS
from geodl.base.packages import require
from geodl.data.prepare import prepare_data
from geodl.models.query_detector import REAL_TIME_DEFAULTS
from geodl.nets.backbones import Backbone
from geodl.nets.coco import fitting
from geodl.nets.coco_queries import (
    FIRST_FILTERS,
    OF_CLASSES,
    RT_DETR_BACKBONE,
    for_normalized,
    renamed,
)
from geodl.nets.queries import QueryNet, rt_detr


def ours(classes: int) -> QueryNet:
    body = Backbone(RT_DETR_BACKBONE, 3)
    return QueryNet(body, rt_detr(body, classes, REAL_TIME_DEFAULTS))


def theirs(classes: int) -> Any:
    package = require("transformers", "transformers")
    return package.RTDetrV2ForObjectDetection(package.RTDetrV2Config(num_labels=classes))


def test_all_layers_but_those_of_classes_are_reached() -> None:
    with torch.device("meta"):
        own, state = ours(2).state_dict(), theirs(80).state_dict()
        missed = set(own) - set(fitting(own, renamed(state)))
    # Frozen batch norms count nothing.
    missed = {name for name in missed if not name.endswith("num_batches_tracked")}
    assert missed
    assert all(any(part in name for part in OF_CLASSES) for name in missed)


@pytest.mark.slow
def test_with_its_weights_our_answers_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    net, bare = ours(2).eval(), theirs(2).eval()
    net.load_state_dict(renamed(bare.state_dict()), strict=False)
    x = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        expected, answer = bare(pixel_values=x), net.answer(x, [])
    assert torch.allclose(answer["logits"], expected.logits, atol=1e-4)
    assert torch.allclose(answer["pred_boxes"], expected.pred_boxes, atol=1e-4)


def test_normalised_images_give_what_plain_ones_gave() -> None:
    """Away from the edge, where the network sees other zeros."""
    torch.manual_seed(0)
    stem, norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8).eval()
    nn.init.normal_(norm.running_mean)
    prefix = FIRST_FILTERS.removesuffix("0.weight")
    state = {FIRST_FILTERS: stem.weight.detach(), f"{prefix}1.running_mean": norm.running_mean}
    x = torch.rand(1, 3, 9, 9)
    mean, std = (
        torch.tensor(part)[:, None, None] for part in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    with torch.no_grad():
        expected = norm(stem(x))
        new = for_normalized(state)
        stem.weight.copy_(new[FIRST_FILTERS])
        norm.running_mean.copy_(new[f"{prefix}1.running_mean"])
        found = norm(stem((x - mean) / std))
    assert torch.allclose(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5)


def test_only_its_own_backbone_has_such_weights(box_chips: Path, tmp_path: Path) -> None:
    data = prepare_data(box_chips, chip_size=64, batch_size=4, working_dir=tmp_path)
    with pytest.raises(OptionError, match="resnet50d"):
        MODELS["RTDetrV2"](data, coco_weights=True)
    with pytest.raises(UnknownOptionError, match="coco_weights"):
        MODELS["DFine"](data, coco_weights=True)
