"""FeatureClassifier: what it learns, says, draws, saves, and writes into layers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import torch
from PIL import Image
from shapely.geometry import Point, box

from geodl.base.errors import (
    DataError,
    DataWarning,
    ModelDataError,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    OutputExistsError,
)
from geodl.data.prepare import prepare_data
from geodl.models.feature_classifier import FeatureClassifier
from geodl.nets.tile_net import TileNet, activation_maps, make_tile_net
from geodl.testing.datasets import CELL_SIZE, ORIGIN, label_folder


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    """Models that have learned the colours, made once each."""
    made = {}

    def once(several):
        if several not in made:
            folder = tmp_path_factory.mktemp("labels")
            chips = label_folder(folder / "chips", chips=18, size=(40, 40), several=several)
            data = prepare_data(chips, batch_size=6, transforms=False, working_dir=folder)
            made[several] = trained(data)
        return made[several]

    return once


@pytest.fixture(params=[False, True], ids=["single", "several"])
def model(request, learn):
    return learn(request.param)


@pytest.fixture
def single(learn):
    return learn(False)


def trained(data, **options):
    model = quiet(data, **options)
    model.unfreeze()
    model.fit(6, 3e-3, one_cycle=False)
    return model


def quiet(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return FeatureClassifier(data, **{"backbone": "resnet18", **options})


def picture(path: Path, colour, side=80):
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(path)
    return path


def test_it_learns_and_names_what_it_sees(model, tmp_path):
    assert model.record.rows[-1]["accuracy"] > 0.9
    brick = picture(tmp_path / "a.png", (190, 70, 60))
    names, scores = model.predict(brick)
    if model.task.multilabel:
        assert "brick" in names
        assert scores == sorted(scores, reverse=True)
    else:
        assert names == "brick"
        assert 0.5 < scores <= 1


def test_metrics_are_those_of_scikit_learn(model):
    from sklearn.metrics import accuracy_score, f1_score

    truth, found = [], []
    for batch, scores in model._validation(model.data):
        chosen = model.task.chosen(scores, 0.5).numpy()
        truth.append(model.task.truth(batch).numpy())
        found.append(chosen)
    truth, found = np.concatenate(truth), np.concatenate(found)
    meter = model._counts(0.5)
    occurs = (truth | found).any(axis=0)
    per_class = f1_score(truth, found, average=None, zero_division=0)[occurs]
    assert meter.compute()["f1"] == pytest.approx(per_class.mean())
    flat = accuracy_score(truth.ravel(), found.ravel())
    rows = accuracy_score(truth.argmax(1), found.argmax(1))
    assert meter.compute()["accuracy"] == pytest.approx(flat if model.task.multilabel else rows)
    for k, matrix in enumerate(meter.binary()):
        pairs = truth[:, k].astype(int) * 2 + found[:, k]
        assert matrix.ravel().tolist() == np.bincount(pairs, minlength=4).tolist()


def test_pictures_are_drawn(model, tmp_path):
    assert len(model.plot_confusion_matrix(thresh=0.3).axes) >= 1
    assert len(model.plot_hard_examples(2).axes) == 4
    assert model.show_results(rows=1, thresh=0.4).axes
    path = picture(tmp_path / "a.png", (70, 180, 60))
    model.predict(path, visualize=True, gradcam=True)
    with pytest.raises(OptionError, match="visualize"):
        model.predict(path, gradcam=True)


def test_a_saved_model_gives_the_same_scores_and_cuts_chips_alike(model, tmp_path):
    saved = model.save(tmp_path / "kinds")
    emd = json.loads((saved / "kinds.emd").read_text())
    assert emd["ModelType"] == "ObjectClassification"
    assert (emd["CropSizeFixed"], emd["BlackenAroundFeature"]) == (1, 0)
    assert emd["MetaDataMode"] == model.data.dataset_type
    opened = FeatureClassifier.from_model(saved)
    assert opened.contract == model.contract
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(opened.scores_of(x), model.scores_of(x), atol=1e-6)
    again = FeatureClassifier.from_model(saved, model.data)
    again.fit(1, 1e-3)
    assert len(again.record.rows) == 1


def test_the_export_says_how_chips_are_cut(tmp_path):
    options = {"CropTileMode": "Variable_Size", "BlackenAroundFeature": True, "BufferRadius": 2.5}
    chips = label_folder(tmp_path / "chips", size=(40, 48), **options)
    data = prepare_data(chips, chip_size=32, batch_size=4, working_dir=tmp_path)
    cut = quiet(data).contract.chip
    assert cut.size_yx == (40, 48)
    assert (cut.fixed, cut.blacken, cut.buffer_radius) == (False, True, 2.5)


def test_oversampling_gives_every_class_as_many_chips(tmp_path):
    chips = label_folder(tmp_path / "chips", chips=12)
    for name in ("000000001", "000000004", "000000007"):
        (chips / "labels" / f"{name}.xml").write_text(
            (chips / "labels" / "000000000.xml").read_text()
        )
    data = prepare_data(chips, batch_size=4, transforms=False, working_dir=tmp_path)
    model = quiet(data, oversample=True)
    targets = [int(model.data.train_ds[i]["target"]) for i in range(len(model.data.train_ds))]
    assert len(set(np.bincount(targets)[np.bincount(targets) > 0].tolist())) == 1
    assert len(model.data.train_ds) > len(data.train_ds)
    several = label_folder(tmp_path / "several", several=True)
    with pytest.raises(OptionError, match="oversample"):
        quiet(prepare_data(several, working_dir=tmp_path), oversample=True)


def test_mixup_trains_on_mixtures(single):
    task = type(single.task)(single.task.classes, mixup=True)
    seen = []

    class Net(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.zeros(len(x), 3)

    batch = {"image": torch.arange(2.0).view(2, 1, 1, 1), "target": torch.tensor([0, 1])}
    torch.manual_seed(1)
    for _ in range(8):
        assert task.loss(Net(), batch)["loss"].item() == pytest.approx(np.log(3))
    assert any(0 < value < 1 for x in seen for value in x.flatten().tolist())


def test_wrong_arguments_are_refused(single):
    with pytest.raises(NotSupportedError, match="resnet34"):
        quiet(single.data, backbone="resnet35")
    with pytest.raises(NotSupportedError, match="pytorch"):
        quiet(single.data, backend="tensorflow")
    with pytest.raises(OptionError, match="thresh"):
        single.plot_confusion_matrix(thresh=2)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:mobilenetv3_small_100"])
def test_other_backbones_of_timm_answer_and_explain(name):
    torch.manual_seed(0)
    net, loaded = make_tile_net(name, 4, 3, 40, False)
    net.eval()
    assert not loaded
    x = torch.randn(2, 4, 40, 40)
    assert net(x).shape == (2, 3)
    heat = activation_maps(net, x, torch.tensor([0, 2]))
    assert heat.shape == (2, 40, 40)
    assert 0 < float(heat.max()) <= 1
    trained_by = {id(p) for group in net.layer_groups() for m in group for p in m.parameters()}
    assert trained_by == {id(p) for p in net.parameters()}


def test_the_heat_lies_where_the_answer_comes_from():
    net = TileNet("resnet18", 1, 2, 64)
    net.eval()

    class Body(torch.nn.Module):
        num_features = 1

        def forward_features(self, x):
            return torch.nn.functional.avg_pool2d(x, 16)

        def forward_head(self, x, pre_logits):
            return x.mean(dim=(2, 3))

    net.body, net.fixed = Body(), False
    net.head = torch.nn.Linear(1, 2)
    with torch.no_grad():
        net.head.weight[:] = torch.tensor([[1.0], [-1.0]])
    x = torch.zeros(1, 1, 64, 64)
    x[..., :16, 48:] = 1
    heat = activation_maps(net, x, torch.tensor([0]))[0].numpy()
    assert heat[:12, 56:].min() > 0.5
    assert heat[32:, :32].max() == 0
    assert activation_maps(net, x, torch.tensor([1])).max() == 0


# ---- layers


def with_position(path: Path, colour, longitude, latitude):
    image = Image.fromarray(np.full((70, 70, 3), colour, np.uint8))
    exif = Image.Exif()
    exif[0x8825] = {
        1: "S" if latitude < 0 else "N", 2: (int(abs(latitude)), 30.0, 0.0),
        3: "W" if longitude < 0 else "E", 4: (int(abs(longitude)), 15.0, 36.0),
    }  # fmt: skip
    image.save(path, exif=exif, quality=95)


def test_photographs_become_points(single, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    with_position(folder / "a.jpg", (190, 70, 60), -10, 46)
    with_position(folder / "b.jpg", (60, 70, 190), 7, -33)
    picture(folder / "c.png", (0, 0, 0))
    with pytest.warns(DataWarning, match="1 of 3 images"):
        layer = single.predict_folder_and_create_layer(folder, tmp_path / "seen.geojson")
    assert layer["predict"].tolist() == ["brick", "water"]
    assert [(p.x, p.y) for p in layer.geometry] == [(-10.26, 46.5), (7.26, -33.5)]
    assert layer.crs == "EPSG:4326"
    assert geopandas.read_file(layer.attrs["path"])["image"].tolist() == ["a.jpg", "b.jpg"]
    with pytest.raises(OutputExistsError):
        single.predict_folder_and_create_layer(folder, tmp_path / "seen.geojson")
    for name in ("a.jpg", "b.jpg"):
        (folder / name).unlink()
    with pytest.raises(DataError, match="position"):
        single.predict_folder_and_create_layer(folder, tmp_path / "none")


def test_features_over_a_raster_get_columns(single, tmp_path):
    chips = single.data.path / "images"
    x, y = ORIGIN
    side = 40 * CELL_SIZE
    frame = geopandas.GeoDataFrame(
        geometry=[box(x + 5, y - 15, x + 15, y - 5), Point(x + side + side / 2, y - side / 2)],
        crs="EPSG:32633",
    )
    rasters = [str(chips / f"{i:09d}.tif") for i in (0, 1)]
    with pytest.warns(DeprecationWarning, match="classify_objects"):
        assert single.categorize_features(frame, rasters, cell_size=CELL_SIZE) is True
    assert frame["prediction"].tolist() == ["brick", "leaf"]
    assert frame["class_val"].tolist() == [2, 5]
    assert frame["confidence"].between(0.5, 1).all()
    with (
        pytest.warns(DeprecationWarning, match="classify_objects"),
        pytest.raises(OptionError, match="class_val"),
    ):
        single.categorize_features(frame, rasters, cell_size=CELL_SIZE)
    with (
        pytest.warns(DeprecationWarning, match="classify_objects"),
        pytest.raises(NotSupportedError, match="raster="),
    ):
        single.categorize_features(frame)
    with (
        pytest.warns(DeprecationWarning, match="classify_objects"),
        pytest.raises(ModelDataError, match="bands"),
    ):
        single.categorize_features(frame, _one_band(tmp_path), cell_size=CELL_SIZE, overwrite=True)


def _one_band(folder):
    from geodl.testing.datasets import write_chip

    write_chip(folder / "one.tif", np.zeros((1, 64, 64), np.uint8))
    return str(folder / "one.tif")


def test_exported_tiles_label_their_features(single, tmp_path):
    chips = label_folder(tmp_path / "tiles", chips=3)
    layer = tmp_path / "layer.gpkg"
    frame = geopandas.GeoDataFrame(
        {"oid": ["water", "leaf", "missing"]},
        geometry=[Point(0, 0), Point(1, 1), Point(2, 2)], crs="EPSG:32633",
    )  # fmt: skip
    frame.to_file(layer)
    with pytest.warns(DeprecationWarning, match="classify_objects"):
        single.classify_features(layer, chips, "oid", "kind", "score")
    found = geopandas.read_file(layer)
    assert found["kind"].fillna("").tolist() == ["water", "leaf", ""]
    assert found["score"].notna().tolist() == [True, True, False]
    with pytest.warns(DeprecationWarning, match="classify_objects"):
        single.classify_features(frame, chips, "oid", "kind", None, lambda pairs: ("own", 1.0))
    assert frame["kind"].tolist()[:2] == ["own", "own"]
    with (
        pytest.warns(DeprecationWarning, match="classify_objects"),
        pytest.raises(DataError, match="'id'"),
    ):
        single.classify_features(frame, chips, "id", "kind")
