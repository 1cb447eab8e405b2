"""What pixel models make of bad or odd chips: named, refused, or trained without a fault."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodl.base.errors import DataWarning, FormatError, ModelDataError, OfflineWarning
from geodl.base.models import MODELS
from geodl.data.prepare import prepare_data
from geodl.testing.datasets import change_folder, write_chips

RESNET = {"backbone": "resnet18"}
EVERY = {
    "UnetClassifier": RESNET,
    "PSPNetClassifier": RESNET,
    "DeepLab": RESNET,
    "HEDEdgeDetector": RESNET,
    "BDCNEdgeDetector": RESNET,
    "ConnectNet": {**RESNET, "mtl_model": "linknet"},
    "MultiTaskRoadExtractor": {},
}


def prepare(folder, chip_size=64, **options):
    return prepare_data(
        folder, chip_size=chip_size, batch_size=4, val_split_pct=0.34,
        working_dir=folder.parent / "work", transforms=False, **options,
    )  # fmt: skip


def make(name, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return MODELS[name](data, **options)


def relabel(folder, change):
    for path in (folder / "labels").iterdir():
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def as_tiff(folder, dtype):
    """The masks as TIFF of another dtype."""
    for path in (folder / "labels").iterdir():
        mask = np.array(Image.open(path))
        path.unlink()
        Image.fromarray(mask.astype(dtype)).save(path.with_suffix(".tif"))
    listed = (folder / "map.txt").read_text()
    (folder / "map.txt").write_text(re.sub(r"labels\\(\d+)\.png", r"labels\\\1.tif", listed))


def test_unknown_values_of_a_mask_are_listed_with_its_name(pixel_export):
    folder = pixel_export()
    relabel(folder, lambda mask: np.where(np.arange(64) < 2, mask + 8, mask).astype(np.uint8))
    data = prepare(folder)
    values = r"\[\d+(, \d+)*\], which are no classes of the export \(0, 3, 7\)"
    with pytest.raises(FormatError, match=rf"\d+\.png holds the values {values}"):
        make("UnetClassifier", data, **RESNET).fit(1, 1e-3)


def test_a_mask_of_another_size_is_named_with_both_sizes(pixel_export):
    folder = pixel_export()
    Image.fromarray(np.zeros((60, 64), np.uint8)).save(folder / "labels" / "001.png")
    data = prepare(folder)
    with pytest.raises(FormatError, match=r"001\.png has 64 x 60 pixels and its image"):
        [item for chips in (data.train_ds, data.valid_ds) for item in chips]


@pytest.mark.parametrize("name", ["UnetClassifier", "HEDEdgeDetector", "ConnectNet"])
def test_all_background_trains_with_a_warning_that_names_the_classes(pixel_export, name):
    folder = pixel_export()
    relabel(folder, np.zeros_like)
    stats = json.loads((folder / "esri_accumulated_stats.json").read_text())
    stats["ClassPixelStats"]["NumPixelsPerClass"] = [0, 0]
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(stats))
    model = make(name, prepare(folder), **EVERY[name])
    with pytest.warns(DataWarning, match="No chip has a label of roof, tree") as seen:
        model.fit(1, 1e-3)
    assert [one.filename for one in seen] == [__file__]
    assert all(np.isfinite(value) for value in model.record.rows[0].values())


def test_labels_in_training_chips_only_leave_the_choice_of_the_epoch_to_the_training_loss(
    pixel_export,
):
    folder = pixel_export()
    for item in prepare(folder).valid_ds:
        path = folder / "labels" / Path(item["name"]).with_suffix(".png").name
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    model = make("HEDEdgeDetector", prepare(folder), **RESNET)
    with pytest.warns(DataWarning, match="No validation chip holds a label") as seen:
        model.fit(2, 1e-3)
    assert [one.filename for one in seen] == [__file__]


def test_a_single_class_trains_and_is_told_from_background(pixel_export):
    folder = pixel_export()
    relabel(folder, lambda mask: np.where(mask == 7, 0, mask).astype(np.uint8))
    for name, key in (("esri_model_definition.emd", "Classes"),
                      ("esri_accumulated_stats.json", "Classes")):  # fmt: skip
        stated = json.loads((folder / name).read_text())
        stated[key] = stated[key][:1]
        if "ClassPixelStats" in stated:
            stated["ClassPixelStats"]["NumPixelsPerClass"] = [1]
        (folder / name).write_text(json.dumps(stated))
    data = prepare(folder)
    assert data.classes == ["roof"]
    model = make("UnetClassifier", data, **RESNET, class_balancing=True, focal_loss=True)
    model.fit(2, 1e-3)
    assert set(model.per_class_metrics()) == {"NoData", "roof"}
    assert 0 < model.mIOU(mean=True) <= 1


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_masks_of_other_whole_numbers_are_the_same_labels(pixel_export, dtype):
    folder = pixel_export()
    before = prepare(folder).train_ds[0]["target"]
    as_tiff(folder, dtype)
    assert torch.equal(prepare(folder).train_ds[0]["target"], before)


def test_a_mask_of_floats_is_refused_by_name(pixel_export):
    folder = pixel_export()
    as_tiff(folder, np.float32)
    data = prepare(folder)
    with pytest.raises(FormatError, match=r"\d+\.tif has 1 bands of float32; a label is"):
        data.train_ds[0]


@pytest.mark.parametrize("name", EVERY)
def test_chips_smaller_than_the_networks_stride_are_padded(pixel_export, name):
    data = prepare(pixel_export(side=16), chip_size=16)
    model = make(name, data, **EVERY[name])
    batch = model.task.collate([data.train_ds[i] for i in range(len(data.train_ds))])
    loss = model.task.loss(model.net.train(), batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    model.net.eval()
    with torch.inference_mode():
        assert model.task.scores(model.net, batch["image"]).shape[-2:] == (16, 16)


def test_pairs_of_small_chips_are_padded_too(tmp_path):
    change_folder(tmp_path / "pairs", chips=6, size=(16, 16))
    data = prepare(tmp_path / "pairs", chip_size=16, dataset_type="ChangeDetection")
    model = make("ChangeDetector", data)
    batch = model.task.collate([model.data.train_ds[0], model.data.train_ds[1]])
    loss = model.task.loss(model.net.train(), batch)["loss"]
    assert torch.isfinite(loss)
    with torch.inference_mode():
        assert model.task.scores(model.net.eval(), batch["image"]).shape == (2, 2, 16, 16)


def test_pairs_where_nothing_changes_train_with_a_warning(tmp_path):
    folder = change_folder(tmp_path / "pairs", chips=6, size=(32, 32))
    relabel(folder, np.zeros_like)
    model = make("ChangeDetector", prepare(folder, 32, dataset_type="ChangeDetection"))
    with pytest.warns(DataWarning, match="No chip has a label of mine"):
        model.fit(1, 1e-3)
    assert all(np.isfinite(value) for value in model.record.rows[0].values())
    assert model.precision_recall_score()["recall"] == 0


def test_pairs_of_unequal_bands_are_refused_with_both_numbers(tmp_path):
    folder = change_folder(tmp_path / "pairs", chips=6, size=(32, 32))
    for path in (folder / "images2").iterdir():
        path.unlink()
    write_chips(folder / "images2", 6, bands=4, size=(32, 32))
    with pytest.raises((ModelDataError, FormatError), match=r"3.*4|4.*3"):
        make("ChangeDetector", prepare(folder, 32, dataset_type="ChangeDetection"))


def test_pairs_of_unequal_size_are_named(tmp_path):
    folder = change_folder(tmp_path / "pairs", chips=6, size=(32, 32))
    for path in (folder / "images2").iterdir():
        path.unlink()
    write_chips(folder / "images2", 6, size=(32, 40))
    with pytest.raises(FormatError, match=r"32.*40|40.*32"):
        prepare(folder, 32, dataset_type="ChangeDetection")
