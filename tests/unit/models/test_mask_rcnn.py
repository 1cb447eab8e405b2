from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geodl.base.errors import ModelDataError, OptionError, UnknownOptionError
from geodl.data.prepare import prepare_data
from geodl.models.mask_rcnn import MaskRCNN
from geodl.ops.average_precision import encode_masks, mask_precision
from geodl.testing import make_chips

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

FEW = {
    "rpn_pre_nms_top_n_train": 60, "rpn_post_nms_top_n_train": 20, "rpn_pre_nms_top_n_test": 20,
    "rpn_post_nms_top_n_test": 6, "box_batch_size_per_image": 8, "box_detections_per_img": 5,
}  # fmt: skip


@pytest.fixture(scope="session")
def mask_chips(make_once: Any) -> Path:
    return make_once("mask-chips", lambda place: make_chips(place, "RCNN_Masks")) / "chips"


@pytest.fixture(scope="session")
def trained(mask_chips: Path, tmp_path_factory: Any) -> MaskRCNN:
    data = prepare_data(
        mask_chips, chip_size=64, batch_size=4, transforms=False, val_split_pct=0.3,
        working_dir=tmp_path_factory.mktemp("masks"),
    )  # fmt: skip
    model = MaskRCNN(data, backbone="timm:mobilenetv3_small_050", **FEW)
    model.fit(1, 1e-3, checkpoint=False)
    return model


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_predict_has_the_documented_answer(trained: MaskRCNN, image: Path) -> None:
    boxes, labels, scores = trained.predict(image, 0.0, 0.5, resize=True, visualize=True)
    assert len(boxes) == len(labels) == len(scores) > 0
    assert set(labels) <= {"building", "tree"}
    large, *_ = trained.predict(image, 0.0, 0.5, resize=True, min_obj_size=20)
    assert len(large) < len(boxes)
    assert all(min(box[2:]) >= 20 for box in large)
    assert len(trained.predict(image, 0.0, return_scores=False, batch_size=2)) == 2
    more, *_ = trained.predict(image, 0.0, 0.5, resize=True, tta_prediction=True)
    assert more != boxes
    with pytest.raises(UnknownOptionError, match="min_obj_size"):
        trained.predict(image, min_object_size=3)


def test_the_score_is_that_of_the_masks_it_finds(trained: MaskRCNN) -> None:
    truth, found = [], []
    for i in range(len(trained.data.valid_ds)):
        item = trained.data.valid_ds[i]
        with torch.inference_mode():
            one = trained.task.instances(
                trained.net, item["image"][None], threshold=0.05, nms_overlap=0.1
            )[0]
        found.append((encode_masks(one.solid()), one.found))
        target = item["target"]
        truth.append((encode_masks(target["masks"].numpy()), target["labels"].numpy()))
    expected = mask_precision(truth, found, 2, (0.1,))[:, 0]
    scores = trained.average_precision_score(0.05, 0.1, show_progress=False)
    assert list(scores) == ["building", "tree"]
    assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-6, nan_ok=True)
    mean = trained.average_precision_score(0.05, 0.1, mean=True, tta_prediction=True)
    assert 0 <= mean <= 1


@pytest.mark.parametrize("mode", ["bbox", "mask", "bbox_mask"])
def test_results_are_drawn_in_three_ways(trained: MaskRCNN, mode: str) -> None:
    figure = trained.show_results(
        rows=1, mode=mode, box_threshold=0.0, imsize=2, index=1, alpha=1.0, cmap="Set1"
    )
    truth = figure.axes[0]
    item = trained.data.valid_ds[1]
    assert str(item["name"]) in truth.get_title()
    boxes = len(item["target"]["boxes"])
    assert len(truth.patches) == (0 if mode == "mask" else boxes)
    shown = np.asarray(truth.images[0].get_array())
    mask = item["target"]["masks"][-1].numpy()
    colours = np.unique(shown[mask].reshape(-1, 3), axis=0)
    assert (len(colours) == 1) == (mode != "bbox")


def test_wrong_arguments_are_refused_by_name(trained: MaskRCNN, box_chips: Path) -> None:
    data = trained.data
    with pytest.raises(OptionError, match="index"):
        trained.show_results(index=99)
    with pytest.raises(OptionError, match="mode"):
        trained.show_results(mode="polygons")
    with pytest.raises(UnknownOptionError, match="rpn_nms_thresh"):
        MaskRCNN(data, rpn_nms_tresh=0.5)
    with pytest.raises(OptionError, match="pointrend"):
        MaskRCNN(data, pointrend="perhaps")
    with pytest.raises(ModelDataError, match="RCNN_Masks"):
        MaskRCNN(prepare_data(box_chips, chip_size=64, batch_size=4))
    with pytest.raises(UnknownOptionError):
        MaskRCNN.from_model("nowhere", datas=1)


def test_a_package_states_its_options_and_answers_the_same(
    trained: MaskRCNN, image: Path, tmp_path: Path
) -> None:
    import json

    folder = trained.save(tmp_path / "masks")
    emd = json.loads((folder / "masks.emd").read_text())
    assert emd["ModelType"] == "InstanceDetection"
    assert emd["MaskRCNNkwargs"]["box_detections_per_img"] == 5
    expected = trained.predict(image, 0.0, resize=True)
    found = MaskRCNN.from_model(folder).predict(image, 0.0, resize=True)
    assert expected[1] == found[1]
    assert np.allclose(expected[0], found[0], atol=1e-3)
    assert MaskRCNN.from_model(folder).supported_datasets == ["RCNN_Masks", "COCO_instances"]
