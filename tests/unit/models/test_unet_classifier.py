import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from geodl.base.errors import (
    BundleError,
    DataWarning,
    ModelDataError,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    OutputError,
    OutputExistsError,
    SourceNotFoundError,
    TrainingError,
    UnknownOptionError,
)
from geodl.bundle import load_model, read_bundle, resolve_model
from geodl.data.prepare import prepare_data
from geodl.models.unet_classifier import UnetClassifier


def make(data, **options):
    options.setdefault("backbone", "resnet18")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return UnetClassifier(data, **options)


@pytest.fixture(scope="session")
def trained(export, tmp_path_factory):
    data = prepare_data(
        export, chip_size=64, batch_size=2, val_split_pct=0.34,
        working_dir=tmp_path_factory.mktemp("work"),
    )  # fmt: skip
    model = make(data)
    model.fit(4, 0.005)
    return model


def weights(model):
    return {name: value.clone() for name, value in model.net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def validation_pixels(model):
    items = [model.data.valid_ds[i] for i in range(len(model.data.valid_ds))]
    truth = np.stack([item["target"].numpy() for item in items])
    with torch.inference_mode():
        x = torch.stack([item["image"] for item in items])
        found = model.task.scores(model.net, x).argmax(1).numpy()
    return truth.ravel(), found.ravel()


# ---- construction


def test_offline_the_backbone_starts_unfrozen_with_one_warning(data):
    with pytest.warns(OfflineWarning) as seen:
        model = UnetClassifier(data, backbone="resnet18")
    assert len(seen) == 1
    assert all(p.requires_grad for p in model.net.parameters())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.net.modules())


def test_small_batches_train_with_group_norm_that_a_package_knows(trained):
    norms = [type(m).__name__ for m in trained.net.modules() if "Norm" in type(m).__name__]
    assert set(norms) == {"GroupNorm"}
    assert trained.parameters["norm"] == "group"


def test_a_loaded_backbone_starts_frozen_and_unfreezes(data, monkeypatch):
    from geodl.models import unet_classifier
    from geodl.nets.unet import UNet

    monkeypatch.setattr(
        unet_classifier, "make_unet", lambda n, b, o, pretrained: (UNet(n, b, o), pretrained)
    )
    model = UnetClassifier(data, "resnet18")
    assert not any(p.requires_grad for p in model.net.backbone.parameters())
    assert any(p.requires_grad for p in model.net.parameters())
    model.unfreeze()
    assert all(p.requires_grad for p in model.net.parameters())


def test_same_seed_same_start_and_the_callers_random_state_stays(data):
    state = torch.get_rng_state()
    one = make(data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert same(weights(one), weights(make(data)))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"backend": "tensorflow"}, NotSupportedError, "'pytorch'"),
        ({"backend": "torch"}, OptionError, "'pytorch'"),
        ({"backbone": "resnet35"}, NotSupportedError, "'resnet35'.*Did you mean 'resnet"),
        ({"focal_los": True}, UnknownOptionError, "'focal_loss'"),
        ({"class_weights": [1, 2, 3]}, UnknownOptionError, "class_weights"),
        ({"mixup": "perhaps"}, OptionError, "mixup"),
        ({"dice_loss_fraction": 2}, OptionError, "dice_loss_fraction"),
        ({"ignore_classes": [4]}, OptionError, "4"),
        ({"pretrained_path": "nowhere.emd"}, FileNotFoundError, "nowhere.emd"),
    ],
)
def test_wrong_arguments_are_refused_by_name(data, options, error, text):
    with pytest.raises(error, match=text):
        make(data, **options)


def test_what_is_no_data_is_refused():
    with pytest.raises(OptionError, match="prepare_data"):
        UnetClassifier(None)


def test_surplus_positional_arguments_are_refused(data):
    with pytest.raises(OptionError, match="no meaning"):
        UnetClassifier(data, "resnet18", None, "pytorch", 1)


def test_documented_names(trained):
    assert trained.available_metrics == ["train_loss", "valid_loss", "accuracy", "mIoU"]
    assert trained.supported_datasets == ["Classified_Tiles"]
    names = UnetClassifier.backbones()
    assert trained.supported_backbones == names
    assert {"resnet18", "resnet34", "densenet121", "vgg16_bn"} <= set(names)
    assert any(name.startswith("timm:convnext") for name in names)


