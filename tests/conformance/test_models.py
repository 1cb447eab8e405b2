"""Every registered model holds the rules of all models, in a few seconds."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geodl
from geodl.base.models import MODELS
from geodl.testing.conformance import ModelCase, check_model, same, sample_targets, tensors
from geodl.testing.elsewhere import OtherProcess

FEW_REGIONS = {
    "rpn_pre_nms_top_n_train": 128, "rpn_post_nms_top_n_train": 64,
    "rpn_pre_nms_top_n_test": 64, "rpn_post_nms_top_n_test": 16, "box_batch_size_per_image": 16,
}  # fmt: skip
FEW_QUERIES = {"num_queries": 20, "width": 64, "encoder_layers": 1, "decoder_layers": 2}
FEW_POINTS = {"out_channels": [4, 8], "sub_sampling_ratio": [4, 4], "k_n": 6}
# Half of what a model takes with resnet18, which the models' own tests use, goes into its weights:
# made, trained, written, packed and read some twenty times.
SMALL = {"backbone": "timm:mobilenetv3_small_050"}
# Arguments that make a tiny model; a model without a row is made with its defaults.
TINY: dict[str, dict[str, Any]] = {
    "SingleShotDetector": {**SMALL, "grids": [8], "drop": 0.0},
    "FasterRCNN": {**SMALL, **FEW_REGIONS},
    "RetinaNet": {**SMALL, "ratios": [1.0]},
    "DETReg": {**SMALL, **FEW_QUERIES},
    "RTDetrV2": {**SMALL, "denoising_queries": 10, **FEW_QUERIES},
    "DFine": {**SMALL, "denoising_queries": 10, **FEW_QUERIES},
    "FeatureClassifier": SMALL,
    "YOLOv3": {"backbone": "mobilenetv3_small_050"},
    "MaskRCNN": {
        **SMALL,
        **FEW_REGIONS,
        "rpn_post_nms_top_n_train": 16,
        "box_batch_size_per_image": 6,
        "box_detections_per_img": 2,
    },
    "UnetClassifier": {"backbone": "resnet18"},
    "ChangeDetector": SMALL,
    "MultiTaskRoadExtractor": {},
    "ConnectNet": {**SMALL, "mtl_model": "linknet"},
    "HEDEdgeDetector": SMALL,
    "BDCNEdgeDetector": SMALL,
    "PSPNetClassifier": {**SMALL, "unet_aux_loss": True, "pointrend": True},
    "DeepLab": {**SMALL, "pointrend": True},
    "RandLANet": {"encoder_params": FEW_POINTS},
    "MMDetection3D": {"voxel_parms": {"voxel_size": [0.6, 0.6, 0.8]}},
    "SQNSeg": {"encoder_params": FEW_POINTS, "focal_loss": True, "class_weights": "balanced"},
    "PointCNN": {
        "encoder_params": {"out_channels": [4, 8], "P": [-1, 32], "K": [6, 6], "D": [1, 2], "m": 1},
        "sample_point_num": 128,
    },
}
# Rates of models that eight steps at the usual one do not settle.
RATES = {"RetinaNet": 5e-4}
# Sides of the chips of models whose pyramids are wide.
SIDES = {"FasterRCNN": 32, "MaskRCNN": 48, "RetinaNet": 32}
# Models that miss a rule, with the reason.
EXCEPTIONS: dict[str, str] = {
    "ModelExtension": "has no network of its own; tests/unit/models/test_model_extension.py",
}
# Some 2 to 12 s on a usual machine; what is far above that slows the gate down.
LIMIT_CPU_S = 60.0

_ROOT = Path(geodl.__file__).resolve().parent.parent
_CHECKER = _ROOT.parent / "shared" / "spec" / "check_api.py"
_PUBLIC = sorted(name for name in MODELS if not name.startswith("Tiny"))


@pytest.fixture(scope="module")
def other_process() -> Iterator[OtherProcess]:
    with OtherProcess() as process:
        yield process


@pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
@pytest.mark.parametrize("name", _PUBLIC)
def test_model_conforms_within_its_time(
    name: str, tmp_path: Path, other_process: OtherProcess
) -> None:
    if name in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[name])
    started = time.process_time()
    case = ModelCase(
        model_class=MODELS[name],
        arguments=TINY.get(name, {}),
        chip_px=SIDES.get(name, 64),
        rate=RATES.get(name, 2e-3),
    )
    check_model(case, tmp_path, other_process)
    spent = time.process_time() - started
    assert spent < LIMIT_CPU_S, f"{name} took {spent:.1f} s of CPU; give it smaller arguments"


def test_every_row_of_the_tables_is_a_model() -> None:
    assert set(TINY) | set(EXCEPTIONS) <= set(_PUBLIC)


def test_signatures_match_the_specification() -> None:
    """The checker lies beside the checkout where the project is developed."""
    if not _CHECKER.is_file():
        pytest.skip("the specification's check_api.py does not lie beside the checkout")
    done = subprocess.run(
        [sys.executable, str(_CHECKER), "--json"],
        capture_output=True, text=True, check=False, cwd=_ROOT,
    )  # fmt: skip
    report = json.loads(done.stdout)
    from geodl import learn

    ours = [row for row in report["symbols"] if row["symbol"].split(".")[0] in learn.__all__]
    assert len(ours) > len(learn.__all__)
    assert [row for row in ours if row["status"] != "ok"] == []


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        out = self.layer(x)
        return {"a": [out], "b": (out.mean(),)}


def test_tensors_are_found_wherever_they_lie() -> None:
    assert len(list(tensors(_Net()(torch.zeros(1, 2, 3, 3))))) == 2


def test_a_model_that_forgets_its_weights_is_found_out() -> None:
    one = [torch.zeros(2)]
    same(one, pickle.loads(pickle.dumps(one)), "x")
    with pytest.raises(AssertionError, match="x: answers differ by up to 1"):
        same(one, [torch.tensor([0.0, 1.0])], "x")
    with pytest.raises(AssertionError, match="0 outputs instead of 1"):
        same(one, [], "x")


@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_sample_targets_hold_every_class(kind: str) -> None:
    from geodl.core.classes import ClassTable
    from geodl.tasks.objects import ObjectTask
    from geodl.tasks.pixels import PixelTask

    table = ClassTable.from_mapping({1: "a", 5: "b"})
    task = PixelTask(table) if kind == "pixels" else ObjectTask(table)
    batch = sample_targets(task, 4, 32)
    assert batch["image"].shape == (2, 4, 32, 32)
    if kind == "pixels":
        assert set(batch["target"].unique().tolist()) == {0, 1, 2}
    else:
        assert all(set(item["labels"].tolist()) == {1, 2} for item in batch["target"])


def test_predictions_of_any_form_become_arrays() -> None:
    from geodl.core.detections import Detections
    from geodl.testing.elsewhere import numbers

    boxes = Detections(np.ones((1, 4)), np.zeros(1, np.float32), np.ones(1, np.int64))
    found = list(numbers([boxes, {"mask": torch.ones(2, 2)}, ("a name", 3, np.float32(2))]))
    assert [part.shape for part in found] == [(1, 4), (1,), (1,), (2, 2), (), ()]


@pytest.mark.slow
def test_a_package_that_does_not_open_elsewhere_is_found_out(tmp_path: Path) -> None:
    with OtherProcess() as process, pytest.raises(AssertionError, match="cannot open"):
        process.answers(MODELS["UnetClassifier"], tmp_path / "none", [torch.zeros(1)], tmp_path)
