"""ONNX files as models of the tools: those that geodl exports, and those of other programs."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geodl
from geodl.base.errors import (
    BlockError,
    BundleError,
    ModelDataError,
    OptionError,
    UnknownOptionError,
)
from geodl.base.models import MODELS
from geodl.core.contract import Normalization
from geodl.learn import (
    Model,
    UnetClassifier,
    classify_objects,
    classify_pixels,
    detect_change_using_deep_learning,
    detect_objects,
)
from geodl.models.region_options import REGION_DEFAULTS
from geodl.testing.onnx_files import CELL_PX, band_segmentor, onnx_bytes, spot_detector
from geodl.testing.tiny import random_model

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
QUIET = {"progress": False}


@pytest.fixture
def bands(write_raster: Any) -> tuple[Path, np.ndarray]:
    """A raster of noise with three bands, and its pixels."""
    pixels = np.random.default_rng(5).integers(1, 255, (3, 200, 232), dtype=np.uint8)
    return write_raster(pixels), pixels


def classes_of(raster: Path, model: Path, output: Path, **options: Any) -> np.ndarray:
    found = classify_pixels(raster, model, output_name=output, **QUIET, **options)
    return found.values.astype(np.float64)


# ---- other programs' files


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, "float32"), ({"ending": ""}, "float32"), ({"tile_px": "side"}, "float32"),
     ({"batch": "n"}, "float32"), ({"batch": 3}, "float32"), ({}, "uint8")],
    ids=["softmax", "logits", "any-tile", "any-batch", "batch-3", "bytes"],
)  # fmt: skip
def test_a_segmentor_of_deepness_gives_its_classes(
    bands: Any, tmp_path: Path, options: dict[str, Any], dtype: str
) -> None:
    raster, pixels = bands
    model = band_segmentor(tmp_path / "m.onnx", dtype=dtype, **options)
    expected = pixels.argmax(axis=0)
    found = [
        classes_of(raster, model, tmp_path / f"{block}.tif", block_size=block)
        for block in (64, 128, 512)
    ]
    np.testing.assert_array_equal(found[0][0], expected)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_scores_of_a_segmentor_do_not_depend_on_blocks(bands: Any, tmp_path: Path) -> None:
    raster, pixels = bands
    model = band_segmentor(tmp_path / "m.onnx")
    arguments = {"output": "scores", "overlap": "blend"}
    found = [
        classes_of(raster, model, tmp_path / f"{b}.tif", block_size=b, model_arguments=arguments)
        for b in (64, 512)
    ]
    np.testing.assert_array_equal(*found)
    shares = np.exp(pixels / 255.0 * 50)
    np.testing.assert_allclose(found[0], shares / shares.sum(axis=0), atol=1e-4)


def test_a_segmentor_without_background_never_gives_it(bands: Any, tmp_path: Path) -> None:
    raster, pixels = bands
    names = {0: "water", 1: "forest", 2: "field"}
    model = band_segmentor(tmp_path / "m.onnx", model_type="Segmentor", class_names=names)
    found = classes_of(raster, model, tmp_path / "a.tif")
    np.testing.assert_array_equal(found[0], pixels.argmax(axis=0) + 1)


def test_a_mask_of_one_class_takes_the_threshold_of_its_file(bands: Any, tmp_path: Path) -> None:
    raster, pixels = bands
    model = band_segmentor(
        tmp_path / "m.onnx", ending="Sigmoid", model_type="Segmentor",
        class_names={0: "road"}, seg_thresh=0.9, tiles_overlap=25,
    )  # fmt: skip
    share = 1 / (1 + np.exp(-(pixels[0] / 255.0 * 50 - 25)))
    found = classes_of(raster, model, tmp_path / "a.tif")
    np.testing.assert_array_equal(found[0], share > 0.9)
    own = classes_of(raster, model, tmp_path / "b.tif", model_arguments={"threshold": 0.2})
    np.testing.assert_array_equal(own[0], share > 0.2)


def test_standardised_bands(bands: Any, tmp_path: Path) -> None:
    """The first band loses to the others by its mean, and the last counts twice."""
    raster, pixels = bands
    model = band_segmentor(
        tmp_path / "m.onnx", model_type="Segmentor", ending="",
        standardization_mean=[0.5, 0.0, 0.0], standardization_std=[1.0, 1.0, 0.5],
    )  # fmt: skip
    shares = pixels / 255.0 - np.array([0.5, 0, 0])[:, None, None]
    shares[2] *= 2
    gap = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0]
    found = classes_of(raster, model, tmp_path / "a.tif")[0]
    np.testing.assert_array_equal(found[gap > 1e-6], shares.argmax(axis=0)[gap > 1e-6])


@pytest.mark.parametrize(
    ("det_type", "objectness"),
    [("YOLO_Ultralytics", 1.0), ("YOLO_v9", 1.0), ("YOLO_v6", 0.2), ("YOLO_v5_or_v7_default", 0.8)],
)
def test_a_detector_of_deepness_gives_its_boxes(
    write_raster: Any, tmp_path: Path, det_type: str, objectness: float
) -> None:
    pixels = np.zeros((3, 160, 192), np.uint8)
    pixels[1, 40:48, 72:80] = 255
    pixels[2, 104:112, 16:24] = 204
    pixels[0, 8:16, 8:16] = 100  # below det_conf
    raster = write_raster(pixels)
    model = spot_detector(tmp_path / "m.onnx", det_type, objectness=objectness)
    tables = [
        detect_objects(
            raster, model, output_name=tmp_path / f"{b}.parquet", block_size=b, **QUIET
        ).sort_values("ClassValue", ignore_index=True)
        for b in (64, 512)
    ]
    found = tables[0]
    factor = 0.8 if det_type == "YOLO_v5_or_v7_default" else 1.0
    assert found["Class"].tolist() == ["class 1", "class 2"]
    assert found["ClassValue"].tolist() == [2, 3]
    assert found["Confidence"].tolist() == pytest.approx([100 * factor, 80 * factor], abs=1e-3)
    x0, y0, x1, y1 = (found.total_bounds - [500000, 5000000] * 2) / 0.5
    assert [x0, -y1, x1, -y0] == pytest.approx([16, 40, 80, 112], abs=1e-6)
    assert (found.area == (CELL_PX / 2) ** 2).all()
    assert tables[1].equals(found)


@pytest.mark.parametrize("words", [{"task": "segment"}, {}], ids=["ultralytics", "deepness"])
def test_instances_of_prototypes_have_their_outlines(
    write_raster: Any, tmp_path: Path, words: dict[str, Any]
) -> None:
    """The cell is a box; its mask is the brighter half of it, or all."""
    pixels = np.zeros((3, 64, 128), np.uint8)
    pixels[1, 24:32, 40:48] = 255
    pixels[2, 24:32, 40:44] = 255
    pixels[1, 8:16, 72:80] = 200
    pixels[2, 8:16, 72:80] = 255
    model = spot_detector(tmp_path / "m.onnx", "YOLO_Ultralytics_segmentation", **words)
    raster = write_raster(pixels)
    tables = [
        detect_objects(
            raster, model, output_name=tmp_path / f"{b}.parquet", block_size=b, **QUIET
        ).sort_values("ClassValue", ignore_index=True)
        for b in (64, 512)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0]["ClassValue"].tolist() == [2, 3]
    half, whole = tables[0].area
    assert half == pytest.approx(8.0, rel=0.15)
    assert whole == pytest.approx(16.0, rel=0.15)


def test_an_export_of_ultralytics_needs_no_further_words(write_raster: Any, tmp_path: Path) -> None:
    pixels = np.zeros((3, 64, 64), np.uint8)
    pixels[2, 32:40, 24:32] = 255
    names = "{0: 'car', 1: 'tree', 2: 'pool'}"
    model = spot_detector(tmp_path / "m.onnx", task="detect", names=names, stride="32")
    found = detect_objects(write_raster(pixels), model, output_name=tmp_path / "a.parquet", **QUIET)
    assert found["Class"].tolist() == ["pool"]


def test_a_classifier_labels_images(write_raster: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node
    content = onnx_bytes(
        [node("GlobalAveragePool", ["x"], ["mean"]), node("Flatten", ["mean"], ["scores"])],
        shape=[1, 3, 32, 32],
        outputs={"scores": [1, 3]},
        metadata={"model_type": "Classifier", "class_names": ["red", "green", "blue"]},
    )
    (tmp_path / "m.onnx").write_bytes(content)
    pixels = np.zeros((3, 64, 64), np.uint8)
    pixels[1] = 200
    found = classify_objects(
        write_raster(pixels), tmp_path / "m.onnx", output_name=tmp_path / "a.parquet", **QUIET
    )
    assert found["ClassLabel"].tolist() == ["green"]
    with pytest.raises(OptionError, match=r"follows gradients, which .*m\.onnx does not give"):
        classify_objects(
            tmp_path / "scene.tif", tmp_path / "m.onnx", output_name=tmp_path / "b.parquet",
            model_arguments={"explainability_map": True}, **QUIET,
        )  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "dlpk"])
def test_a_definition_beside_the_network_decides(bands: Any, tmp_path: Path, packed: bool) -> None:
    raster, pixels = bands
    folder = tmp_path / "pack"
    folder.mkdir()
    band_segmentor(folder / "net.onnx", ending="", note="without a word of what it is")
    emd = {
        "ModelType": "ImageClassification", "ModelFile": "net.onnx", "ImageHeight": 64,
        "ImageWidth": 64, "ExtractBands": [2, 0, 1], "IsImageNetNormalization": False,
        "Classes": [{"Value": 5, "Name": "five"}, {"Value": 8, "Name": "eight"}],
    }  # fmt: skip
    (folder / "m.emd").write_text(json.dumps(emd))
    model = folder
    if packed:
        model = tmp_path / "m.dlpk"
        with zipfile.ZipFile(model, "w") as archive:
            for part in folder.iterdir():
                archive.write(part, part.name)
    found = classes_of(
        raster, model, tmp_path / "a.tif", model_arguments={"predict_background": True}
    )
    expected = np.array([0, 5, 8])[pixels[[2, 0, 1]].argmax(axis=0)]
    np.testing.assert_array_equal(found[0], expected)
    info = Model(model).query_info()
    assert info["foreign"]
    assert [entry["Name"] for entry in info["classes"]] == ["five", "eight"]


def test_a_catalog_holds_networks_too(bands: Any, tmp_path: Path) -> None:
    raster, pixels = bands
    catalog = geodl.Catalog(tmp_path / "catalog")
    item = catalog.add(band_segmentor(tmp_path / "land.onnx"))
    found = classes_of(raster, catalog.get(item.id), tmp_path / "a.tif")
    np.testing.assert_array_equal(found[0], pixels.argmax(axis=0))
    catalog.validate()


# ---- geodl's own exports

BACKBONE = {"backbone": "timm:mobilenetv3_small_050"}


def exported(folder: Path, name: str, parameters: dict[str, Any], **more: Any) -> tuple[Path, Path]:
    """The package of a random model, and the ONNX file that it exports to."""
    package = random_model(folder / "m", name, MODELS[name].kind, parameters, tile_px=64, **more)
    path = folder / "alone.onnx"
    path.write_bytes(MODELS[name].from_model(package).exported("ONNX")[".onnx"])
    return package, path


def test_an_exported_classifier_gives_what_its_package_gives(bands: Any, tmp_path: Path) -> None:
    raster, _ = bands
    package, path = exported(tmp_path, "ConnectNet", {**BACKBONE, "mtl_model": "linknet"})
    own = {"return_probability_raster": True}
    first = classes_of(raster, package, tmp_path / "p.tif", model_arguments=own)
    found = [
        classes_of(raster, path, tmp_path / f"{b}.tif", block_size=b, model_arguments=own)
        for b in (64, 512)
    ]
    np.testing.assert_allclose(found[0], first, atol=1e-5)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_an_exported_edge_detector_keeps_its_own_arguments(bands: Any, tmp_path: Path) -> None:
    raster, _ = bands
    package, path = exported(tmp_path, "HEDEdgeDetector", BACKBONE)
    options = {"model_arguments": {"thinning": True, "threshold": 0.49}, "block_size": 128}
    first = classes_of(raster, package, tmp_path / "p.tif", **options)
    found = classes_of(raster, path, tmp_path / "o.tif", **options)
    assert first.any()
    assert (first != found).mean() < 1e-3


def test_an_exported_detector_gives_what_its_package_gives(bands: Any, tmp_path: Path) -> None:
    raster, _ = bands
    parameters = {
        **BACKBONE, "grids": [8], "zooms": [1.0], "ratios": [[1.0, 1.0]], "drop": 0.0,
        "bias": -2.0, "focal_loss": False, "location_loss_factor": None, "ssd_version": 2,
    }  # fmt: skip
    package, path = exported(tmp_path, "SingleShotDetector", parameters)
    options = {"model_arguments": {"threshold": 0.12, "nms_overlap": 0.3}}
    tables = [
        detect_objects(raster, m, output_name=tmp_path / f"{n}.parquet", **QUIET, **options)
        for n, m in (("p", package), ("o", path))
    ]
    assert len(tables[0]) == len(tables[1]) > 3
    for column in ("Confidence", "ClassValue"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], atol=1e-2)
    assert tables[0].geometry.geom_equals_exact(tables[1].geometry, 1e-2).all()
    with pytest.raises(BlockError, match=r"threshold=0\.01: .*alone\.onnx gives nothing that sco"):
        detect_objects(
            raster, path, output_name=tmp_path / "l.parquet", **QUIET,
            model_arguments={"threshold": 0.01},
        )  # fmt: skip


def test_an_exported_change_detector_takes_two_rasters(write_raster: Any, tmp_path: Path) -> None:
    statistics = Normalization(
        minimum=(0.0,) * 6, maximum=(255.0,) * 6, scaled_mean=(0.4,) * 6, scaled_std=(0.3,) * 6
    )
    package, path = exported(
        tmp_path, "ChangeDetector", {"backbone": "resnet18"}, bands=6,
        classes={1: "change"}, normalization=statistics,
    )  # fmt: skip
    rng = np.random.default_rng(6)
    pair = [write_raster(rng.integers(1, 255, (3, 64, 64), dtype=np.uint8), f"{i}.tif")
            for i in range(2)]  # fmt: skip
    rasters = [
        detect_change_using_deep_learning(*pair, m, tmp_path / f"{n}.tif", **QUIET)
        for n, m in (("p", package), ("o", path))
    ]
    assert (rasters[0].values != rasters[1].values).mean() < 1e-3


# ---- what is refused


def test_a_network_that_can_only_run_is_not_trained(tile_chips: Path, tmp_path: Path) -> None:
    from geodl.data.prepare import prepare_data

    _, path = exported(tmp_path, "UnetClassifier", BACKBONE)
    with pytest.raises(BundleError, match=r"alone\.onnx is a network that can be run but not"):
        UnetClassifier.from_model(path)
    data = prepare_data(tile_chips, chip_size=64, batch_size=4, working_dir=tmp_path)
    with pytest.raises(BundleError, match=r"alone\.onnx is a network that can be run but not"):
        UnetClassifier(data, **BACKBONE, pretrained_path=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = UnetClassifier(data, **BACKBONE)
    with pytest.raises(BundleError, match=r"alone\.onnx is a network that can be run but not"):
        model.load(path)


def test_arguments_that_do_not_fit_are_refused(bands: Any, tmp_path: Path) -> None:
    raster, _ = bands
    model = band_segmentor(tmp_path / "m.onnx")
    for arguments, error, text in (
        ({"tile_size": 128}, OptionError, "runs tiles of 64 only"),
        ({"nms_overlap": 0.5}, UnknownOptionError, "nms_overlap"),
        ({"precision": "bfloat16"}, OptionError, "keeps its own precision"),
    ):
        with pytest.raises(error, match=text):
            classes_of(raster, model, tmp_path / "a.tif", model_arguments=arguments)
    with pytest.raises(ModelDataError, match="gives pixels"):
        detect_objects(raster, model, output_name=tmp_path / "a.parquet", **QUIET)
    detector = spot_detector(tmp_path / "d.onnx")
    with pytest.raises(OptionError, match=r"tta_scales.*runs tiles of 64 only"):
        detect_objects(
            raster, detector, output_name=tmp_path / "a.parquet",
            model_arguments={"test_time_augmentation": True, "tta_scales": "0.5"}, **QUIET,
        )  # fmt: skip


def test_another_number_of_bands_is_refused(write_raster: Any, tmp_path: Path) -> None:
    raster = write_raster(np.ones((5, 64, 64), np.uint8))
    with pytest.raises(ModelDataError, match="has 5 bands"):
        classes_of(raster, band_segmentor(tmp_path / "m.onnx"), tmp_path / "a.tif")


@pytest.mark.slow
def test_exported_instances_keep_their_outlines(bands: Any, tmp_path: Path) -> None:
    regions = {
        **REGION_DEFAULTS, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 6,
        "finest_anchor_px": 8.0,
    }  # fmt: skip
    package, path = exported(tmp_path, "MaskRCNN", {**BACKBONE, "pointrend": False, **regions})
    raster, _ = bands
    options = {"model_arguments": {"threshold": 0.3, "nms_overlap": 0.3}}
    tables = [
        detect_objects(raster, m, output_name=tmp_path / f"{n}.parquet", **QUIET, **options)
        for n, m in (("p", package), ("o", path))
    ]
    assert len(tables[0]) == len(tables[1]) > 3
    np.testing.assert_allclose(tables[0]["Confidence"], tables[1]["Confidence"], atol=1e-2)
    union = tables[0].geometry.union(tables[1].geometry).area.sum()
    assert tables[0].geometry.intersection(tables[1].geometry).area.sum() > 0.99 * union


@pytest.mark.slow
def test_workers_of_a_cluster_give_what_this_process_gives(
    bands: Any, tmp_path: Path, workers: Any
) -> None:
    raster, _ = bands
    model = band_segmentor(tmp_path / "m.onnx")
    arguments = {"output": "scores"}
    here = classes_of(raster, model, tmp_path / "h.tif", model_arguments=arguments)
    there = classes_of(
        raster, model, tmp_path / "t.tif", model_arguments=arguments, client=workers,
        block_size=64,
    )  # fmt: skip
    np.testing.assert_array_equal(here, there)
