"""Exported detectors give what geodl gives, without geodl."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geodl.base.errors import NotSupportedError, OutputError
from geodl.base.models import MODELS
from geodl.base.packages import require
from geodl.bundle.export import to_onnx, to_torchscript
from geodl.models.region_options import REGION_DEFAULTS
from geodl.testing.tiny import random_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]
BACKBONE = "timm:mobilenetv3_small_050"
REGIONS = {
    **REGION_DEFAULTS, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 6,
    "finest_anchor_px": 8.0,
}  # fmt: skip
QUERIES = {
    "backbone": BACKBONE, "num_queries": 12, "width": 64, "encoder_layers": 1, "decoder_layers": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "SingleShotDetector": {
        "backbone": BACKBONE, "grids": [8], "zooms": [1.0], "ratios": [[1.0, 1.0]], "drop": 0.0,
        "bias": -2.0, "focal_loss": False, "location_loss_factor": None, "ssd_version": 2,
    },
    "FasterRCNN": {"backbone": BACKBONE, **REGIONS},
    "RetinaNet": {"backbone": BACKBONE, "scales": [0.5], "ratios": [1.0]},
    "MaskRCNN": {"backbone": BACKBONE, "pointrend": False, **REGIONS},
    "YOLOv3": {
        "backbone": BACKBONE, "anchors": [[8 + 4 * i, 9 + 3 * i] for i in range(9)], "n_bands": 3,
    },
    "EfficientDet": {"backbone": "efficientdet_lite0", "anchor_scale": 1.0},
    "DETReg": QUERIES,
    "RTDetrV2": {**QUERIES, "denoising_queries": 0},
    "DFine": {**QUERIES, "denoising_queries": 0},
}  # fmt: skip


def scores_objects(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether a layer starts with low scores: of a transformer, for all of its outputs."""
    if layer.bias is None or layer.bias.min() >= -1.5:
        return False
    return isinstance(layer, nn.Conv2d) or bool((layer.bias == layer.bias[0]).all())


def lively(name: str, folder: Path) -> Any:
    """A model that finds something in noise."""
    kind = "instances" if name == "MaskRCNN" else "objects"
    model = MODELS[name].from_model(random_model(folder / "m", name, kind, CASES[name]))
    torch.manual_seed(1)
    for layer in model.net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and scores_objects(layer):
            # Scores of all sizes: where they are saturated, any of two boxes may be kept.
            nn.init.normal_(layer.weight, std=2 / layer.weight[0].numel() ** 0.5)
            nn.init.normal_(layer.bias, std=1.0)
    return model


def tiles() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 255, (1, 3, 64, 64), generator=generator).float() for _ in range(2)]


# Those whose graphs take some seconds to write; MaskRCNN has all that FasterRCNN has.
LARGE = {"DETReg", "DFine", "EfficientDet", "FasterRCNN", "RTDetrV2"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in sorted(CASES)],
)
def test_exports_answer_as_the_model_does(name: str, tmp_path: Path) -> None:
    runtime = require("onnxruntime", "export")
    runtime.set_default_logger_severity(3)
    model = lively(name, tmp_path)
    script = torch.jit.load(io.BytesIO(model.exported("torchscript")[".torchscript.pt"]))
    session = runtime.InferenceSession(
        model.exported("ONNX")[".onnx"], providers=["CPUExecutionProvider"]
    )
    found = 0
    for pixels in tiles():
        x = torch.from_numpy(model.contract.normalization.apply(pixels[0].numpy()))[None]
        with torch.inference_mode():
            expected = model.task.detect(model.net.eval(), x, threshold=0.05, nms_overlap=1.0)[0]
            plain = script(pixels)
        other = session.run(None, {"pixels": pixels.numpy()})
        found += len(plain[0])
        for answers in ([part.numpy() for part in plain], other):
            boxes, scores, labels = answers[:3]
            # The export also suppresses: each of its boxes is one of the model's.
            ours = np.column_stack([expected.boxes, expected.scores, expected.labels])
            theirs = np.column_stack([boxes, scores, labels])
            distance = np.abs(theirs[:, None] - ours[None]).max(axis=2)
            assert len(theirs) == 0 or distance.min(axis=1).max() < 2e-3
        assert len(other[0]) == len(plain[0])
        if name == "MaskRCNN":
            assert np.abs(other[3] - plain[3].numpy()).max() < 1e-4
    assert found > 3, "nothing was found that could be compared"


def test_the_definition_names_the_export_and_from_model_still_works(tmp_path: Path) -> None:
    model = lively("YOLOv3", tmp_path)
    folder = model.save(tmp_path / "pools", framework="torchscript")
    emd = json.loads((folder / "pools.emd").read_text())
    script = "pools.torchscript.pt"
    assert emd["TorchScript"] == {"GPU": script, "CPU": script}
    content = (folder / script).read_bytes()
    assert emd["Geodl"]["sha256"][script] == hashlib.sha256(content).hexdigest()
    again = MODELS["YOLOv3"].from_model(folder)
    for key, value in model.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[key])


def test_other_frameworks_are_refused(tmp_path: Path) -> None:
    model = lively("YOLOv3", tmp_path)
    with pytest.raises(NotSupportedError, match="torchscript"):
        model.save(tmp_path / "x", framework="tflite")
    assert not (tmp_path / "x").exists()


class _Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such operator")


def test_what_cannot_be_traced_is_said() -> None:
    x = torch.zeros(1, 1, 4, 4)
    for write in (lambda: to_torchscript(_Untraceable(), x),
                  lambda: to_onnx(_Untraceable(), x, "pixels", ["y"])):  # fmt: skip
        with pytest.raises(OutputError, match="no such operator"):
            write()


def test_a_plain_network_is_exported_too() -> None:
    net, x = nn.Conv2d(2, 3, 3), torch.rand(1, 2, 8, 8)
    again = torch.jit.load(io.BytesIO(to_torchscript(net, x)))
    assert torch.allclose(again(x), net(x))
