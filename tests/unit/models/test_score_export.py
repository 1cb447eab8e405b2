"""Classifiers exported to ONNX and TorchScript give the scores of geodl itself."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from geodl.base.errors import OfflineWarning
from geodl.data.prepare import prepare_data
from geodl.learn import FeatureClassifier, UnetClassifier
from geodl.testing.datasets import label_folder


@pytest.fixture(scope="module", params=["unet", "labels", "several"])
def model(request, tile_chips, tmp_path_factory):
    work = tmp_path_factory.mktemp("export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        if request.param == "unet":
            data = prepare_data(tile_chips, chip_size=64, batch_size=4, working_dir=work)
            return UnetClassifier(data, backbone="resnet18")
        several = request.param == "several"
        chips = label_folder(work / "chips", size=(32, 32), several=several)
        data = prepare_data(chips, chip_size=32, batch_size=4, working_dir=work)
        return FeatureClassifier(data, backbone="resnet18")


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")
def test_exports_give_the_same_scores(model, tmp_path):
    side = model.contract.tile_px
    pixels = np.random.default_rng(1).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    x = torch.from_numpy(model.contract.normalization.apply(pixels[0]))[None]
    with torch.inference_mode():
        expected = model.task.scores(model.net, x).numpy()
    traced = torch.jit.load(io.BytesIO(model.exported("torchscript")[".torchscript.pt"]))
    with torch.inference_mode():
        found = traced(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    saved = model.save(tmp_path / "m", framework="ONNX")
    session = onnxruntime.InferenceSession(
        str(saved / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    pixel = model.contract.kind == "pixels"
    assert json.loads(facts["model_type"]) == ("Segmentor" if pixel else "Classifier")
    names = json.loads(facts["class_names"])
    assert len(names) == scores.shape[1]
    assert names[str(len(names) - 1)] == model.contract.classes.names[-1]
    assert json.loads(facts["tiles_size"]) == side
    again = type(model).from_model(saved)
    with torch.inference_mode():
        np.testing.assert_allclose(again.task.scores(again.net, x).numpy(), expected, atol=1e-6)
