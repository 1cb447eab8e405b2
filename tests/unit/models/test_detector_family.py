"""What holds for all nine detectors, each made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geodl.base.models import MODELS
from geodl.core.classes import ClassTable
from geodl.data.prepare import prepare_data
from geodl.models.region_options import REGION_DEFAULTS, region_options
from geodl.testing import make_chips

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

SMALL = {"backbone": "timm:mobilenetv3_small_050"}
FEW = {"num_queries": 12, "width": 64, "encoder_layers": 1, "decoder_layers": 1}
REGIONS = {
    "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 5, "rpn_pre_nms_top_n_train": 20,
    "rpn_post_nms_top_n_train": 5,
}  # fmt: skip
# Arguments of the constructor, each with the documented keywords.
GIVEN: dict[str, dict[str, Any]] = {
    "SingleShotDetector": {**SMALL, "grids": [8]},
    "FasterRCNN": {**SMALL, **REGIONS},
    "RetinaNet": {**SMALL, "scales": [0.5, 0.7], "ratios": [1.0]},
    "YOLOv3": {"backbone": "mobilenetv3_small_050"},
    "MaskRCNN": {**SMALL, **REGIONS},
    "EfficientDet": {},
    "DETReg": {**SMALL, **FEW},
    "RTDetrV2": {**SMALL, **FEW},
    "DFine": {**SMALL, **FEW},
}
NAMES = sorted(GIVEN)


@pytest.fixture(scope="module")
def data(box_chips: Path, make_once: Any, tmp_path_factory: Any) -> Any:
    """By the name of a detector: nine chips with what it learns from."""
    work = tmp_path_factory.mktemp("family")
    masks = make_once("mask-chips", lambda place: make_chips(place, "RCNN_Masks")) / "chips"

    def of(name: str) -> Any:
        chips = masks if name == "MaskRCNN" else box_chips
        return prepare_data(chips, chip_size=64, batch_size=4, working_dir=work)

    return of


def built(name: str, bands: int, parameters: dict[str, Any]) -> Any:
    """Network and task."""
    return MODELS[name].build(
        classes=ClassTable.from_mapping({1: "one", 2: "two"}), bands=bands, tile_px=64,
        parameters=parameters, pretrained=False, batch_size=4,
    )[:2]  # fmt: skip


@pytest.fixture(scope="module")
def model(data: Any) -> Any:
    """By the name of a detector: one whose backbone counts as loaded."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            model_class, build = MODELS[name], MODELS[name].build
            # Weights from elsewhere are not at hand; that they were loaded is what matters here.
            loaded = staticmethod(lambda **given: (*build(**given)[:2], True))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model_class, "build", loaded)
                made[name] = model_class(data(name), **GIVEN[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_backbone_is_frozen_until_it_is_asked_for(name: str, model: Any) -> None:
    net = model(name).net
    backbone = {id(p) for p in net.backbone.parameters()}
    for p in net.parameters():
        assert p.requires_grad == (id(p) not in backbone)
    model(name).unfreeze()
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_early_and_late_backbone_have_rates_of_their_own(name: str, model: Any) -> None:
    net = model(name).net
    early, late, new = ([id(p) for m in g for p in m.parameters()] for g in net.layer_groups())
    assert set(early) | set(late) == {id(p) for p in net.backbone.parameters()}
    assert early
    assert late
    assert len(early + late + new) == len({*early, *late, *new})
    assert {*early, *late, *new} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_boxes_teaches_with_finite_numbers(name: str, model: Any) -> None:
    net, task = model(name).net, model(name).task
    torch.manual_seed(0)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    if name == "MaskRCNN":
        empty["masks"] = torch.zeros(0, 64, 64, dtype=torch.bool)
    losses = task.loss(net.train(), {"image": torch.randn(2, 3, 64, 64), "target": [empty] * 2})
    losses["loss"].backward()
    assert all(torch.isfinite(part) for part in losses.values())
    assert losses["loss"] > 0
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    net.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_eight_bands_are_as_good_as_three(name: str, model: Any) -> None:
    torch.manual_seed(0)
    net, task = built(name, 8, dict(model(name).parameters))
    with torch.inference_mode():
        found = task.detect(net.eval(), torch.randn(1, 8, 64, 64), threshold=0.0, nms_overlap=0.9)
    assert len(found[0]) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_states_what_it_takes(name: str) -> None:
    model_class = MODELS[name]
    types = ["RCNN_Masks", "COCO_instances"] if name == "MaskRCNN" else [
        "PASCAL_VOC_rectangles", "KITTI_rectangles", "COCO_rectangles", "YOLO_rectangles",
    ]  # fmt: skip
    assert list(model_class.dataset_types) == types
    if name not in ("YOLOv3", "EfficientDet"):
        assert {"resnet18", "resnet50", "timm:darknet53"} <= set(model_class.backbones())
        assert "timm:swin_tiny_patch4_window7_224" in model_class.transformer_backbones()


# Where torchvision keeps each of the sixteen, and a value that no other has.
RPN_COUNTS = {"pre": "_pre_nms_top_n", "post": "_post_nms_top_n"}
PLACES: dict[str, tuple[float, Any]] = {
    **{
        f"rpn_{when}_nms_top_n_{phase}": (
            number,
            lambda rpn, heads, a=attribute, k=key: getattr(rpn, a)[k],
        )
        for number, (when, attribute, phase, key) in enumerate(
            (
                (when, attribute, phase, key)
                for when, attribute in RPN_COUNTS.items()
                for phase, key in (("train", "training"), ("test", "testing"))
            ),
            start=31,
        )
    },
    "rpn_nms_thresh": (0.61, lambda rpn, heads: rpn.nms_thresh),
    "rpn_fg_iou_thresh": (0.72, lambda rpn, heads: rpn.proposal_matcher.high_threshold),
    "rpn_bg_iou_thresh": (0.21, lambda rpn, heads: rpn.proposal_matcher.low_threshold),
    "rpn_batch_size_per_image": (41, lambda rpn, heads: rpn.fg_bg_sampler.batch_size_per_image),
    "rpn_positive_fraction": (0.42, lambda rpn, heads: rpn.fg_bg_sampler.positive_fraction),
    "box_score_thresh": (0.06, lambda rpn, heads: heads.score_thresh),
    "box_nms_thresh": (0.43, lambda rpn, heads: heads.nms_thresh),
    "box_detections_per_img": (44, lambda rpn, heads: heads.detections_per_img),
    "box_fg_iou_thresh": (0.55, lambda rpn, heads: heads.proposal_matcher.high_threshold),
    "box_bg_iou_thresh": (0.46, lambda rpn, heads: heads.proposal_matcher.low_threshold),
    "box_batch_size_per_image": (47, lambda rpn, heads: heads.fg_bg_sampler.batch_size_per_image),
    "box_positive_fraction": (0.28, lambda rpn, heads: heads.fg_bg_sampler.positive_fraction),
}


@pytest.mark.parametrize(
    ("name", "more"),
    [("FasterRCNN", {}), ("MaskRCNN", {"pointrend": False}), ("MaskRCNN", {"pointrend": True})],
)
def test_all_sixteen_keywords_of_regions_reach_the_network(name: str, more: Any) -> None:
    assert set(PLACES) == set(REGION_DEFAULTS)
    assert len(PLACES) == 16
    values = region_options({key: value for key, (value, _) in PLACES.items()})
    net, _ = built(name, 3, {**SMALL, **more, **values, "finest_anchor_px": 8.0})
    rpn, heads = net.detector.rpn, net.detector.roi_heads
    for key, (value, read) in PLACES.items():
        assert read(rpn, heads) == value, key


def test_scales_and_ratios_become_anchors() -> None:
    net, _ = built("RetinaNet", 3, {**SMALL, "scales": [0.5, 2.0], "ratios": [4.0]})
    # Of the finest level: sides of 16 and 64 px, four times as high as wide.
    cells = net.detector.anchor_generator.cell_anchors[0]
    assert cells.tolist() == [[-4, -16, 4, 16], [-16, -64, 16, 64]]
