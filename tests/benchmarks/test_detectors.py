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
import rasterio
import shapely
import torch
from rasterio.features import rasterize

from geodl.base.errors import DataWarning, OfflineWarning
from geodl.base.models import MODELS
from geodl.base.quiet import quiet_lock
from geodl.core.detections import Detections
from geodl.data.prepare import prepare_data
from geodl.ops.average_precision import average_precision, mean_precision
from geodl.testing import make_chips
from geodl.tools.detect_objects import detect_objects
from geodl.tools.export_training_data import export_training_data

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::geodl.base.errors.DataWarning"),
]

EPOCHS, CHIP, BATCH, TURNS = 2, 64, 8, 3
# CPU seconds of training that each detector gets for the table, of one thread.
BUDGET_S = float(os.environ.get("GEODL_BENCH_TRAIN_S", "90"))
# Class names with mean colour, and the size in pixels.
KINDS: dict[str, tuple[tuple[int, int, int], tuple[int, int]]] = {
    "house": ((170, 90, 75), (12, 22)),
    "tree": ((35, 80, 30), (14, 14)),
    "pad": ((205, 195, 165), (34, 26)),
    "pond": ((30, 50, 90), (30, 18)),
}
TRAIN_PX, OTHER_PX = 512, 384
SMALL = {"backbone": "resnet18"}
REGIONS = {
    "rpn_pre_nms_top_n_train": 400, "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 200, "box_batch_size_per_image": 64,
}  # fmt: skip
QUERIES = {**SMALL, "num_queries": 60, "width": 64, "encoder_layers": 1}
FAMILY: dict[str, tuple[dict[str, Any], float]] = {
    "SingleShotDetector": ({**SMALL, "focal_loss": True, "drop": 0.0}, 2e-3),
    "YOLOv3": (SMALL, 1e-3),
    "EfficientDet": ({}, 2e-3),
    "RetinaNet": (SMALL, 1e-3),
    "FasterRCNN": ({**SMALL, **REGIONS}, 5e-4),
    "MaskRCNN": ({**SMALL, **REGIONS}, 5e-4),
    "DETReg": ({**QUERIES, "decoder_layers": 3}, 1e-3),
    "RTDetrV2": ({**QUERIES, "decoder_layers": 2, "denoising_queries": 20}, 1e-3),
    "DFine": ({**QUERIES, "decoder_layers": 2, "denoising_queries": 20}, 1e-3),
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
    # The first epoch loads packages and plans convolutions.
    for _ in range(2):
        started = time.process_time()
        model.fit(1, rate / 10, one_cycle=False, checkpoint=False)
        each = time.process_time() - started
    epochs = max(1, round(BUDGET_S / each) - 2)
    started = time.process_time()
    model.fit(epochs, rate, checkpoint=False)
    return (time.process_time() - started) / epochs, epochs


def crowd(rng: np.random.Generator, kind: str, around: Any) -> list[Any]:
    """Objects of a kind side by side, each touching the next, turned together by any angle."""
    (width, height), angle = KINDS[kind][1], rng.uniform(0, np.pi)
    sides = np.array([width, height]) * rng.uniform(0.8, 1.25)
    along = np.array([np.cos(angle), np.sin(angle)]) * sides[0]
    made = []
    for number in range(int(rng.integers(2, 5)) if kind in ("house", "tree") else 1):
        shape = shapely.box(-sides[0] / 2, -sides[1] / 2, sides[0] / 2, sides[1] / 2)
        if kind in ("tree", "pond"):
            shape = shapely.affinity.scale(shapely.Point(0, 0).buffer(0.5), *sides)
        shape = shapely.affinity.rotate(shape, angle, origin=(0, 0), use_radians=True)
        made.append(shapely.affinity.translate(shape, *(around + number * along)))
    return made


def crowded_scene(folder: Path, side: int, seed: int) -> tuple[Path, Path]:
    """Raster and labels: houses in terraces, trees in clumps, pads and ponds at all angles."""
    rng = np.random.default_rng(seed)
    free = shapely.box(3, 3, side - 3, side - 3)
    shapes: list[Any] = []
    kinds: list[str] = []
    for _ in range(side * side // 900):
        kind = str(rng.choice(list(KINDS), p=[0.35, 0.35, 0.15, 0.15]))
        group = crowd(rng, kind, rng.uniform(0, side, 2))
        ground = shapely.union_all(group)
        if free.contains(ground):
            free = free.difference(ground.buffer(4))
            shapes += group
            kinds += [kind] * len(group)
    picture = rng.normal(0, 9, (side // 8, side // 8)).repeat(8, 0).repeat(8, 1)[..., None]
    picture = np.array([115, 120, 85]) + picture + rng.normal(0, 9, (side, side, 3))
    with quiet_lock:
        index = rasterize(zip(shapes, range(1, len(shapes) + 1), strict=True), (side, side))
    for number, kind in enumerate(kinds, start=1):
        tone = np.array(KINDS[kind][0]) + rng.normal(0, 14)
        own = index == number
        picture[own] = tone + rng.normal(0, 7, (int(own.sum()), 3))
    folder.mkdir()
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
    }  # fmt: skip
    with rasterio.open(folder / "scene.tif", "w", **profile) as file:
        file.write(picture.clip(1, 255).astype(np.uint8).transpose(2, 0, 1))
    placed = shapely.affinity.affine_transform
    outlines = [placed(shape, (1, 0, 0, -1, 5e5, 5e6)) for shape in shapes]
    labels = gpd.GeoDataFrame({"class_name": kinds}, geometry=outlines, crs="EPSG:32633")
    labels.to_file(folder / "labels.gpkg")
    return folder / "scene.tif", folder / "labels.gpkg"


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


def chips_of(folder: Path, file_format: str) -> Path:
    """Sixteen chips of a crowded scene."""
    raster, labels = crowded_scene(folder / "trained", TRAIN_PX, 11)
    tile = {"x": 128, "y": 128}
    export_training_data(
        str(raster), str(labels), "TIFF", tile, tile, file_format, classvalue_field="class_name",
        output_location=str(folder / "chips"), progress=False,
    )  # fmt: skip
    return folder / "chips"


@pytest.mark.parametrize("name", list(FAMILY))
def test_the_family_on_a_scene_of_four_classes(name: str, tmp_path: Path) -> None:
    """Prints a row of the table in the README: scores on a scene that it never saw."""
    torch.set_num_threads(1)
    chips = chips_of(tmp_path, "RCNN_Masks" if name == "MaskRCNN" else "PASCAL_VOC_rectangles")
    data = prepare_data(
        chips, chip_size=128, batch_size=4, val_split_pct=0.1, working_dir=tmp_path / "work"
    )
    model = made(name, data)
    epoch_s, epochs = trained(model, FAMILY[name][1])
    raster, labels = crowded_scene(tmp_path / "other", OTHER_PX, 12)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = detect_objects(
            str(raster), model, {"threshold": 0.05, "nms_overlap": 0.5},
            tmp_path / "found.parquet", progress=False,
        )  # fmt: skip
    spent = time.process_time() - started
    score = scene_precision(found, labels, list(KINDS))
    millions = sum(p.numel() for p in model.net.parameters()) / 1e6
    print(
        f"\n| `{name}` | {score:.2f} | {epochs} | {epoch_s:.1f} | "
        f"{OTHER_PX**2 / 1e6 / spent:.2f} | {millions:.1f} |"
    )
    assert np.isfinite(score)
