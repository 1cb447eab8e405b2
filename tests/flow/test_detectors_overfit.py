"""Every detector learns eight real chips by heart."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import rasterio
import shapely
import torch

from geodl.base.errors import OfflineWarning
from geodl.base.models import MODELS
from geodl.data.prepare import prepare_data
from geodl.tasks.objects import BoxMeter
from geodl.tools.export_training_data import export_training_data
from geodl.train.device import net_device, to_device

pytestmark = [pytest.mark.real]

SIDE = {"x": 128, "y": 128}
# Three by three chips of the scene of 400 pixels: eight to train, one to validate.
STEP = {"x": 136, "y": 136}
FEWER_REGIONS = {
    "rpn_pre_nms_top_n_train": 400,
    "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 200,
    "box_batch_size_per_image": 128,
}
FEW_QUERIES = {"backbone": "resnet18", "num_queries": 40, "width": 64, "encoder_layers": 1}
NOISY_QUERIES = {**FEW_QUERIES, "decoder_layers": 2, "denoising_queries": 20}
# Arguments, epochs of two batches, and the rate.
CASES: dict[str, tuple[dict[str, Any], int, float]] = {
    "SingleShotDetector": ({"backbone": "resnet18", "focal_loss": True, "drop": 0.0}, 100, 2e-3),
    "FasterRCNN": ({"backbone": "resnet18", **FEWER_REGIONS}, 60, 5e-4),
    "RetinaNet": ({"backbone": "resnet18"}, 100, 1e-3),
    "YOLOv3": ({"backbone": "resnet18"}, 100, 1e-3),
    "EfficientDet": ({}, 250, 3e-3),
    "DETReg": ({**FEW_QUERIES, "decoder_layers": 3}, 90, 1e-3),
    "RTDetrV2": (NOISY_QUERIES, 50, 1e-3),
    "DFine": (NOISY_QUERIES, 50, 1e-3),
}
# Least AP50 of those whose queries learn slowly, from random weights.
LEAST = {"DETReg": 0.5, "RTDetrV2": 0.5, "DFine": 0.5}


@pytest.fixture(scope="session")
def crown_chips(sample_data: Path, make_once: Any) -> Path:
    """Nine chips of 128 pixels of a forest with boxes of crowns."""

    def make(place: Path) -> None:
        folder = sample_data / "trees_rgb"
        rows = pd.read_csv(folder / "OSBS_029.csv")
        with rasterio.open(folder / "OSBS_029.tif") as file:
            a, _, c, _, e, f = file.transform[:6]
            crs = file.crs
        boxes = shapely.box(
            c + a * rows.xmin, f + e * rows.ymax, c + a * rows.xmax, f + e * rows.ymin
        )
        crowns = gpd.GeoDataFrame(
            {"classvalue": 1, "classname": rows.label}, geometry=boxes, crs=crs
        )
        export_training_data(
            folder / "OSBS_029.tif", crowns, "TIFF", SIDE, STEP, "PASCAL_VOC_rectangles",
            output_location=str(place / "chips"),
        )  # fmt: skip

    return make_once("crown-chips", make) / "chips"


def learned(name: str, chips: Path, place: Path) -> float:
    """AP50 on the training chips themselves."""
    arguments, epochs, rate = CASES[name]
    data = prepare_data(
        chips, chip_size=128, batch_size=4, val_split_pct=0.1, transforms=False, working_dir=place
    )
    assert len(data.train_ds) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        model = MODELS[name](data, **arguments)
    model.unfreeze()
    model.fit(epochs, rate, checkpoint=False)
    meter = BoxMeter(len(model.task.classes))
    device = net_device(model.net)
    for i in range(len(data.train_ds)):
        batch = model.task.collate([data.train_ds[i]])
        x = to_device(batch["image"], device)
        with torch.inference_mode():
            found = model.task.detect(model.net, x, threshold=0.05, nms_overlap=0.5)
        meter.update({"state": found}, batch)
    return meter.compute()["average_precision"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_it_learns_eight_real_chips_by_heart(name: str, crown_chips: Path, tmp_path: Path) -> None:
    score = learned(name, crown_chips, tmp_path)
    assert score >= LEAST.get(name, 0.9), f"{name} reaches AP50 {score:.3f} only"
