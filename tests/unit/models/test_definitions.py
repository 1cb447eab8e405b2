"""The definition of every model class holds the keys that are documented for its type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geodl.base.models import MODELS
from geodl.bundle import read_bundle
from geodl.models.packaging import write_definition
from geodl.testing.conformance import ModelCase
from geodl.testing.point_conformance import point_data
from tests.conformance.test_models import TINY

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")

COMMON = {
    "ModelName", "ModelType", "ModelFile", "Classes", "backend", "ModelParameters", "LearningRate",
    "resize_to", "Geodl", "DatasetType",
}  # fmt: skip
IMAGES = {
    "ModelFormat", "ExtractBands", "ImageHeight", "ImageWidth", "MinCellSize", "MaxCellSize",
    "SupportsVariableTileSize", "ImageSpaceUsed", "IsMultispectral", "IsImageNetNormalization",
    "Bands", "ImageryType", "NormalizationStats", "DoNormalize",
}  # fmt: skip
POINTS = {"DataAttributes", "FocalLoss", "excludedClasses", "blockShape", "Framework"}
STATISTICS = {
    f"{kind}_{what}_values" for kind in ("band", "scaled") for what in ("min", "max", "mean", "std")
}
POINT_ATTRIBUTES = {
    "block_size", "max_point", "extra_features", "extra_dim", "class2idx", "idx2class",
    "color_mapping", "remap", "classes", "subset_classes", "class_mapping", "remap_dict",
    "remap_bool", "important_classes", "features_to_keep", "pc_type", "background_classcode",
}  # fmt: skip
BOX_ATTRIBUTES = {
    "block_size", "max_point", "extra_features", "scale_factor", "z_range", "range",
    "average_box_size", "anchor_range", "voxel_size", "num_features", "no_of_points_per_tile",
}  # fmt: skip
ROAD_PARAMETERS = {
    "backbone", "mtl_model", "loss", "loss_weights", "opt_func", "opt_func_args",
    "model_init_kwargs", "learner_params",
}  # fmt: skip
CELL = {"x", "y", "spatialReference"}
BACKBONE = {"backbone"}
# What is written besides what builds the network is no obstacle on the way back.
RESTORED = {
    "PSPNetClassifier",
    "MultiTaskRoadExtractor",
    "ChangeDetector",
    "YOLOv3",
    "RandLANet",
    "MMDetection3D",
}
# Class: its ModelType, further keys, and keys of ModelParameters besides ``backend``. What names
# Python source of arcgis.learn (ModelConfigurationFile and the like) belongs to ModelExtension
# alone here, which tests/unit/models/test_model_extension.py looks at.
ROWS: Mapping[str, tuple[str, set[str], set[str]]] = {
    "SingleShotDetector": (
        "ObjectDetection", {"backbone", "Grids", "Zooms", "Ratios", "SSDVersion"}, BACKBONE
    ),
    "RetinaNet": ("ObjectDetection", set(), {"backbone", "scales", "ratios"}),
    "YOLOv3": ("ObjectDetection", {"n_bands"}, {"backbone", "anchors", "n_bands"}),
    "FasterRCNN": ("ObjectDetection", {"Kwargs"}, BACKBONE),
    "DETReg": ("ObjectDetection", {"Kwargs"}, BACKBONE),
    "RTDetrV2": ("ObjectDetection", {"Kwargs"}, BACKBONE),
    "DFine": ("ObjectDetection", {"Kwargs"}, BACKBONE),
    "EfficientDet": ("ObjectDetection", set(), BACKBONE),
    "MaskRCNN": ("InstanceDetection", {"MaskRCNNkwargs"}, {"backbone", "pointrend"}),
    "UnetClassifier": ("ImageClassification", {"ignore_mapped_class"}, BACKBONE),
    "PSPNetClassifier": (
        "ImageClassification", {"ignore_mapped_class"},
        {
            "backbone", "pyramid_sizes", "use_unet", "pointrend", "keep_dilation", "unet_aux_loss",
            "vggv2",
        },
    ),
    "DeepLab": (
        "ImageClassification", {"ignore_mapped_class"}, {"backbone", "pointrend", "keep_dilation"}
    ),
    "MultiTaskRoadExtractor": ("ImageClassification", {"ChipData"}, ROAD_PARAMETERS),
    "ConnectNet": ("ImageClassification", {"ChipData"}, ROAD_PARAMETERS),
    "HEDEdgeDetector": ("ImageClassification", {"IsEdgeDetection"}, BACKBONE),
    "BDCNEdgeDetector": ("ImageClassification", {"IsEdgeDetection"}, BACKBONE),
    "ChangeDetector": (
        "ImageClassification", {"DataAttributes"}, {"backbone", "attention_type"}
    ),
    "FeatureClassifier": (
        "ObjectClassification",
        {"MetaDataMode", "CropSizeFixed", "BlackenAroundFeature", "ExpMap"}, BACKBONE,
    ),
    "PointCNN": ("PointCloudClassification", POINTS, {"encoder_params", "sample_point_num"}),
    "RandLANet": ("PointCloudClassification", POINTS, {"encoder_params", "sample_point_num"}),
    "SQNSeg": ("PointCloudClassification", POINTS, {"encoder_params", "sample_point_num"}),
    "MMDetection3D": ("PointCloudDetection", {"DataAttributes"}, set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Chips by format, made once for all classes."""
    return {"": tmp_path_factory.mktemp("chips")}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_documented_keys_are_written(name: str, chips: dict[str, Path], tmp_path: Path) -> None:
    kind, further, parameters = ROWS[name]
    case = ModelCase(model_class=MODELS[name], arguments=TINY.get(name, {}))
    model = MODELS[name](_data(case, chips, tmp_path), **case.arguments)
    path = write_definition(model, tmp_path / "m", "m")
    emd: dict[str, Any] = json.loads(path.read_text())
    assert emd["ModelName"] == name
    assert emd["ModelType"] == kind
    of_points = kind.startswith("PointCloud")
    wanted = COMMON | further | (set() if of_points else IMAGES)
    assert wanted - set(emd) == set()
    assert parameters | {"backend"} <= set(emd["ModelParameters"])
    if of_points:
        boxes = kind == "PointCloudDetection"
        attributes = BOX_ATTRIBUTES if boxes else POINT_ATTRIBUTES
        assert attributes - set(emd["DataAttributes"]) == set()
    else:
        assert emd["ModelFormat"] == "NCHW"
        assert set(emd["NormalizationStats"]) == STATISTICS
        # The chips of some formats say nothing of their cells.
        assert set(emd["MinCellSize"] or CELL) == CELL
        assert [set(entry) for entry in emd["Classes"]] == [{"Value", "Name", "Color"}] * len(
            model.contract.classes
        )
    if name not in RESTORED:
        return
    again = MODELS[name].from_model(path)
    assert again.contract == read_bundle(path).contract
    assert write_definition(again, tmp_path / "again", "m").read_text() == path.read_text()


def test_every_class_has_its_row() -> None:
    public = {name for name in MODELS if not name.startswith("Tiny")}
    assert public - set(ROWS) == {"ModelExtension"}


def _data(case: ModelCase, chips: dict[str, Path], folder: Path) -> Any:
    name = case.format_name()
    if name in ("PointCloud", "PointCloudOD"):
        return point_data(case, folder)
    if name not in chips:
        root = chips[""] / name
        root.mkdir()
        chips[name] = case.chips(root)
    return case.data(chips[name], folder / "work")
