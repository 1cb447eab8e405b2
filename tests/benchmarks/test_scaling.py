"""Two workers against two bare loops, a nearly free network against I/O alone, and estimates."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from geodl.core.grid import Window as Pixels
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.io.writers import write_raster
from geodl.nets.threads import torch_threads
from geodl.runtime.connect import connect
from geodl.runtime.cores import available_cores
from geodl.testing.tiny import random_model, register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

# Whole blocks of whole batches, so that the bare loops run just as many; about a minute of two
# workers, of which planning and packing the product are 2 %.
TILE, PADDING, BATCH, ACROSS = 256, 32, 4, 24
SIZE = ACROSS * 192
BATCHES = ACROSS**2 // BATCH
ROUNDS = 3
ARGUMENTS = {"padding": PADDING, "batch_size": BATCH, "predict_background": True}
LOOP = f"""
import sys, time
import torch
from geodl.bundle import load_model, resolve_model
model, folder, batches = sys.argv[1:]
torch.set_num_threads(1)
net = load_model(resolve_model(model, folder)).net
x = torch.rand({BATCH}, 3, {TILE}, {TILE}).contiguous(memory_format=torch.channels_last)
with torch.inference_mode():
    net(x)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for _ in range(int(batches)):
        net(x)
print(time.perf_counter() - started)
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _scene(tmp_path_factory.mktemp("scene") / "scene.tif", SIZE)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(
        random_model(
            tmp_path_factory.mktemp("unet") / "model",
            "UnetClassifier",
            "pixels",
            {"backbone": "resnet34"},
            classes={k: f"c{k}" for k in range(1, 6)},
            tile_px=TILE,
        )
    )


def _scene(path: Path, size: int) -> Path:
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(300_000, 5_000_000, 0.5, 0.5), tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", zlevel=1, interleave="pixel",
    ) as file:  # fmt: skip
        for row in range(0, size, 512):
            strip = rng.integers(1, 256, (3, 512, size), dtype=np.uint8)
            file.write(strip, window=Window(0, row, size, 512))
    return path


def _loops(model: str, folder: Path, processes: int, batches: int) -> float:
    """Seconds of so many bare loops at once, of the slowest."""
    running = []
    for number in range(processes):
        own = folder / f"loop{time.monotonic_ns()}-{number}"
        own.mkdir()
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", LOOP, model, str(own), str(batches)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        out, _ = process.communicate()
        answers.append(float(out))
    return max(answers)


def _blocks_s(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(Path(f"{path}.manifest.json").read_text())
    return manifest


def test_two_workers_gain_what_two_loops_gain(scene: Path, unet: str, tmp_path: Path) -> None:
    """The middle one of some rounds, each with its own loops: machines have neighbours."""
    ratios = []
    for number in range(ROUNDS):
        walls, loops = {}, {}
        for workers in (1, 2):
            folder = tmp_path / f"{number}-{workers}"
            folder.mkdir()
            loops[workers] = _loops(unet, folder, workers, BATCHES // workers)
            walls[workers] = _run_s(scene, unet, folder, workers)
        gain, limit = walls[1] / walls[2], loops[1] / loops[2]
        ratios.append(gain / limit)
        manifest = _blocks_s(folder / "map.tif")
        print(
            f"\none worker {walls[1]:.1f} s, two {walls[2]:.1f} s: gain {gain:.2f}; bare loops "
            f"{loops[1]:.1f} s and {loops[2]:.1f} s: gain {limit:.2f}; ratio {gain / limit:.3f}, "
            f"device busy {manifest['device_busy']:.3f}; against the loops "
            f"{loops[1] / walls[1]:.3f} and {loops[2] / walls[2]:.3f}"
        )
    print(f"two workers gain {median(ratios):.3f} of what two loops gain")
    assert median(ratios) > 0.9


def _run_s(scene: Path, model: str, folder: Path, workers: int) -> float:
    """Seconds of a run on so many workers."""
    how: dict[str, Any] = {"progress": False}
    with connect("local", workers=workers, dashboard_address=None) as client:
        # What a long run has behind it: workers that have loaded torch and the model.
        small = {"extent": {"xmin": 300_000, "ymin": 4_999_900, "xmax": 300_300,
                            "ymax": 5_000_000}}  # fmt: skip
        classify_pixels(
            scene, model, ARGUMENTS, folder / "warm.tif", context=small, client=client,
            block_size=192, **how,
        )  # fmt: skip
        started = time.monotonic()
        classify_pixels(
            scene, model, ARGUMENTS, folder / "map.tif", client=client, block_size=384, **how
        )
        return time.monotonic() - started


def test_an_estimate_is_near_the_truth(scene: Path, unet: str, tmp_path: Path) -> None:
    how = {"progress": False, "block_size": 768}
    before = classify_pixels(scene, unet, ARGUMENTS, tmp_path / "a.tif", estimate=True, **how)
    started = time.monotonic()
    classify_pixels(scene, unet, ARGUMENTS, tmp_path / "a.tif", **how)
    wall_h = (time.monotonic() - started) / 3600
    after = classify_pixels(scene, unet, ARGUMENTS, tmp_path / "b.tif", estimate=True, **how)
    ratio = (before + after) / 2 / wall_h
    print(f"\nestimates {before:.5f} and {after:.5f} hours, actual {wall_h:.5f}: {ratio:.2f}")
    assert 0.75 < ratio < 1.25


@pytest.fixture
def all_cores() -> Iterator[None]:
    """Torch takes them, as it does outside of tests."""
    with torch_threads(available_cores()):
        yield


@pytest.mark.usefixtures("all_cores")
def test_an_almost_free_network_against_decode_and_write(tmp_path: Path) -> None:
    register_tiny_models()
    size = 8192
    scene = _scene(tmp_path / "scene.tif", size)
    model = str(tiny_model(tmp_path / "tiny", "pixels", tile_px=TILE))
    # What a long run has behind it: torch and the model are loaded.
    small = _scene(tmp_path / "small.tif", 512)
    classify_pixels(small, model, ARGUMENTS, tmp_path / "small_map.tif", progress=False)
    started = time.monotonic()
    classify_pixels(scene, model, ARGUMENTS, tmp_path / "map.tif", progress=False)
    wall = time.monotonic() - started
    started = time.monotonic()
    source = open_source(scene)
    store = RegionStore.create(
        tmp_path / "regions.zarr", shape=(1, size, size), chunk=512, dtype=np.dtype(np.uint8),
        fill=255, grid=source.grid, band_names=("Class",),
    )  # fmt: skip
    with rasterio.open(tmp_path / "map.tif") as file:
        product = file.read()
    for row in range(0, size, 2048):
        for col in range(0, size, 2048):
            window = Pixels(row=row, col=col, height=2048, width=2048)
            source.read(window)
            store.write(window, product[:, row : row + 2048, col : col + 2048])
    write_raster(store, tmp_path / "limit.tif")
    limit = time.monotonic() - started
    print(
        f"\n{size} px, one convolution: {wall:.1f} s = {size**2 / 1e6 / wall:.1f} MPix/s; decode "
        f"and write alone {limit:.1f} s: ratio {limit / wall:.2f}; "
        f"{_blocks_s(tmp_path / 'map.tif')['seconds']}"
    )
    assert limit / wall > 0.3
