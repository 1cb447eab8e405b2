"""Point clouds against the limits of the same machine, in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import laspy
import pytest
import torch

from geodl.bundle import load_model, resolve_model
from geodl.core.contract import Normalization
from geodl.core.points import PointInput, PointPlan
from geodl.infer.points import tile_blocks
from geodl.io.cloud import open_cloud
from geodl.io.manifest import read_manifest
from geodl.io.point_cells import SortedCloud
from geodl.nets.threads import torch_threads
from geodl.runtime.cores import available_cores
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny import random_model
from geodl.testing.tiny_points import tiny_points
from geodl.tools.classify_points import classify_points

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

POINTS = int(os.environ.get("GEODL_BENCH_POINTS", 5_000_000))
DENSITY = 10.0


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    side = (POINTS / DENSITY) ** 0.5
    return make_cloud(
        tmp_path_factory.mktemp("bench") / "cloud.laz", points=POINTS, side=side, point_format=7
    )


def test_decoding_uses_the_cores(cloud: Path) -> None:
    def single() -> float:
        started = time.perf_counter()
        with laspy.open(cloud, laz_backend=laspy.LazBackend.Lazrs) as reader:
            for _ in reader.chunk_iterator(1_000_000):
                pass
        return time.perf_counter() - started

    def ours() -> float:
        opened = open_cloud(cloud)
        started = time.perf_counter()
        for part in opened.parts:
            opened.files[0].read_raw(part)
        return time.perf_counter() - started

    # In turn, so that both meet the same load of the machine.
    times = [(single(), ours()) for _ in range(3)]
    slow, fast = (min(column) for column in zip(*times, strict=True))
    ratio = slow / fast / available_cores()
    print(
        f"\ndecode: lazrs on one thread {POINTS / slow / 1e6:.2f} Mpts/s, geodl "
        f"{POINTS / fast / 1e6:.2f} Mpts/s on {available_cores()} cores; "
        f"{ratio:.2f} of cores x single"
    )
    assert ratio >= 0.9


CHILD = """
import sys, time
from pathlib import Path
from geodl.runtime.memory import peak_bytes
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_points import register_tiny_points
from geodl.tools.classify_points import classify_points
register_tiny_points()
cloud, model, output = sys.argv[1:]
started = time.perf_counter()
result = classify_points(cloud, model, output, progress=False, overwrite=True)
print(time.perf_counter() - started, peak_bytes() / 2**20)
"""


def measured(cloud: Path, model: Path, output: Path) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a run in a process of its own."""
    command = [sys.executable, "-c", CHILD, *map(str, (cloud, model, output))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def test_memory_does_not_grow_with_the_cloud(tmp_path: Path) -> None:
    model = tiny_points(tmp_path / "model", block_size=20.0, max_points=8192)
    peaks: dict[int, float] = {}
    for points in (POINTS, 10 * POINTS):
        side = (points / DENSITY) ** 0.5
        path = make_cloud(tmp_path / f"{points}.laz", points=points, side=side)
        seconds, peaks[points] = measured(path, model, tmp_path / f"out_{points}.laz")
        print(
            f"\nclassify_points, {points / 1e6:g} million points: {seconds:.0f} s, "
            f"{points / seconds / 1e6:.3f} Mpts/s, "
            f"{seconds / 60 / (points / DENSITY / 1e6):.1f} minutes per km2 at {DENSITY:g} points "
            f"per m2, peak {peaks[points]:.0f} MB"
        )
        path.unlink()
    few, many = peaks.values()
    assert many < 1.25 * few + 100


def test_a_network_takes_most_of_the_time(cloud: Path, tmp_path: Path) -> None:
    """The end-to-end rate against the network's own on the same blocks, prepared beforehand."""
    package = _random_package(tmp_path / "net")
    few = make_cloud(tmp_path / "few.laz", points=300_000, side=(300_000 / DENSITY) ** 0.5)
    with torch_threads(available_cores()):
        model = load_model(resolve_model(package, tmp_path))
        spec = model.contract.points
        assert spec is not None
        opened = open_cloud(few)
        sorted_cloud = SortedCloud.in_memory(opened, [], cell=1e4)
        plan = PointPlan(size=1e4, buffer=0.0, tiles=tuple(sorted_cloud.tile_counts(1)))
        tile = sorted_cloud.read(next(plan.blocks()))
        tables = [
            spec.encode(tile.xyz[block.positions], {}, block.centre)
            for block in islice(tile_blocks(tile, spec), 100)
        ]
        seen = sum(len(table) for table in tables)
        started = time.perf_counter()
        batches = [model.task.prepare([table]) for table in tables]
        neighbours_s = time.perf_counter() - started
        with torch.inference_mode():
            model.task.scores(model.net, batches[0])
            started = time.perf_counter()
            for batch in batches:
                model.task.scores(model.net, batch)
        forward_s = time.perf_counter() - started
        classify_points(few, package, tmp_path / "out.laz", progress=False)
        manifest = read_manifest(tmp_path / "out.laz")
    # Each point goes through the network four times; looking for neighbours is a part of it.
    rate = 4 * manifest["points"] / manifest["wall_s"]
    layers, whole = seen / forward_s, seen / (forward_s + neighbours_s)
    print(
        f"\nRandLANet: layers alone {layers / 1e3:.1f} thousand points per second, with neighbours "
        f"{whole / 1e3:.1f}; classify_points {rate / 1e3:.1f} (four votes each): "
        f"{rate / layers:.2f} and {rate / whole:.2f}; seconds {manifest['seconds']}"
    )
    assert rate >= 0.8 * whole


def _random_package(folder: Path) -> Path:
    """RandLANet as it comes, with random weights, for blocks of some 4000 points."""
    side = 20.0
    points = PointInput(block_size=side, max_points=8192, scale=side / 2, codes=(2, 5, 6))
    return random_model(
        folder,
        "RandLANet",
        "points",
        {
            "encoder_params": {},
            "codes": [2, 5, 6],
            "focal_loss": False,
            "class_weights": None,
            "spacing": 2 / 4000**0.5,
        },
        classes={2: "Ground", 5: "High vegetation", 6: "Building"},
        bands=points.columns,
        extract_bands=(),
        source_bands=0,
        tile_px=1,
        dtype="float32",
        normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
        points=points,
    )