def test_class_balancing_weighs_by_inverse_frequency(export):
    data = prepare_data(export, batch_size=4, val_split_pct=0.34, transforms=False)
    model = make(data, class_balancing=True)
    pixels = np.concatenate([data.train_ds[i]["target"].numpy().ravel() for i in range(4)])
    counts = np.bincount(pixels, minlength=3)
    expected = counts.sum() / (3 * counts)
    assert model.parameters["class_weights"] == pytest.approx(list(expected))
    json.dumps(dict(model.parameters))


# ---- training


def test_training_finds_the_colours(trained):
    assert trained.accuracy() > 0.9
    assert trained.record.rows[-1]["train_loss"] < trained.record.rows[0]["train_loss"]


def test_same_seed_same_training(data):
    one, other = make(data, mixup=True), make(data, mixup=True)
    one.fit(1, 1e-3)
    other.fit(1, 1e-3)
    assert same(weights(one), weights(other))


@pytest.mark.parametrize(
    "options",
    [
        {"focal_loss": True, "dice_loss_fraction": 0.5, "dice_loss_average": "macro"},
        {"mixup": True, "class_balancing": True, "ignore_classes": [0]},
    ],
)
def test_each_loss_trains_and_survives_a_package(data, options, tmp_path):
    model = make(data, **options)
    model.fit(1, 1e-3)
    again = UnetClassifier.from_model(model.save(tmp_path / "m", compute_metrics=False), data)
    assert again.task.options == model.task.options
    assert same(weights(model), weights(again))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"epoch": 3}, UnknownOptionError, "epoch"),
        ({"monitor": "miou"}, OptionError, "'mIoU'"),
        ({"checkpoint": "every"}, OptionError, "'all'"),
        ({"epochs": 0}, OptionError, "epochs"),
        ({"lr": -1}, OptionError, "lr"),
        ({"one_cycle": "maybe"}, OptionError, "one_cycle"),
    ],
)
def test_fit_refuses_by_name(trained, options, error, text):
    with pytest.raises(error, match=text):
        trained.fit(**options)


def test_without_a_rate_fit_looks_for_one(data, monkeypatch):
    monkeypatch.setattr("geodl.train.lr_find.STEPS", 4)
    model = make(data)
    rate = model.lr_find()
    assert isinstance(rate, float)
    model.fit(1)
    assert float(model.record.rate) == pytest.approx(rate, rel=1e-4)


def test_rates_by_layer_are_written_as_a_slice(data, tmp_path):
    model = make(data)
    model.fit(1, slice(1e-4, 1e-3), checkpoint=False, one_cycle=False)
    emd = read_bundle(model.save(tmp_path / "m", compute_metrics=False)).emd
    assert emd["LearningRate"] == "slice('1.0000e-04', '1.0000e-03', None)"


def test_checkpoint_all_keeps_every_epoch_as_a_package(data):
    model = make(data)
    model.fit(2, 1e-3, checkpoint="all")
    (folder,) = data.models_dir.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["epoch_001", "epoch_002"]
    model.load(folder / "epoch_001")
    assert UnetClassifier.from_model(folder / "epoch_001").data is None


def test_losses_before_training_are_refused(data):
    with pytest.raises(TrainingError, match="fit"):
        make(data).plot_losses()


# ---- scores


def test_scores_equal_scikit_learn(trained):
    truth, found = validation_pixels(trained)
    names = ["NoData", "roof", "tree"]
    iou = trained.mIOU(show_progress=False)
    expected = jaccard_score(truth, found, labels=[0, 1, 2], average=None)
    assert list(iou) == names
    assert list(iou.values()) == pytest.approx(list(expected))
    assert trained.mIOU(mean=True) == pytest.approx(expected.mean())
    assert trained.accuracy() == pytest.approx((truth == found).mean())
    table = trained.per_class_metrics()
    assert isinstance(table, pd.DataFrame)
    rows = precision_recall_fscore_support(truth, found, labels=[0, 1, 2], zero_division=0)[:3]
    assert list(table.columns) == names
    assert list(table.index) == ["precision", "recall", "f1"]
    assert table.to_numpy() == pytest.approx(np.stack(rows))


