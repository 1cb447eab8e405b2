"""Model, list_models and train_model: real packages in a real catalog."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import geodl
from geodl.base.errors import (
    DataWarning,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    OutputExistsError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.base.models import MODELS
from geodl.learn import Model, classify_objects, list_models, train_model
from geodl.testing.datasets import label_folder
from geodl.tools.train_model import MODEL_TYPES, _backbone, _Call, _model_class

GOLDEN = Path(__file__).parents[2] / "golden"
PACKAGE = GOLDEN / "schema1_labels.dlpk"


@pytest.fixture
def catalog(tmp_path):
    return geodl.Catalog(tmp_path / "catalog")


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    return label_folder(tmp_path_factory.mktemp("train") / "chips", chips=9, size=(40, 40))


def train(folder, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return train_model(folder, *args, **options)


def test_a_model_is_installed_listed_asked_and_taken_off_the_list(catalog):
    model = Model(PACKAGE)
    path = model.install(gis=catalog)
    assert Path(path).parent == catalog.root / "schema1_labels"
    assert model.install(gis=catalog) == path
    (found,) = list_models(gis=catalog)
    assert isinstance(found, Model)
    assert str(found.package_path) == path
    info = found.query_info(gis=catalog)
    assert info["model_name"] == "FeatureClassifier"
    assert [entry["Name"] for entry in info["classes"]] == ["one", "two"]
    assert info["arguments"] == [
        "batch_size", "test_time_augmentation", "threshold", "explainability_map"
    ]  # fmt: skip
    assert info["parameters"]["backbone"] == "timm:test_efficientnet"
    assert found.uninstall(gis=catalog) == "schema1_labels"
    assert list_models(gis=catalog) == []
    assert len(catalog) == 1
    model.install(gis=catalog)
    assert len(list_models(gis=catalog)) == 1
    assert catalog.validate() == 1


def test_models_that_were_published_are_listed_too(catalog):
    item = catalog.add(PACKAGE)
    assert len(list_models(gis=catalog, future=True).result(30)) == 1
    assert Model(item).query_info(future=True).result(30)["kind"] == "tiles"


def test_the_environment_names_a_catalog(catalog, monkeypatch):
    with pytest.raises(OptionError, match="GEODL_CATALOG"):
        list_models()
    monkeypatch.setenv("GEODL_CATALOG", str(catalog.root))
    Model(PACKAGE).install()
    assert len(list_models()) == 1
    with pytest.raises(UnknownOptionError, match="gsi"):
        list_models(gsi=catalog)


def test_a_catalog_that_is_not_there_is_told(tmp_path):
    with pytest.warns(DataWarning, match=r"no catalog at .*typo"):
        assert list_models(gis=str(tmp_path / "typo")) == []


def test_a_definition_in_memory_is_a_model(tmp_path):
    import zipfile

    with zipfile.ZipFile(PACKAGE) as archive:
        archive.extractall(tmp_path)
    emd = json.loads(next(tmp_path.glob("*.emd")).read_text())
    model = Model()
    with pytest.raises(OptionError, match="empty"):
        model.query_info()
    model.from_json({**emd, "ModelFile": str(tmp_path / emd["ModelFile"])})
    assert model.query_info()["sha256"] == Model(PACKAGE).query_info()["sha256"]
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        model.from_json({**emd, "ModelFile": "nowhere.safetensors"})
    with pytest.raises(OptionError, match="ModelFile"):
        Model({"ModelName": "x"})
    with pytest.raises(NotSupportedError, match="download"):
        Model().from_model_path("https://portal/items/3")
    with pytest.raises(SourceNotFoundError, match="not in the catalog"):
        Model(PACKAGE).uninstall(gis=geodl.Catalog(tmp_path / "empty"))


def test_tools_take_models_and_items(catalog, scene, tmp_path):
    item = catalog.add(PACKAGE)
    for number, model in enumerate((Model(PACKAGE), item)):
        found = classify_objects(
            str(scene.raster), model, output_name=tmp_path / f"{number}.parquet", progress=False
        )
        assert len(found) == 1


def test_training_ends_in_a_package_or_an_item(chips, catalog, tmp_path):
    options = {
        "model_arguments": {"chip_size": "32", "mixup": "true"},
        "batch_size": 4,
        "max_epochs": 1,
        "learning_rate": 0.001,
        "backbone_model": "test_efficientnet",
        "validation_percent": 30,
    }
    folder = train(chips, "FEATURE_CLASSIFIER", output_name=tmp_path / "kinds", **options)
    assert folder == tmp_path / "kinds"
    info = Model(folder).query_info()
    assert info["parameters"] == {
        "backbone": "timm:test_efficientnet", "mixup": True, "multilabel": False,
        "oversample": False,
    }  # fmt: skip
    assert info["tile_px"] == 32
    settings = json.loads((folder / "training.json").read_text())
    assert settings["data"]["valid_chips"] == 3
    assert len(settings["epochs"]) == 1
    with pytest.raises(OutputExistsError):
        train(chips, "FEATURE_CLASSIFIER", output_name=folder, **options)
    with pytest.raises(OptionError, match="model_arguments='chip_size 32' is no dictionary"):
        train(chips, "FEATURE_CLASSIFIER", model_arguments="chip_size 32")
    item = train(
        chips, "FeatureClassifier", output_name="again", gis=catalog, pretrained_model=folder,
        freeze_model=False, **options,
    )  # fmt: skip
    assert item.id == "again"
    assert Model(item).query_info()["model_name"] == "FeatureClassifier"
    assert catalog.validate() == 1


@pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
def test_several_folders_train_one_model_beside_the_caller(chips, tmp_path):
    other = label_folder(tmp_path / "other", chips=6, size=(40, 40))
    job = train(
        [chips, other], "FEATURE_CLASSIFIER", {"chip_size": 32}, 4, 1, 1e-3, "test_efficientnet",
        output_name=tmp_path / "both", future=True,
    )  # fmt: skip
    folder = job.result(120)
    settings = json.loads((folder / "training.json").read_text())["data"]
    assert settings["train_chips"] + settings["valid_chips"] == 15


def test_what_is_not_offered_is_refused_by_name(chips, tmp_path):
    with pytest.raises(NotSupportedError, match=r"'UNETT' is no model type.*Did you mean 'UNET'"):
        train(chips, "UNETT")
    with pytest.raises(NotSupportedError, match=r"'DEEPSORT' is not offered yet"):
        train(chips, "DEEPSORT")
    with pytest.raises(UnknownOptionError, match="mixp"):
        train(chips, "FEATURE_CLASSIFIER", {"mixp": True})
    with pytest.raises(UnknownOptionError, match="cellSize"):
        train(chips, "FEATURE_CLASSIFIER", context={"cellSize": 1})
    with pytest.raises(NotSupportedError, match="DeepSort"):
        train(chips, "FEATURE_CLASSIFIER", backbone_model="REID_V1")
    assert _backbone("VGG11_BN") == "vgg11_bn"
    assert _backbone("MOBILENET_V2") == "mobilenetv2_100"
    with pytest.raises(OptionError, match="batch_size"):
        train(chips, "FEATURE_CLASSIFIER", batch_size=1)


KEYWORDS = {
    "FASTERRCNN": "rpn_nms_thresh", "MASKRCNN": "box_score_thresh", "CONNECTNET": "mtl_model",
    "MULTITASK_ROADEXTRACTOR": "gaussian_thresh", "PSPNET": "keep_dilation",
    "DeepLabV3": "keep_dilation", "UNET": "class_balancing", "SSD": "grids", "RETINANET": "scales",
    "CHANGEDETECTOR": "attention_type", "HED_EDGEDETECTOR": "backbone", "DETReg": "num_queries",
    "RTDetrV2": "denoising_queries", "MMDetection3D": "voxel_parms", "PointCNN": "dropout",
    "RandLANet": "encoder_params", "FEATURE_CLASSIFIER": "mixup", "YOLOV3": "monitor",
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYWORDS)
def test_documented_arguments_of_every_class_are_taken(kind):
    call = _Call(_model_class(kind), {KEYWORDS[kind]: 1}, ())
    call.check_arguments()
    with pytest.raises(UnknownOptionError, match="no option 'mxup'"):
        _Call(_model_class(kind), {"mxup": 1}, ()).check_arguments()


def test_every_model_type_that_there_is_is_offered():
    there = {kind: name for kind, name in MODEL_TYPES.items() if name in MODELS}
    assert len(there) >= 14
    for kind, name in there.items():
        assert _model_class(kind).__name__ == name
        assert _model_class(name.upper()).__name__ == name


def test_saving_may_publish(chips, catalog, tmp_path, monkeypatch):
    from geodl.data.prepare import prepare_data
    from geodl.models.feature_classifier import FeatureClassifier

    data = prepare_data(chips, chip_size=32, batch_size=4, working_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        model = FeatureClassifier(data, backbone="timm:test_efficientnet")
    folder = model.save(tmp_path / "shared", publish=True, gis=catalog)
    item = catalog.get("shared")
    assert Path(item.assets["data"].href).name == "shared.dlpk"
    assert {"thumbnail", "MODEL_CARD.md", "model_metrics.html", "training.json"} < set(item.assets)
    assert "accuracy" in item.properties["geodl:facts"]
    with pytest.raises(OutputExistsError):
        model.save(folder, publish=True, gis=catalog)
    model.save(folder, publish=True, gis=catalog, overwrite=True)
    with pytest.raises(OptionError, match="GEODL_CATALOG"):
        model.save(folder, publish=True)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "`FeatureClassifier`" in card
    assert "- 2: brick" in card
    assert "8 samples of Labeled_Tiles" in card
