"""Every pixel model learns a handful of real chips by heart, to the score that stands here."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geodl.base.errors import OfflineWarning
from geodl.base.models import MODELS
from geodl.data.prepare import prepare_data
from geodl.tasks.pixel_metrics import precision_recall_f1
from geodl.tools.export_training_data import export_training_data
from geodl.train.device import net_device, to_device

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]

# Metres to degrees, near enough for the width of a road.
DEG_PER_M = 1 / 111_320
RESNET = {"backbone": "resnet18"}


@dataclass(frozen=True)
class Case:
    """A model on chips of a set, and the score that it reaches on them."""

    model: str
    chips: str
    metric: str
    least: float
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 60
    rate: float = 2e-3

    @property
    def name(self) -> str:
        more = "-".join(str(v) for k, v in self.options.items() if k != "backbone")
        return "-".join(part for part in (self.model, more, self.chips) if part)


LAND = [
    Case(model, chips, "mIoU", least, {**RESNET, **options})
    # Answers at a stride of eight pixels leave the borders of small things to interpolation.
    for model, options, least in (
        ("UnetClassifier", {}, 0.9),
        ("PSPNetClassifier", {}, 0.9),
        ("PSPNetClassifier", {"use_unet": False}, 0.8),
        ("DeepLab", {}, 0.8),
    )
    for chips in ("vegas3", "vegas8", "zurich")
]
CASES = [
    *LAND,
    Case("MultiTaskRoadExtractor", "roads", "mIoU", 0.8, epochs=40),
    Case("ConnectNet", "roads", "mIoU", 0.95, {**RESNET, "mtl_model": "linknet"}),
    Case("HEDEdgeDetector", "roads", "f1", 0.8, RESNET),
    Case("BDCNEdgeDetector", "roads", "f1", 0.8, RESNET),
    Case("ChangeDetector", "guyana", "f1", 0.75, RESNET, epochs=80),
    Case("ChangeDetector", "guyana", "f1", 0.75, {**RESNET, "attention_type": "BAM"}, epochs=80),
]


def export(image: Path, labels: Any, place: Path, side: int, step: int, **more: Any) -> None:
    export_training_data(
        image, labels, "TIFF", side, step, "Classified_Tiles", output_location=place,
        progress=False, **more,
    )  # fmt: skip


def vegas(bands: int) -> Any:
    def make(data: Path, place: Path) -> None:
        folder = data / "vegas_landcover"
        labels = folder / "tiff_3channel_uint8.geojson"
        image = folder / f"tiff_{bands}channel_uint8.tif"
        export(image, labels, place, 128, 250, classvalue_field="label")

    return make


def zurich(data: Path, place: Path) -> None:
    folder = data / "trees_zurich"
    image = folder / "img" / "1091-322_00.tif"
    # The masks lie on the images' pixels and do not say so.
    mask = place.parent / "mask.tif"
    with rasterio.open(image) as file, rasterio.open(folder / "response_img" / image.name) as trees:
        profile = {**file.profile, "count": 1, "photometric": None, "compress": None}
        with rasterio.open(mask, "w", **profile) as copy:
            copy.write(trees.read())
    export(image, mask, place, 64, 55)


def roads(data: Path, place: Path) -> None:
    folder = data / "roads_vegas"
    export(
        folder / "RGB-PanSharpen_AOI_2_Vegas_img0.tif", folder / "AOI_2_Vegas_img0.geojson",
        place, 128, 560, buffer_radius=3 * DEG_PER_M,
    )  # fmt: skip


def guyana(data: Path, place: Path) -> None:
    folder = data / "change_guyana"
    with rasterio.open(folder / "example_t0.tif") as file:
        cell = file.res[0]
    # The one change is 11 pixels wide, and features of the network four; half the cell size keeps
    # its border from being most of it.
    export(
        folder / "example_t0.tif", folder / "example.geojson", place, 96, 48,
        additional_input_raster=folder / "example_t1.tif", context={"cellSize": cell / 2},
    )  # fmt: skip


SETS = {
    "vegas3": vegas(3), "vegas8": vegas(8), "zurich": zurich, "roads": roads, "guyana": guyana,
}  # fmt: skip


def learned(case: Case, chips: Path, place: Path) -> float:
    """The metric on the training chips themselves."""
    more = {"dataset_type": "ChangeDetection"} if case.chips == "guyana" else {}
    side = {"zurich": 64, "guyana": 96}.get(case.chips, 128)
    data = prepare_data(
        chips, chip_size=side, batch_size=4, val_split_pct=0.1, transforms=False,
        working_dir=place, **more,
    )  # fmt: skip
    assert len(data.train_ds) <= 10, f"{len(data.train_ds)} chips are more than a handful"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        model = MODELS[case.model](data, **case.options)
    model.unfreeze()
    model.fit(case.epochs, case.rate, checkpoint=False)
    meter, device = model.task.new_meter(), net_device(model.net)
    with torch.no_grad():
        for i in range(len(model.data.train_ds)):
            batch = to_device(model.task.collate([model.data.train_ds[i]]), device)
            meter.update(model.task.validate(model.net, batch), batch)
    if case.chips == "guyana":
        return float(precision_recall_f1(meter.counts())[2][1])
    return float(np.float64(meter.compute()[case.metric]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_learns_real_chips_by_heart(
    case: Case, sample_data: Path, make_once: Any, tmp_path: Path, record_property: Any
) -> None:
    def make(place: Path) -> None:
        SETS[case.chips](sample_data, place / "chips")

    chips = make_once(f"overfit-{case.chips}", make) / "chips"
    score = learned(case, chips, tmp_path)
    record_property(case.metric, round(score, 3))
    assert score >= case.least, f"{case.name} reaches {case.metric} {score:.3f} only"
