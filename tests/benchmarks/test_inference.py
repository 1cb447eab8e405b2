"""Wall-to-wall inference against the bare forward loop, and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from geodl.bundle import load_model, resolve_model
from geodl.core.plan import TilePlan
from geodl.io.source import open_source
from geodl.testing.tiny import random_model, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects
from geodl.tools.device import run_device

pytestmark = pytest.mark.bench

TILE, PADDING = 256, 32
# More than a random detector is sure of: no box is read, no time goes into many.
THRESHOLD = 0.9
# What a GPU needs to be busy.
BATCH = 32 if torch.cuda.is_available() else 4


def write_scene(path: Path, size: int) -> Path:
    """uint8 (3, size, size), all valid, noisy: written by rows of tiles, so of any size."""
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 256, (3, 512, min(size, 4096)), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(0, 0, 0.5, 0.5), tiled=True, blockxsize=512,
        blockysize=512, compress="deflate", zlevel=1, interleave="pixel", bigtiff="if_safer",
    ) as file:  # fmt: skip
        for row in range(0, size, 512):
            height = min(512, size - row)
            strip = np.roll(np.tile(noise, -(-size // noise.shape[2])), row, axis=2)
            file.write(strip[:, :height, :size], window=Window(0, row, size, height))
    return path


def write_unet(folder: Path, backbone: str) -> Path:
    """A package of a random U-Net with five classes."""
    return random_model(
        folder,
        "UnetClassifier",
        "pixels",
        {"backbone": backbone},
        classes={k: f"c{k}" for k in range(1, 6)},
        tile_px=TILE,
    )


def write_retina(folder: Path, backbone: str) -> Path:
    """A package of a random RetinaNet of two classes."""
    parameters = {"backbone": backbone, "scales": [1.0, 1.26, 1.59], "ratios": [0.5, 1.0, 2.0]}
    return random_model(folder, "RetinaNet", "objects", parameters, tile_px=TILE)


def bare_loop(model: Path, raster: Path, folder: Path, precision: str) -> float:
    """Seconds of forward and decoding alone over the run's tiles in memory."""
    device = run_device(None)
    loaded = load_model(resolve_model(str(model), folder), device)
    plan = TilePlan.make(open_source(raster).grid, tile_px=TILE, padding_px=PADDING)
    few = torch.rand(BATCH, 3, TILE, TILE, device=device)
    few = few.contiguous(memory_format=torch.channels_last)
    half = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def timed(batches: int) -> float:
        started = time.perf_counter()
        for _ in range(batches):
            if loaded.contract.kind == "objects":
                loaded.task.detect(loaded.net, few, threshold=THRESHOLD, nms_overlap=0.1)
            else:
                loaded.net(few)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with torch.inference_mode(), half:
        timed(1)
        return timed(-(-plan.tile_count // BATCH))


def run_tool(model: Path, raster: Path, output: Path, precision: str) -> dict[str, Any]:
    """The manifest of the product that the model's tool makes."""
    shared = {"padding": PADDING, "batch_size": BATCH, "precision": precision}
    if output.suffix == ".tif":
        own: dict[str, Any] = {**shared, "predict_background": True}
        classify_pixels(raster, str(model), own, output, progress=False)
    else:
        own = {**shared, "threshold": THRESHOLD}
        detect_objects(raster, str(model), own, output, progress=False)
    manifest: dict[str, Any] = json.loads(Path(f"{output}.manifest.json").read_text())
    return manifest


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("write", "backbone", "product"),
    [(write_unet, "resnet34", "map.tif"), (write_retina, "resnet34", "found.parquet")],
    ids=["UnetClassifier", "RetinaNet"],
)
def test_end_to_end_against_the_bare_forward_loop(
    tmp_path: Path, write: Any, backbone: str, product: str, precision: str
) -> None:
    size = int(os.environ.get("GEODL_BENCH_SIZE", "2048"))
    raster = write_scene(tmp_path / "scene.tif", size)
    model = write(tmp_path / "model", backbone)
    before = bare_loop(model, raster, tmp_path, precision)
    started = time.perf_counter()
    manifest = run_tool(model, raster, tmp_path / product, precision)
    wall = time.perf_counter() - started
    after = bare_loop(model, raster, tmp_path, precision)
    limit = (before + after) / 2
    print(
        f"\n{manifest['model']['model_name']} {backbone}, {size} x {size} px, {manifest['tiles']} "
        f"tiles of {TILE}, padding {PADDING}, batch {BATCH}, {manifest['device']}, "
        f"{torch.get_num_threads()} threads, channels_last, {precision}\nlimit {before:.2f} / "
        f"{after:.2f} s (before / after), geodl {wall:.2f} s = {size**2 / 1e6 / wall:.3f} MPix/s, "
        f"ratio {limit / wall:.3f}, device busy {manifest['device_busy']:.2f}\n"
        f"stages {manifest['seconds']}"
    )
    assert limit / wall > 0.5


MEMORY = """
import json, sys, time
from geodl.runtime.memory import peak_bytes
from geodl.testing.tiny import register_tiny_models
from geodl.testing.tiny import random_model, tiny_model
from geodl.tools.classify_pixels import classify_pixels
register_tiny_models()
raster, model, output = sys.argv[1:]
started = time.perf_counter()
classify_pixels(raster, model, {"predict_background": True}, output, progress=False)
wall = time.perf_counter() - started
print(json.dumps([peak_bytes() / 2**20, wall]))
"""


@pytest.mark.parametrize("sizes", [(10_000, 20_000)])
def test_peak_memory_does_not_grow_with_the_raster(tmp_path: Path, sizes: tuple[int, int]) -> None:
    model = tiny_model(tmp_path / "tiny", "pixels", tile_px=256)
    peaks = []
    for size in sizes:
        raster = write_scene(tmp_path / f"scene{size}.tif", size)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(raster), str(model), str(tmp_path / f"{size}.tif")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peak, wall = json.loads(done.stdout.splitlines()[-1])
        manifest = json.loads((tmp_path / f"{size}.tif.manifest.json").read_text())
        print(
            f"\n{size} px: peak {peak:.0f} MB, {wall:.1f} s = {size**2 / 1e6 / wall:.1f} MPix/s, "
            f"{manifest['seconds']}"
        )
        peaks.append(peak)
        raster.unlink()
    assert peaks[1] < 1500
    assert peaks[1] < peaks[0] * 1.15
