"""ModelExtension: a user's class is trained, saved with its source, and run only by consent."""

from __future__ import annotations

import importlib.util
import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from geodl.base.errors import BundleError, ModelDataError, OptionError
from geodl.bundle import code
from geodl.bundle.cache import forget_models
from geodl.data.prepare import prepare_data
from geodl.learn import Model, ModelExtension, classify_pixels, detect_objects


class Segmenter:
    """Two convolutions; scores of every pixel."""

    def get_model(self, data, backbone=None, width=8, **kwargs):
        assert data.chip_size > 0
        return nn.Sequential(
            nn.Conv2d(data.bands, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, data.c, 1),
        )  # fmt: skip

    def on_batch_begin(self, learn, model_input_batch, model_target_batch, **kwargs):
        assert model_target_batch[0].ndim == 4
        assert learn.data.c == len(learn.data.classes) + 1
        return model_input_batch, model_target_batch[0]

    def transform_input(self, xb):
        return xb

    def transform_input_multispectral(self, xb):
        return xb

    def loss(self, model_output, *model_target):
        return functional.cross_entropy(model_output, model_target[0][:, 0])

    def post_process(self, pred, thres):
        return pred.argmax(dim=1, keepdim=True)


class Detector:
    """One box per cell of a grid of 4 x 4: objectness, class and place."""

    def get_model(self, data, backbone=None, **kwargs):
        self.classes = len(data.classes)
        return nn.Sequential(
            nn.Conv2d(data.bands, 16, 3, stride=4, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Conv2d(16, 1 + len(data.classes) + 4, 1),
        )  # fmt: skip

    def on_batch_begin(self, learn, model_input_batch, model_target_batch, **kwargs):
        return [model_input_batch], model_target_batch

    def transform_input(self, xb):
        return [xb]

    def loss(self, model_output, *model_target):
        boxes, labels = model_target
        assert float(boxes.abs().max()) <= 1
        centre = ((boxes[..., :2] + boxes[..., 2:]) / 2 + 1) / 2
        there = torch.zeros_like(model_output[:, 0])
        for k in range(len(boxes)):
            cells = (centre[k][labels[k] > 0] * 4).long().clamp(0, 3)
            there[k, cells[:, 0], cells[:, 1]] = 1
        return functional.binary_cross_entropy_with_logits(model_output[:, 0], there)

    def post_process(self, pred, nms_overlap, thres, chip_size, device):
        found = []
        steps = torch.linspace(-1, 0.5, 4, device=device)
        rows, cols = torch.meshgrid(steps, steps, indexing="ij")
        boxes = torch.stack([rows, cols, rows + 0.5, cols + 0.5], dim=-1).reshape(-1, 4)
        for one in pred:
            scores = one[0].sigmoid().flatten()
            labels = one[1 : 1 + self.classes].argmax(0).flatten() + 1
            keep = scores >= thres
            found.append((boxes[keep], labels[keep], scores[keep]))
        return found


@pytest.fixture(scope="module")
def pixels(tile_chips, tmp_path_factory):
    data = prepare_data(
        tile_chips, batch_size=4, transforms=False, working_dir=tmp_path_factory.mktemp("w")
    )
    model = ModelExtension(data, Segmenter, width=6)
    model.fit(3, 1e-2)
    return model


@pytest.fixture(scope="module")
def objects(box_chips, tmp_path_factory):
    data = prepare_data(
        box_chips, batch_size=4, transforms=False, working_dir=tmp_path_factory.mktemp("w")
    )
    model = ModelExtension(data, Detector)
    model.fit(2, 1e-2)
    return model


@pytest.mark.parametrize("name", ["pixels", "objects"])
def test_it_learns_draws_and_is_saved_with_its_source(name, request, tmp_path):
    model = request.getfixturevalue(name)
    rows = model.record.rows
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert set(model.available_metrics) <= set(rows[0])
    assert model.show_results(rows=1).axes
    saved = model.save(tmp_path / "own")
    source = (saved / "ModelConfiguration.py").read_text()
    assert f"class {type(model.task.hooks.configuration).__name__}" in source
    assert "import torch" in source
    emd = json.loads((saved / "own.emd").read_text())
    assert emd["ModelConfigurationFile"] == "ModelConfiguration.py"
    assert emd["ModelName"] == "ModelExtension"


def test_a_package_runs_its_source_only_by_consent(pixels, tmp_path, monkeypatch):
    saved = pixels.save(tmp_path / "own")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = pixels.task.logits(pixels.net, x)
    monkeypatch.setattr(code, "_classes", {})
    monkeypatch.setattr(code, "_sources", {})
    for place in (saved, saved / "own.dlpk", saved / "own.emd"):
        with pytest.raises(BundleError, match="trust_code=True"):
            ModelExtension.from_model(place)
    again = ModelExtension.from_model(saved / "own.dlpk", trust_code=True)
    torch.testing.assert_close(again.task.logits(again.net, x), expected)
    assert again.parameters["arguments"] == {"width": 6}
    more = ModelExtension.from_model(saved, pixels.data)
    more.fit(1, 1e-3)
    assert ModelExtension.from_model(more.save(tmp_path / "more")).kind == "pixels"


def test_the_raster_function_runs_the_source_only_by_consent(pixels, tmp_path, monkeypatch):
    saved = pixels.save(tmp_path / "own", compute_metrics=False)
    emd = json.loads((saved / "own.emd").read_text())
    spec = importlib.util.spec_from_file_location("own", saved / emd["InferenceFunction"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(code, "_classes", {})
    monkeypatch.setattr(code, "_sources", {})
    forget_models()
    block = {"raster_pixels": np.full((3, 64, 64), 99, np.uint8)}
    for consent in ("False", "True"):
        function = module.ArcGISImageClassifier()
        function.initialize(model=str(saved / "own.emd"), device=-1)
        assert function.getParameterInfo()[-1]["name"] == "trust_code"
        function.getConfiguration(padding="0", batch_size="1", trust_code=consent)
        if consent == "False":
            with pytest.raises(BundleError, match="trust_code=True"):
                function.updatePixels((0, 0), (64, 64), {"pixelType": "i4"}, **block)
    found = function.updatePixels((0, 0), (64, 64), {"pixelType": "i4"}, **block)
    assert set(np.unique(found["output_pixels"])) <= {0, *pixels.contract.classes.values}
    plain = pixels.save(tmp_path / "plain", compute_metrics=False, save_inference_file=False)
    assert "InferenceFunction" not in json.loads((plain / "plain.emd").read_text())
    assert not list(plain.glob("ArcGIS*"))


def test_another_source_than_stated_is_refused(pixels, tmp_path, monkeypatch):
    saved = pixels.save(tmp_path / "own")
    (saved / "ModelConfiguration.py").write_text("raise SystemExit\n")
    monkeypatch.setattr(code, "_classes", {})
    with pytest.raises(BundleError, match=r"'ModelConfiguration\.py' is"):
        ModelExtension.from_model(saved, trust_code=True)


def test_source_that_fails_is_named(pixels, tmp_path, monkeypatch):
    import hashlib

    saved = pixels.save(tmp_path / "own")
    source = b"1 / 0\n"
    (saved / "ModelConfiguration.py").write_bytes(source)
    emd = json.loads((saved / "own.emd").read_text())
    emd["ModelParameters"]["code_sha256"] = hashlib.sha256(source).hexdigest()
    (saved / "own.emd").write_text(json.dumps(emd))
    monkeypatch.setattr(code, "_classes", {})
    with pytest.raises(BundleError, match="ZeroDivisionError"):
        ModelExtension.from_model(saved, trust_code=True)


FRESH = """
import sys
from geodl.base.errors import BundleError
from geodl.learn import Model, classify_pixels
package, raster, output = sys.argv[1:]
try:
    classify_pixels(raster, package, None, output, progress=False)
except BundleError as error:
    assert "trust_code=True" in str(error), error
else:
    raise AssertionError("it ran without consent")
classify_pixels(raster, Model(package, trust_code=True), {"padding": 8}, output, progress=False)
"""


def test_tools_run_it_here_in_a_new_process_and_on_a_cluster(
    pixels, objects, scene, tmp_path, workers, start_script
):
    import rasterio

    raster = str(scene.raster)
    here = classify_pixels(raster, pixels, {"padding": 8}, tmp_path / "a.tif", progress=False)
    saved = pixels.save(tmp_path / "own")
    process = start_script(FRESH, saved, raster, tmp_path / "b.tif")
    process.join()
    assert process.exitcode == 0
    with rasterio.open(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.asarray(here).squeeze())
    options = {"padding": 8, "exclude_pad_detections": False}
    found = detect_objects(raster, objects, options, tmp_path / "a.gpkg", progress=False)
    there = detect_objects(
        raster, Model(objects.save(tmp_path / "boxes"), trust_code=True), options,
        tmp_path / "c.gpkg", client=workers, progress=False,
    )  # fmt: skip
    assert len(found) == len(there) > 0
    np.testing.assert_allclose(found["Confidence"], there["Confidence"], atol=1e-3)


def test_what_is_no_model_class_is_refused(pixels):
    class Half:
        def get_model(self, data):
            return None

    with pytest.raises(OptionError, match="on_batch_begin, loss, post_process"):
        ModelExtension(pixels.data, Half)
    with pytest.raises(OptionError, match="being a class"):
        ModelExtension(pixels.data, Segmenter())

    class Wrong(Segmenter):
        def loss(self, model_output, *model_target):
            return 3.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ModelExtension(pixels.data, Wrong)
    with pytest.raises(ModelDataError, match="0-d tensor"):
        model.fit(1, 1e-3)
