"""Classifiers exported to ONNX and TorchScript give the scores of geodl itself."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from geodl.base.errors import NotSupportedError
from geodl.base.models import MODELS
from geodl.bundle import load_model, resolve_model
from geodl.core.contract import Normalization
from geodl.testing.tiny import random_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]
BACKBONE = {"backbone": "timm:mobilenetv3_small_050"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("UnetClassifier", BACKBONE),
    "pspnet": ("PSPNetClassifier", {**BACKBONE, "unet_aux_loss": True, "pointrend": True}),
    "deeplab": ("DeepLab", {**BACKBONE, "ignore_classes": [2]}),
    "hed": ("HEDEdgeDetector", BACKBONE),
    "bdcn": ("BDCNEdgeDetector", BACKBONE),
    "roads": ("MultiTaskRoadExtractor", {}),
    "connect": ("ConnectNet", {**BACKBONE, "mtl_model": "linknet"}),
    "change": ("ChangeDetector", {"backbone": "resnet18"}),
    "labels": ("FeatureClassifier", BACKBONE),
    "several": ("FeatureClassifier", {**BACKBONE, "multilabel": True}),
}
SIDE = 64
GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    name, parameters = CASES[request.param]
    bands = 3 * getattr(MODELS[name], "images", 1)
    package = random_model(
        tmp_path / "model",
        name,
        MODELS[name].kind,
        dict(parameters),
        classes={7: "new"} if name == "ChangeDetector" else {1: "one", 2: "two", 9: "three"},
        bands=bands,
        tile_px=SIDE,
        normalization=Normalization(
            minimum=(0.0,) * bands,
            maximum=(255.0,) * bands,
            scaled_mean=(0.4,) * bands,
            scaled_std=(0.3,) * bands,
        ),
    )
    return MODELS[name].from_model(package)


def test_exports_give_the_same_scores(model: Any, tmp_path: Path) -> None:
    bands = model.contract.inputs
    pixels = np.random.default_rng(1).uniform(0, 255, (2, bands, SIDE, SIDE)).astype(np.float32)
    x = torch.from_numpy(np.stack([model.contract.normalization.apply(one) for one in pixels]))
    with torch.inference_mode():
        expected = model.task.scores(model.net, x).numpy()
    assert expected.std() > 1e-3
    traced = torch.jit.load(io.BytesIO(model.exported("torchscript")[".torchscript.pt"]))
    with torch.inference_mode():
        found = traced(torch.from_numpy(pixels[:1])).numpy()
    np.testing.assert_allclose(found, expected[:1], atol=1e-5)

    path = tmp_path / "alone.onnx"
    path.write_bytes(model.exported("ONNX")[".onnx"])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"pixels": pixels[:1]})
    np.testing.assert_allclose(scores, expected[:1], atol=1e-5)

    # The file by itself is a model.
    loaded = load_model(resolve_model(path, tmp_path))
    with torch.inference_mode():
        again = loaded.task.scores(loaded.net, torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-5)
    own, theirs = model.contract, loaded.contract
    for field in ("model_name", "kind", "classes", "extract_bands", "source_bands", "chip"):
        assert getattr(theirs, field) == getattr(own, field)
    assert not theirs.variable_tile


def test_the_file_says_what_it_is_to_other_programs(tmp_path: Path) -> None:
    package = random_model(tmp_path / "m", "UnetClassifier", "pixels", BACKBONE, tile_px=SIDE,
                           cell_size=(0.5, 0.5))  # fmt: skip
    saved = MODELS["UnetClassifier"].from_model(package).save(tmp_path / "s", framework="ONNX")
    assert json.loads((saved / "s.emd").read_text())["ONNX"] == {"INFER": "s.onnx"}
    session = onnxruntime.InferenceSession(
        str(saved / "s.onnx"), providers=["CPUExecutionProvider"]
    )
    facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["model_type"] == "Segmentor"
    assert facts["class_names"] == {"0": "background", "1": "one", "2": "two"}
    assert facts["tile_size"] == SIDE
    assert facts["resolution"] == 50
    # The QGIS plugin divides by 255 and then standardises: the network gets what was there.
    mean, std = np.array(facts["standardization_mean"]), np.array(facts["standardization_std"])
    np.testing.assert_allclose((200 / 255 - mean) / std, 200)
    assert facts["geodl"]["ModelName"] == "UnetClassifier"


def test_what_is_not_exported_says_so(tmp_path: Path) -> None:
    model = MODELS["RandLANet"].from_model(GOLDEN / "schema1_points.dlpk")
    with pytest.raises(NotSupportedError, match="RandLANet is saved with framework='PyTorch' only"):
        model.save(tmp_path / "x", framework="ONNX")
    assert not (tmp_path / "x").exists()
