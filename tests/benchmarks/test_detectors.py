"""Detectors: training against a plain PyTorch loop, and the whole family on one scene."""

from __future__ import annotations

import copy
import os
import time
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import torch

from geodl.base.errors import DataWarning, OfflineWarning
from geodl.base.models import MODELS
from geodl.core.detections import Detections
from geodl.data.prepare import prepare_data
from geodl.ops.average_precision import average_precision, mean_precision
from geodl.testing import make_chips
from geodl.testing.chips import chips_with_scene
from geodl.tools.detect_objects import detect_objects

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::geodl.base.errors.DataWarning"),
]

EPOCHS, CHIP, BATCH, TURNS = 2, 64, 8, 3
# CPU seconds of training that each detector gets for the table, of one thread.
BUDGET_S = float(os.environ.get("GEODL_BENCH_TRAIN_S", "180"))
KINDS = ("building", "tree", "pad", "pond")
SMALL = {"backbone": "resnet18"}
REGIONS = {
    "rpn_pre_nms_top_n_train": 400, "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 200, "box_batch_size_per_image": 64,
}  # fmt: skip
FAMILY: dict[str, tuple[dict[str, Any], float]] = {
    "SingleShotDetector": ({**SMALL, "focal_loss": True, "drop": 0.0}, 2e-3),
    "YOLOv3": (SMALL, 1e-3),
    "EfficientDet": ({}, 2e-3),
    "RetinaNet": (SMALL, 1e-3),
    "FasterRCNN": ({**SMALL, **REGIONS}, 5e-4),
    "MaskRCNN": ({**SMALL, **REGIONS}, 5e-4),
}


def made(name: str, data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return MODELS[name](data, **FAMILY[name][0])


def plain_s(model: Any, data: Any) -> float:
    """Seconds of CPU of the shortest loop that trains the same network on the same batches."""
    net = copy.deepcopy(model.net).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    loader = data.train_loader(model.task.collate, generator=torch.Generator().manual_seed(0))
    started = time.process_time()
    for _ in range(EPOCHS):
        for batch in loader:
            x = batch["image"].contiguous(memory_format=torch.channels_last)
            loss = net(x).losses(batch["target"])["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return time.process_time() - started


def engine_s(model: Any) -> float:
    """Seconds of CPU of ``fit``, its scoring of the validation chip and checkpoint included."""
    started = time.process_time()
    model.fit(EPOCHS, 1e-3)
    return time.process_time() - started


@pytest.mark.parametrize("name", ["SingleShotDetector", "RetinaNet"])
def test_training_keeps_nine_tenths_of_a_plain_loops_speed(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    chips = make_chips(tmp_path, "PASCAL_VOC_rectangles", chip_px=CHIP, grid=(7, 7))
    data = prepare_data(
        chips, chip_size=CHIP, batch_size=BATCH, val_split_pct=0.01, working_dir=tmp_path
    )
    assert len(data.valid_ds) == 1
    model = made(name, data)
    model.unfreeze()
    engine_s(model), plain_s(model, data)
    pairs = [(plain_s(model, data), engine_s(model)) for _ in range(TURNS)]
    plain, engine = (min(times) for times in zip(*pairs, strict=True))
    chips_seen = EPOCHS * len(data.train_ds)
    print(
        f"\n{name} resnet18, {CHIP} px, batch {BATCH}, 1 thread: plain loop "
        f"{chips_seen / plain:.1f} chips/s, fit {chips_seen / engine:.1f} chips/s with one chip "
        f"scored twice, ratio {plain / engine:.3f}"
    )
    assert plain / engine >= 0.9


def trained(model: Any, rate: float) -> tuple[float, int]:
    """Train for the budget; seconds of an epoch, and how many there were."""
    model.unfreeze()
    started = time.process_time()
    model.fit(1, rate / 10, one_cycle=False, checkpoint=False)
    each = time.process_time() - started
    epochs = max(1, int((BUDGET_S - each) / each))
    started = time.process_time()
    model.fit(epochs, rate, checkpoint=False)
    return (time.process_time() - started) / epochs, epochs


def scene_precision(found: Any, labels: Path, classes: list[str]) -> float:
    """AP50 over the whole scene, by the bounds of the objects."""
    truth = gpd.read_file(labels)
    index = {name: number for number, name in enumerate(classes, start=1)}
    wanted = truth.bounds.to_numpy(), truth["class_name"].map(index).to_numpy()
    seen = Detections(
        found.bounds.to_numpy().reshape(-1, 4),
        found["Confidence"].to_numpy(np.float32),
        found["Class"].map(index).to_numpy(np.int64),
    )
    return mean_precision(average_precision([wanted], [seen], len(classes)))


@pytest.mark.parametrize("name", list(FAMILY))
def test_the_family_on_a_scene_of_four_classes(name: str, tmp_path: Path) -> None:
    """Prints a row of the table in the README."""
    torch.set_num_threads(1)
    masks = name == "MaskRCNN"
    chips, scene = chips_with_scene(
        tmp_path, "RCNN_Masks" if masks else "PASCAL_VOC_rectangles", chip_px=128, grid=(4, 4),
        bands=3, dtype="uint8", classes=KINDS, chip_format="TIFF", seed=11,
    )  # fmt: skip
    data = prepare_data(
        chips, chip_size=128, batch_size=4, val_split_pct=0.1, working_dir=tmp_path / "work"
    )
    model = made(name, data)
    epoch_s, epochs = trained(model, FAMILY[name][1])
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = detect_objects(
            str(scene.raster), model, {"threshold": 0.05, "nms_overlap": 0.5},
            tmp_path / "found.parquet", progress=False,
        )  # fmt: skip
    spent = time.process_time() - started
    pixels = scene.grid.width * scene.grid.height / 1e6
    score = scene_precision(found, scene.labels, list(KINDS))
    millions = sum(p.numel() for p in model.net.parameters()) / 1e6
    print(
        f"\n| `{name}` | {score:.2f} | {epochs} | {epoch_s:.1f} | {pixels / spent:.2f} | "
        f"{millions:.1f} |"
    )
    assert np.isfinite(score)
