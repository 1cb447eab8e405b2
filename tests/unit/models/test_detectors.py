"""What all detectors with a row here hold beyond the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geodl.base.errors import (
    BundleError,
    ModelDataError,
    NotSupportedError,
    OptionError,
    UnknownOptionError,
)
from geodl.base.models import MODELS
from geodl.core.contract import Normalization
from geodl.data.prepare import prepare_data
from geodl.models.object_sizes import finest_anchor_px
from geodl.models.region_options import REGION_DEFAULTS
from geodl.testing.tiny import random_model
from geodl.tools.detect_objects import detect_objects

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

BACKBONE = "timm:mobilenetv3_small_050"
REGIONS = {
    **REGION_DEFAULTS, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 5,
    "finest_anchor_px": 8.0,
}  # fmt: skip
# Parameters that ``build`` takes, and the documented arguments of the constructor.
BUILT: dict[str, dict[str, Any]] = {
    "FasterRCNN": {"backbone": BACKBONE, **REGIONS},
    "RetinaNet": {"backbone": BACKBONE, "scales": [0.5, 0.7], "ratios": [1.0]},
    "YOLOv3": {"backbone": BACKBONE, "anchors": [[8 + 4 * i, 9 + 3 * i] for i in range(9)]},
    "EfficientDet": {"backbone": "efficientdet_lite0", "anchor_scale": 1.0},
}
GIVEN: dict[str, dict[str, Any]] = {
    "FasterRCNN": {"backbone": BACKBONE},
    "RetinaNet": {"backbone": BACKBONE},
    "YOLOv3": {},
    "EfficientDet": {},
}


@pytest.fixture
def boxes(box_chips: Path, tmp_path: Path) -> Any:
    return prepare_data(box_chips, chip_size=64, batch_size=4, working_dir=tmp_path / "work")


@pytest.fixture(params=sorted(BUILT))
def package(request: Any, tmp_path: Path) -> Path:
    return random_model(tmp_path / "m", request.param, "objects", BUILT[request.param])


def test_a_raster_becomes_features(package: Path, scene: Any, tmp_path: Path) -> None:
    found = detect_objects(
        scene.raster, package, {"threshold": 0.0, "nms_overlap": 0.5}, tmp_path / "f.parquet",
        progress=False,
    )  # fmt: skip
    assert set(found["Class"]) <= {"one", "two"}
    assert len(found)
    assert found["Confidence"].between(0, 100).all()
    assert found["Confidence"].is_monotonic_decreasing
    assert found.geometry.is_valid.all()


def test_predict_gives_boxes_names_and_scores(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)
    model = MODELS[_name(package)].from_model(package)
    found, labels, scores = model.predict(path, 0.0, 0.5, return_scores=True, resize=True)
    assert len(found) == len(labels) == len(scores) > 0
    assert set(labels) <= {"one", "two"}
    for x, y, width, height in found:
        assert -1e-4 <= x < x + width <= 96 + 1e-4
        assert -1e-4 <= y < y + height <= 80 + 1e-4
    two = model.predict(path, 0.0, 0.5, return_scores=False, resize=True)
    assert two == (found, labels)


def test_weights_for_another_band_count_are_refused(package: Path, tmp_path: Path) -> None:
    name = _name(package)
    zeros, ones = (0.0,) * 5, (1.0,) * 5
    stats = Normalization(minimum=zeros, maximum=ones, scaled_mean=zeros, scaled_std=ones)
    other = random_model(
        tmp_path / "other", name, "objects", BUILT[name], bands=5, normalization=stats
    )
    model = MODELS[name].from_model(package)
    with pytest.raises(BundleError, match=r"shape|size|fit"):
        model.load(other)


def _name(package: Path) -> str:
    import json

    return str(json.loads(next(package.glob("*.emd")).read_text())["ModelName"])


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_arguments_are_refused_by_name(name: str, boxes: Any, tile_chips: Path) -> None:
    model_class = MODELS[name]
    with pytest.raises(UnknownOptionError, match=r"pretrained_path|colour"):
        model_class(boxes, **GIVEN[name], colour=3)
    with pytest.raises(ModelDataError, match="PASCAL_VOC_rectangles"):
        model_class(prepare_data(tile_chips, chip_size=64, batch_size=4), **GIVEN[name])
    if "backbone" in GIVEN[name]:
        with pytest.raises(NotSupportedError, match="resnet50"):
            model_class(boxes, backbone="resnet5O")
        assert "resnet50" in model_class.backbones()
        assert "vgg16" not in model_class.backbones()
        assert "timm:swin_tiny_patch4_window7_224" in model_class.transformer_backbones()


def test_the_keywords_of_regions_are_followed(boxes: Any) -> None:
    model = MODELS["FasterRCNN"](
        boxes, backbone=BACKBONE, box_detections_per_img=3, rpn_nms_thresh=0.6, box_nms_thresh="0.4"
    )
    heads, regions = model.net.detector.roi_heads, model.net.detector.rpn
    assert heads.detections_per_img == 3
    assert regions.nms_thresh == 0.6
    assert heads.nms_thresh == 0.4
    assert regions.fg_bg_sampler.batch_size_per_image == 256
    assert model.parameters["finest_anchor_px"] == finest_anchor_px(boxes)
    assert model.supported_backbones == model.backbones()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rpn_nms_thresh": 1.5}, "rpn_nms_thresh"),
        ({"box_detections_per_img": 0}, "box_detections_per_img"),
        ({"rpn_fg_iou_thresh": 0.2}, "rpn_bg_iou_thresh"),
        ({"box_batch_size_per_image": "many"}, "box_batch_size_per_image"),
    ],
)
def test_keywords_outside_their_domain_are_refused(boxes: Any, options: Any, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        MODELS["FasterRCNN"](boxes, backbone=BACKBONE, **options)


def test_anchors_begin_at_small_objects(boxes: Any) -> None:
    assert 8 <= finest_anchor_px(boxes) <= 32