def test_classes_left_out_do_not_count(trained):
    truth, found = validation_pixels(trained)
    table = trained.per_class_metrics(ignore_classes=[0])
    assert list(table.columns) == ["roof", "tree"]
    kept = truth != 0
    precision = precision_recall_fscore_support(
        truth[kept], found[kept], labels=[1, 2], zero_division=0
    )[0]
    assert list(table.loc["precision"]) == pytest.approx(list(precision))
    with pytest.raises(OptionError, match="5"):
        trained.per_class_metrics([5])


# ---- drawing


def test_show_results_draws_truth_and_prediction(trained, tmp_path):
    figure = trained.show_results(rows=9)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2 * len(trained.data.valid_ds)
    figure.savefig(tmp_path / "x.png")
    with pytest.raises(UnknownOptionError, match="row"):
        trained.show_results(row=1)
    with pytest.raises(OptionError, match="rows"):
        trained.show_results(0)


def test_losses_are_drawn(trained):
    assert isinstance(trained.plot_losses(), Figure)


# ---- packages


@pytest.fixture(scope="session")
def saved(trained, tmp_path_factory):
    return trained.save(tmp_path_factory.mktemp("saved") / "colours")


def test_save_writes_the_documented_files(saved):
    found = {str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file()}
    assert found == {
        "colours.emd", "colours.safetensors", "colours.dlpk", "model_metrics.html",
        "ModelCharacteristics/loss_graph.png", "ModelCharacteristics/show_results.png",
        "MODEL_CARD.md", "training.json", "ArcGISImageClassifier.py",
    }  # fmt: skip
    page = (saved / "model_metrics.html").read_text()
    assert "resnet18" in page
    assert page.count("data:image/png;base64,") == 2


def test_the_definition_holds_metrics_and_classes_in_order(saved, trained):
    emd = json.loads((saved / "colours.emd").read_text())
    assert [c["Name"] for c in emd["Classes"]] == ["roof", "tree"]
    assert float(emd["accuracy"]) == pytest.approx(trained.accuracy(), rel=1e-4)
    table = json.loads(emd["per_class_metrics"])
    assert table["tree"]["recall"] == pytest.approx(
        trained.per_class_metrics().loc["recall", "tree"], rel=1e-6
    )
    assert emd["ignore_mapped_class"] == []
    assert emd["LearningRate"] == "5.0000e-03"
    assert emd["ModelParameters"]["backbone"] == "resnet18"
    assert emd["ModelParameters"]["backend"] == "pytorch"
    assert emd["IsImageNetNormalization"] is True
    assert emd["InferenceFunction"] == "ArcGISImageClassifier.py"


@pytest.mark.parametrize("name", ["", "colours.emd", "colours.dlpk"])
def test_a_saved_model_predicts_the_same(saved, trained, name):
    again = UnetClassifier.from_model(saved / name)
    x = torch.stack([trained.data.valid_ds[0]["image"]])
    assert torch.allclose(
        again.task.scores(again.net, x), trained.task.scores(trained.net, x), atol=1e-6
    )


def test_inference_loads_the_same_model_by_reference(saved, trained, tmp_path):
    one = resolve_model(str(saved / "colours.dlpk"), tmp_path)
    assert one.sha256 == resolve_model(trained, tmp_path / "run").sha256
    assert load_model(one).task.outputs == 3


def test_without_data_only_what_needs_none_works(saved, tmp_path):
    model = UnetClassifier.from_model(saved / "colours.emd")
    for use in (model.fit, model.lr_find, model.mIOU, model.accuracy, model.show_results):
        with pytest.raises(ModelDataError, match="inference only"):
            use()
    with pytest.raises(OptionError, match="give a path"):
        model.save("bare")
    folder = model.save(tmp_path / "again")
    assert read_bundle(folder).sha256 == read_bundle(saved).sha256


def test_a_saved_model_trains_on(saved, data):
    model = UnetClassifier.from_emd(data, saved / "colours.emd")
    before = model.mIOU(mean=True)
    assert before > 0.5
    model.unfreeze()
    model.fit(1, 1e-4)
    assert len(model.record.rows) == 1


