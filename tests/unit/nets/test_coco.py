"""Weights of COCO: which of our layers they reach, where they are looked for, and offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from geodl.base.errors import OfflineWarning, OptionError
from geodl.base.models import MODELS
from geodl.data.prepare import prepare_data
from geodl.models.region_options import region_options
from geodl.nets.backbones import Backbone
from geodl.nets.coco import FASTER_RCNN, MASK_RCNN, RETINA_NET, fitting, renamed
from geodl.nets.masks import MaskRegionNet
from geodl.nets.regions import RegionNet
from geodl.nets.retina import RetinaPyramidNet
from geodl.nets.weights import fetch

OPTIONS = {"rpn_post_nms_top_n_test": 20, "rpn_pre_nms_top_n_test": 50}
# Anchors of torchvision's own, so that boxes can be compared.
SCALES, RATIOS = [1.0, 2 ** (1 / 3), 2 ** (2 / 3)], [0.5, 1.0, 2.0]

BOXES = {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}
OF_CLASSES = {
    FASTER_RCNN: BOXES,
    MASK_RCNN: {*BOXES, "roi_heads.mask_predictor.mask_fcn_logits"},
    RETINA_NET: {"head.classification_head.cls_logits"},
}


def ours(name: str, bands: int = 3) -> nn.Module:
    body = Backbone("resnet50", bands)
    if name == RETINA_NET:
        return RetinaPyramidNet(body, 2, SCALES, RATIOS, plain=True)
    made = MaskRegionNet if name == MASK_RCNN else RegionNet
    return made(body, 2, 32.0, region_options(OPTIONS), deep=True)


def theirs(name: str) -> nn.Module:
    more = {} if name == RETINA_NET else OPTIONS
    return get_model(name, weights=None, weights_backbone=None, num_classes=3, **more)


@pytest.mark.parametrize("name", [FASTER_RCNN, MASK_RCNN, RETINA_NET])
def test_all_layers_but_those_of_classes_are_reached(name: str) -> None:
    with torch.device("meta"):
        own, state = ours(name).state_dict(), theirs(name).state_dict()
        assert set(state) == {
            key.removeprefix("detector.").replace(".body.body.", ".body.") for key in own
        }
        missed = set(own) - set(fitting(own, renamed(state)))
        assert {key.removeprefix("detector.").rpartition(".")[0] for key in missed} == OF_CLASSES[
            name
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [FASTER_RCNN, MASK_RCNN])
def test_with_its_weights_our_boxes_are_those_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    net, bare = ours(name).eval(), theirs(name).eval()
    net.load_state_dict(fitting(net.state_dict(), renamed(bare.state_dict())), strict=False)
    for part in ("box_predictor", "mask_predictor"):
        if getattr(bare.roi_heads, part, None) is not None:
            state = getattr(bare.roi_heads, part).state_dict()
            getattr(net.detector.roi_heads, part).load_state_dict(state)
    # Its transform then leaves pixels as they are.
    bare.transform.min_size, bare.transform.max_size = (64,), 64
    bare.transform.image_mean, bare.transform.image_std = [0.0] * 3, [1.0] * 3
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, (boxes, scores, labels) = bare([x[0]])[0], net(x).decode(0.0)[0]
    assert len(boxes) > 2
    assert torch.allclose(boxes, expected["boxes"], atol=1e-3)
    assert torch.allclose(scores, expected["scores"], atol=1e-5)
    assert torch.equal(labels, expected["labels"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder as ``geodl weights fetch`` fills it, with the first filters only."""
    place = tmp_path / "weights"
    (place / "torch" / "checkpoints").mkdir(parents=True)
    for name in (FASTER_RCNN, RETINA_NET):
        file = get_model_weights(name)["COCO_V1"].url.rpartition("/")[2]
        filters = {"backbone.body.conv1.weight": torch.full((64, 3, 7, 7), 0.5)}
        torch.save(filters, place / "torch" / "checkpoints" / file)
    monkeypatch.setenv("GEODL_WEIGHTS", str(place))
    return place


@pytest.fixture
def data(box_chips: Path, tmp_path: Path) -> Any:
    return prepare_data(box_chips, chip_size=64, batch_size=4, working_dir=tmp_path / "work")


def test_a_detector_starts_from_the_folder_of_weights_frozen(data: Any, folder: Path) -> None:
    model = MODELS["RetinaNet"](data, coco_weights=True)
    filters = model.net.backbone.body.conv1.weight
    assert (filters == 0.5).all()
    assert not filters.requires_grad
    assert model.parameters["coco_weights"] is True
    assert fetch([FASTER_RCNN], folder) == [FASTER_RCNN]


def test_other_bands_take_them_over(folder: Path) -> None:
    with torch.device("meta"):
        own = ours(RETINA_NET, bands=6).state_dict()
    given = {"backbone.body.conv1.weight": torch.full((64, 3, 7, 7), 0.5)}
    (filters,) = fitting(own, renamed(given)).values()
    assert filters.shape == (64, 6, 7, 7)
    assert (filters == 0.25).all()


def test_offline_all_is_random_trainable_and_said(data: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("GEODL_WEIGHTS", raising=False)
    with pytest.warns(OfflineWarning, match="geodl weights fetch"):
        model = MODELS["FasterRCNN"](data, coco_weights=True, box_detections_per_img=5)
    assert all(p.requires_grad for p in model.net.parameters())
    # Its package knows the deeper heads.
    assert "coco_weights" in model.parameters


@pytest.mark.parametrize("name", ["FasterRCNN", "RetinaNet"])
def test_another_backbone_has_no_such_weights(name: str, data: Any) -> None:
    with pytest.raises(OptionError, match="resnet50"):
        MODELS[name](data, backbone="resnet18", coco_weights=True)


def test_damaged_weights_are_as_good_as_none(data: Any, folder: Path) -> None:
    for file in (folder / "torch" / "checkpoints").iterdir():
        file.write_bytes(b"no weights at all")
    with pytest.warns(OfflineWarning):
        MODELS["RetinaNet"](data, coco_weights=True)
