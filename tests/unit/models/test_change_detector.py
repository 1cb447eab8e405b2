"""ChangeDetector: trains on pairs, saves, opens with and without data, and predicts from files."""

import warnings

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from sklearn.metrics import precision_recall_fscore_support

from geodl.base.errors import (
    ModelDataError,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    UnknownOptionError,
)
from geodl.core.contract import IGNORE_INDEX
from geodl.data.prepare import prepare_data
from geodl.models.change_detector import ChangeDetector
from geodl.testing.datasets import change_folder


def make(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return ChangeDetector(data, **options)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    change_folder(root / "chips", chips=6, size=(32, 32))
    return prepare_data(
        root / "chips", chip_size=32, batch_size=4, val_split_pct=0.34, transforms=False,
        dataset_type="ChangeDetection", working_dir=root,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(pairs):
    made = make(pairs)
    made.fit(1, 1e-3)
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for name in ("before", "after"):
        pixels = rng.integers(1, 200, (3, 70, 50), dtype=np.uint8)
        if name == "after":
            pixels[:, :10] = 0
        paths.append(folder / f"{name}.tif")
        with rasterio.open(
            paths[-1], "w", driver="GTiff", width=50, height=70, count=3, dtype="uint8", nodata=0,
            crs="EPSG:32633", transform=from_origin(5e5, 5e6, 1, 1),
        ) as file:  # fmt: skip
            file.write(pixels)
    return paths


def test_the_network_sees_both_images_as_the_data_gives_them(pairs, model):
    item, stacked = pairs.valid_ds[0], model.data.valid_ds[0]
    assert torch.equal(stacked["image"], torch.cat([item["image"], item["image_b"]]))
    assert torch.equal(stacked["target"], item["target"])
    assert model.contract.source_bands == 6
    assert pairs.kind == "change"


def test_scores_come_by_name(model):
    found = model.precision_recall_score()
    assert set(found) == {"precision", "recall", "f1"}
    assert all(0 <= value <= 1 for value in found.values())
    assert model.show_results(rows=1).axes


def test_a_package_opens_with_and_without_data(pairs, model, images, tmp_path):
    folder = model.save(tmp_path / "saved")
    expected = model.predict(*images)
    assert torch.equal(ChangeDetector.from_model(folder).predict(*images), expected)
    opened = ChangeDetector.from_model(folder, data=pairs)
    assert opened.precision_recall_score() == pytest.approx(model.precision_recall_score())


def test_predictions_keep_nodata_and_can_be_saved(model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = model.predict(*images, save=True, visualize=True)
    assert mask.shape == (70, 50)
    assert mask.dtype == torch.uint8
    assert (mask[:10] == 255).all()
    assert set(mask[10:].unique().tolist()) <= {0, 1}
    with rasterio.open(tmp_path / "before_change.tif") as file:
        assert np.array_equal(file.read(1), mask.numpy())
        assert file.nodata == 255
        assert file.crs.to_epsg() == 32633


def test_windows_give_what_the_whole_gives_for_a_network_of_single_pixels(model, images):
    class Difference(torch.nn.Module):
        def forward(self, x):
            before, after = x.chunk(2, dim=1)
            return (before - after).abs().mean(dim=1, keepdim=True) * 3

    other = ChangeDetector.__new__(ChangeDetector)
    other.__dict__.update(model.__dict__)
    net = Difference()
    net.anchor = torch.nn.Parameter(torch.zeros(1))
    other._net = net
    whole = other.predict(*images)
    assert torch.equal(other.predict(*images, crop_predict=True), whole)
    assert set(whole.unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"attention_type": "CBAM"}, OptionError, "PAM"),
        ({"backbone": "resnet19"}, NotSupportedError, "resnet19"),
        ({"mixup": True}, UnknownOptionError, "mixup"),
    ],
)
def test_wrong_arguments_are_refused_by_name(pairs, options, error, text):
    with pytest.raises(error, match=text):
        make(pairs, **options)


def test_wrong_data_and_images_are_refused(data, model, images, tmp_path):
    with pytest.raises(ModelDataError, match="ChangeDetection"):
        make(data)
    with pytest.raises(UnknownOptionError, match="crop_predict"):
        model.predict(*images, crop_predictions=True)
    small = tmp_path / "small.tif"
    with rasterio.open(
        small, "w", driver="GTiff", width=20, height=20, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 1, 1),
    ) as file:  # fmt: skip
        file.write(np.ones((3, 20, 20), np.uint8))
    with pytest.raises(ModelDataError, match=r"70 x 50.*20 x 20"):
        model.predict(images[0], small)


def test_attention_can_be_basic(pairs):
    assert type(make(pairs, attention_type="BAM").net.attend).__name__ == "BasicAttention"


def test_scores_equal_scikit_learn(model):
    truth, found = [], []
    for item in model.data.valid_ds:
        counted = item["target"] != IGNORE_INDEX
        with torch.inference_mode():
            logits = model.task.logits(model.net, item["image"][None])
        truth.append(item["target"][counted].numpy())
        found.append(logits.argmax(1)[0][counted].numpy())
    expected = precision_recall_fscore_support(
        np.concatenate(truth), np.concatenate(found), average="binary", zero_division=0
    )
    own = model.precision_recall_score()
    assert [own[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