def test_data_of_other_classes_is_refused(saved, export, tmp_path):
    other = prepare_data(export, {3: "house", 7: "tree"}, chip_size=64, batch_size=2)
    with pytest.raises(ModelDataError, match=r"3: roof, 7: tree.*3: house"):
        UnetClassifier.from_model(saved, other)


def test_data_is_normalised_as_the_model_was_trained(trained, data, tmp_path):
    emd_folder = trained.save(tmp_path / "m", compute_metrics=False)
    path = emd_folder / "m.emd"
    emd = json.loads(path.read_text())
    emd["NormalizationStats"]["scaled_mean_values"] = [0.0, 0.0, 0.0]
    path.write_text(json.dumps(emd))
    model = UnetClassifier.from_model(path, data)
    assert model.data.normalization.scaled_mean == (0.0, 0.0, 0.0)
    assert data.normalization.scaled_mean != (0.0, 0.0, 0.0)
    shift = model.data.valid_ds[0]["image"] - data.valid_ds[0]["image"]
    assert torch.allclose(shift[0], torch.full((64, 64), 0.485 / 0.229), atol=1e-4)


def test_a_bare_name_lies_below_the_datas_models(data):
    model = make(data)
    folder = model.save("first", compute_metrics=False)
    assert folder == data.models_dir / "first"
    other = make(data, class_balancing=True)
    other.load("first")
    assert same(weights(model), weights(other))
    assert model.save("first", compute_metrics=False) == folder


def test_load_is_strict_unless_told(trained, saved, data, export):
    model = make(data)  # BatchNorm, the saved one has GroupNorm
    before = weights(model)
    with pytest.raises(BundleError, match=r"another network\..*from_model\(path, data\)"):
        model.load(saved)
    assert same(before, weights(model))
    model.load(saved, strict=False)
    head = "net.segmentation_head.0.weight"
    assert torch.equal(model.net.state_dict()[head], trained.net.state_dict()[head])
    with pytest.raises(UnknownOptionError, match="'strict'"):
        model.load(saved, strikt=True)


def test_a_pretrained_path_starts_from_saved_weights_frozen(trained, saved, data):
    model = UnetClassifier(data, "resnet18", pretrained_path=saved)
    name = "net.encoder.model.conv1.weight"
    assert torch.equal(model.net.state_dict()[name], trained.net.state_dict()[name])
    assert not any(p.requires_grad for p in model.net.backbone.parameters())


