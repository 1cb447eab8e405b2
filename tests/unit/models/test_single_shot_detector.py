from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodl.base.errors import (
    FormatError,
    ModelDataError,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.core.detections import Detections
from geodl.models.object_sizes import box_sizes
from geodl.models.single_shot_detector import SingleShotDetector
from geodl.ops.boxes import iou_matrix

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

SIDE = 64
COLOURS = {2: (220, 60, 60), 5: (60, 60, 220)}


def paint(rng: np.random.Generator, side: int, count: int):
    """Grey noise with squares of two colours, which do not overlap; boxes and class values."""
    image = rng.normal(110, 8, (side, side, 3))
    boxes: list[tuple[int, int, int, int]] = []
    values = []
    for place in rng.permutation((side // 32) ** 2)[:count]:
        row, col = divmod(int(place), side // 32)
        size = int(rng.integers(12, 20))
        top, left = (32 * k + int(rng.integers(2, 30 - size)) for k in (row, col))
        value = int(rng.choice(list(COLOURS)))
        image[top : top + size, left : left + size] = COLOURS[value]
        boxes.append((left, top, left + size, top + size))
        values.append(value)
    return image.clip(0, 255).astype(np.uint8), boxes, values


def write_export(folder: Path, chips: int = 12) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    counts = dict.fromkeys(COLOURS, 0)
    for i in range(chips):
        image, boxes, values = paint(rng, SIDE, 3)
        Image.fromarray(image).save(folder / f"images/{i:03d}.png")
        objects = "".join(
            f"<object><name>{v}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for (x0, y0, x1, y1), v in zip(boxes, values, strict=True)
        )
        (folder / f"labels/{i:03d}.xml").write_text(f"<annotation>{objects}</annotation>")
        for value in values:
            counts[value] += 1
    lines = (f"images\\{i:03d}.png  labels\\{i:03d}.xml" for i in range(chips))
    (folder / "map.txt").write_text("\n".join(lines) + "\n")
    mode = "PASCAL_VOC_rectangles"
    classes = [{"Value": 2, "Name": "roof", "Color": [220, 60, 60]}, {"Value": 5, "Name": "pool"}]
    emd = {"MetaDataMode": mode, "ImageSpaceUsed": "MAP_SPACE", "Classes": classes}
    stats = {
        "NumBands": 3, "TileSizeX": SIDE, "TileSizeY": SIDE, "NumClasses": 2, "NumTiles": chips,
        "MetaDataMode": mode, "FeatureStats": {"NumFeaturesPerClass": list(counts.values())},
        "Classes": [{"ClassValue": 2, "ClassName": "roof"}, {"ClassValue": 5, "ClassName": "pool"}],
    }  # fmt: skip
    (folder / "esri_model_definition.emd").write_text(json.dumps(emd))
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(stats))


@pytest.fixture(scope="session")
def object_export(make_once) -> Path:
    return make_once("object-export", lambda folder: write_export(folder / "export")) / "export"


@pytest.fixture
def objects(object_export, tmp_path):
    from geodl.data.prepare import prepare_data

    return prepare_data(
        object_export, chip_size=SIDE, batch_size=4, val_split_pct=0.34, transforms=False,
        working_dir=tmp_path / "work",
    )  # fmt: skip


def small(data, **options) -> SingleShotDetector:
    return SingleShotDetector(data, backbone="resnet18", **options)


@pytest.fixture(scope="session")
def trained(object_export, tmp_path_factory):
    from geodl.data.prepare import prepare_data

    data = prepare_data(
        object_export, chip_size=SIDE, batch_size=4, val_split_pct=0.34, transforms=False,
        working_dir=tmp_path_factory.mktemp("trained"),
    )  # fmt: skip
    model = small(data, focal_loss=True, drop=0.0)
    model.fit(10, lr=2e-3, checkpoint=False)
    return model


def test_it_learns_and_its_score_is_by_class_name(trained):
    scores = trained.average_precision_score(show_progress=False)
    assert set(scores) == {"roof", "pool"}
    mean = trained.average_precision_score(mean=True, show_progress=False)
    assert mean == pytest.approx(np.mean(list(scores.values())))
    assert mean > 0.6
    losses = trained.record.rows
    assert losses[-1]["train_loss"] < losses[0]["train_loss"]
    assert 0 <= losses[-1]["average_precision"] <= 1


def test_the_thresholds_of_the_score_matter(trained):
    strict = trained.average_precision_score(
        detect_thresh=0.999, iou_thresh=0.9, mean=True, show_progress=False
    )
    assert strict < trained.average_precision_score(mean=True, show_progress=False)
    with pytest.raises(OptionError, match="iou_thresh"):
        trained.average_precision_score(iou_thresh=7)


def test_predict_finds_each_square_of_a_larger_image_once(trained, tmp_path):
    image, boxes, values = paint(np.random.default_rng(9), 160, 12)
    path = tmp_path / "scene.png"
    Image.fromarray(image).save(path)
    found, labels, scores = trained.predict(path, threshold=0.1, return_scores=True)
    assert len(found) == len(labels) == len(scores)
    assert scores == sorted(scores, reverse=True)
    x, y, width, height = np.array(found).T
    overlap = iou_matrix(np.array(boxes, float), np.stack([x, y, x + width, y + height], axis=1))
    assert (overlap.max(axis=1) > 0.4).sum() >= 10
    assert ((overlap > 0.4).sum(axis=1) <= 1).all()
    names = {2: "roof", 5: "pool"}
    right = [names[v] == labels[k] for v, k in zip(values, overlap.argmax(axis=1), strict=True)]
    assert sum(right) >= 10
    again, _ = trained.predict(path, threshold=0.1, batch_size=5)
    assert np.allclose(again, found, atol=1e-2)


def test_predict_can_resize_the_whole_image(trained, object_export, tmp_path):
    chip = object_export / "images/000.png"
    large = tmp_path / "large.png"
    Image.open(chip).resize((2 * SIDE, 3 * SIDE)).save(large)
    plain, _ = trained.predict(chip, threshold=0.2, resize=True)
    found, _ = trained.predict(large, threshold=0.2, resize=True)
    assert len(plain) == len(found) > 0
    assert np.allclose(sorted(np.array(plain) * [2, 3, 2, 3], key=tuple)[0],
                       sorted(found, key=tuple)[0], atol=8)  # fmt: skip


def test_predict_keeps_to_an_image_smaller_than_a_chip(trained, tmp_path):
    image, *_ = paint(np.random.default_rng(1), 32, 1)
    Image.fromarray(image).save(tmp_path / "tiny.png")
    boxes, labels = trained.predict(tmp_path / "tiny.png", threshold=0.05, visualize=True)
    assert len(boxes) == len(labels)
    for x, y, width, height in boxes:
        assert 0 <= x <= x + width <= 32
        assert 0 <= y <= y + height <= 32


def test_predict_refuses_what_it_cannot_read(trained, tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.png"):
        trained.predict(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"bad\.png"):
        trained.predict(tmp_path / "bad.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(ModelDataError, match="1 band"):
        trained.predict(tmp_path / "grey.png")
    with pytest.raises(OptionError, match="threshold"):
        trained.predict(tmp_path / "grey.png", threshold=2)


def test_a_package_predicts_the_same_and_states_the_anchors(trained, object_export, tmp_path):
    folder = trained.save(tmp_path / "finder")
    emd = json.loads((folder / "finder.emd").read_text())
    assert emd["Grids"] == trained.parameters["grids"]
    assert emd["SSDVersion"] == 2
    scores = trained.average_precision_score(show_progress=False)
    assert set(scores) == {"roof", "pool"}
    assert emd["average_precision_score"] == pytest.approx(scores)
    assert emd["SupportsVariableTileSize"] is False
    chip = object_export / "images/001.png"
    expected = trained.predict(chip, threshold=0.1, return_scores=True)
    assert expected[0]
    for path in (folder, folder / "finder.dlpk"):
        again = SingleShotDetector.from_model(path)
        assert again.predict(chip, threshold=0.1, return_scores=True) == expected
    by_emd = SingleShotDetector.from_emd(trained.data, folder / "finder.emd")
    assert by_emd.average_precision_score(mean=True) == trained.average_precision_score(mean=True)
    with pytest.raises(ModelDataError, match="prepare_data"):
        SingleShotDetector.from_model(folder).average_precision_score()


def test_results_are_drawn_truth_beside_prediction(trained):
    figure = trained.show_results(rows=2, thresh=0.2, nms_overlap=0.3)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 4
    assert "truth" in titles[0]
    assert "prediction" in titles[1]


def test_given_grids_are_followed_and_missing_ones_chosen(objects):
    own = small(objects, grids=[9], zooms=[1.0], ratios=[[1.0, 1.0]])
    assert own.net.layout.grids == (9,)
    assert own.net.layout.per_cell == 1
    found = small(objects)
    assert found.parameters["grids"] == list(found.net.layout.grids)
    assert found.net.layout.grids == (8,)
    mixed = small(objects, zooms=[0.7, 1.4], ratios=[[1.0, 1.0], [1.0, 0.5]])
    assert mixed.net.layout.per_cell == 4


def test_box_sizes_are_those_of_the_labels(objects):
    state = torch.get_rng_state()
    sizes = box_sizes(objects)
    assert 12 <= sizes.min() <= sizes.max() <= 19
    assert torch.equal(state, torch.get_rng_state())


def test_offline_the_backbone_starts_trainable(objects):
    with pytest.warns(OfflineWarning):
        model = small(objects, ssd_version=1)
    assert all(p.requires_grad for p in model.net.parameters())
    assert model.net.neck.__class__.__name__ == "Identity"


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"backend": "tensorflow"}, NotSupportedError, "pytorch"),
        ({"backbone": "resnet19"}, NotSupportedError, "resnet18"),
        ({"grids": [0]}, OptionError, "grids"),
        ({"drop": 1.0}, OptionError, "drop"),
        ({"location_loss_factor": 1}, OptionError, "location_loss_factor"),
        ({"location_loss_factor": 1.5}, OptionError, "location_loss_factor"),
        ({"ssd_version": 3}, OptionError, "ssd_version"),
        ({"focal_loss": "perhaps"}, OptionError, "focal_loss"),
        ({"focal_los": True}, UnknownOptionError, "focal_loss"),
    ],
)
def test_wrong_arguments_are_refused_by_name(objects, options, error, word):
    with pytest.raises(error, match=word):
        SingleShotDetector(objects, **options)


def test_data_of_another_kind_is_refused(objects, data):
    with pytest.raises(ModelDataError, match="PASCAL_VOC_rectangles"):
        SingleShotDetector(data)
    with pytest.raises(OptionError, match="prepare_data"):
        SingleShotDetector("chips")


def test_lists(trained):
    assert trained.supported_datasets == [
        "PASCAL_VOC_rectangles", "KITTI_rectangles", "COCO_rectangles", "YOLO_rectangles",
    ]  # fmt: skip
    assert trained.available_metrics == ["train_loss", "valid_loss", "average_precision"]
    assert {"resnet34", "vgg16", "densenet121"} <= set(SingleShotDetector.backbones())
    assert trained.supported_backbones == SingleShotDetector.backbones()
    assert "timm:swin_tiny_patch4_window7_224" in SingleShotDetector.transformer_backbones()


def test_the_score_is_that_of_the_detections_that_detect_gives(trained):
    """The task's own boxes, scored by hand, give the reported number."""
    from geodl.ops.average_precision import average_precision

    truth, found = [], []
    for i in range(len(trained.data.valid_ds)):
        item = trained.data.valid_ds[i]
        x = item["image"][None].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            found += trained.task.detect(trained.net, x, threshold=0.2, nms_overlap=0.1)
        truth.append((item["target"]["boxes"].numpy(), item["target"]["labels"].numpy()))
    assert all(isinstance(part, Detections) for part in found)
    expected = average_precision(truth, found, 2, (0.1,))[:, 0]
    scores = trained.average_precision_score(show_progress=False)
    assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-6)