def test_the_optimizer_is_saved_when_asked(trained, data, tmp_path):
    folder = trained.save(tmp_path / "m", compute_metrics=False, save_optimizer=True)
    assert (folder / "m.optimizer.safetensors").is_file()
    again = UnetClassifier.from_model(folder)
    assert again.record.optimizer == {}
    again.load(folder / "m.dlpk")
    moments = again.record.optimizer["net.segmentation_head.0.weight"]
    assert torch.equal(
        moments["exp_avg"], trained.record.optimizer["net.segmentation_head.0.weight"]["exp_avg"]
    )


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"framework": "tflite"}, NotSupportedError, "'PyTorch'"),
        ({"framework": "Caffe"}, OptionError, "'PyTorch'"),
        ({"publish": True}, OptionError, "GEODL_CATALOG"),
        ({"overwrit": True}, UnknownOptionError, "'overwrite'"),
        ({"name_or_path": ""}, OptionError, "name"),
    ],
)
def test_save_refuses_by_name(trained, tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        trained.save(**{"name_or_path": tmp_path / "m", **options})
    assert not list(tmp_path.iterdir())


def test_paths_that_are_none_and_misspelt_arguments_are_refused_by_name(trained):
    for wrong in (trained.save, trained.load, UnetClassifier.from_model):
        with pytest.raises(OptionError, match="is no path"):
            wrong(None)
    with pytest.raises(UnknownOptionError, match="Did you mean 'epochs'"):
        trained.fit(1, 0.001, epoch=3)
    with pytest.raises(UnknownOptionError, match="Did you mean 'rows'"):
        trained.show_results(row=3)


def test_a_bare_name_is_a_model_of_the_data_whatever_lies_in_the_working_folder(
    data, tmp_path, monkeypatch
):
    model = make(data)
    model.save("trees", compute_metrics=False)
    (tmp_path / "trees").mkdir()
    monkeypatch.chdir(tmp_path)
    model.load("trees")
    with pytest.raises(SourceNotFoundError, match=r"models.oaks"):
        model.load("oaks")


def test_weights_of_other_classes_load_with_a_warning(data, export, saved):
    other = prepare_data(
        export, chip_size=64, batch_size=2, class_mapping={3: "car"}, working_dir=data.working_dir
    )
    model = make(other)
    with pytest.warns(DataWarning, match=r"with other classes than.*from_model\(path, data\)"):
        model.load(saved)
    assert same(weights(model), weights(UnetClassifier.from_model(saved)))


def test_pretrained_weights_keep_the_normalisation_that_they_learned_with(data, export, saved):
    # The package has GroupNorm; this data's batches of 4 would have had BatchNorm.
    model = UnetClassifier(data, "resnet18", pretrained_path=saved)
    assert same(weights(model), weights(UnetClassifier.from_model(saved)))
    plain = make(data).save("plain", compute_metrics=False)
    small = prepare_data(export, chip_size=64, batch_size=2, working_dir=data.working_dir)
    again = UnetClassifier(small, "resnet18", pretrained_path=plain)
    assert isinstance(again.net.net.encoder.model.bn1, torch.nn.BatchNorm2d)


def test_a_backbone_that_the_package_does_not_have_is_said_and_not_frozen(data, saved):
    with pytest.warns(DataWarning, match=r"start at random.*'resnet18' on 3 bands"):
        model = UnetClassifier(data, "resnet34", pretrained_path=saved)
    assert all(p.requires_grad for p in model.net.backbone.parameters())


def test_a_log_that_cannot_be_written_is_named_before_training(export, tmp_path):
    (tmp_path / "file").write_text("")
    model = make(prepare_data(export, chip_size=64, batch_size=4, working_dir=tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file.training_log.*another working_dir"):
        model.fit(1, 0.001, tensorboard=True)
    assert not model.record.rows


def test_a_misspelt_argument_of_the_class_is_answered_with_the_right_one(data):
    with pytest.raises(UnknownOptionError, match="Did you mean 'pretrained_path'"):
        make(data, pretraind_path="x")


def test_a_model_shows_itself_in_a_notebook(trained):
    text = repr(trained)
    assert "UnetClassifier of pixels" in text
    assert "3 roof, 7 tree" in text
    assert "4 epochs, valid_loss" in text


def test_save_leaves_a_folder_of_something_else(trained, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("")
    with pytest.raises(OutputExistsError):
        trained.save(tmp_path / "m", compute_metrics=False)


def test_a_package_of_another_class_or_backbone_is_refused(saved, trained, tmp_path):
    folder = trained.save(tmp_path / "m", compute_metrics=False)
    emd = json.loads((folder / "m.emd").read_text())
    cases = [
        ({"ModelName": "SingleShotDetector"}, r"SingleShotDetector\.from_model"),
        ({"ModelName": "Nothing"}, "ModelName"),
        ({"ModelParameters": {"backbone": "resnet19"}}, "resnet19"),
        ({"ModelParameters": {"backbone": "resnet34"}}, "another network"),
        ({"ModelParameters": {**emd["ModelParameters"], "mixxup": 1}}, "mixxup"),
    ]
    for keys, text in cases:
        (folder / "m.emd").write_text(json.dumps({**emd, **keys}))
        with pytest.raises(BundleError, match=f"(?s)m.emd.*{text}"):
            UnetClassifier.from_model(folder)


def test_sockets_are_not_touched_by_training_or_inference(data, monkeypatch, tmp_path):
    import socket

    def refuse(*args, **kwargs):
        raise RuntimeError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = make(data)
    model.fit(1, 1e-3)
    load_model(resolve_model(model, tmp_path))


def test_a_task_and_network_survive_pickling(trained):
    net, task = pickle.loads(pickle.dumps((trained.net, trained.task)))
    x = torch.zeros(1, 3, 32, 32)
    assert torch.equal(task.scores(net, x), trained.task.scores(trained.net, x))
