"""kill -9 costs the blocks in flight and nothing else; the product is the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from distributed import Client, WorkerPlugin
from rasterio.transform import from_origin

from geodl.runtime.connect import connect
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

StartScript = Callable[..., BaseProcess]

SIZE = 240
TOOLS = {"pixels": classify_pixels, "objects": detect_objects}
SUFFIX = {"pixels": ".tif", "objects": ".parquet"}
# Blocks are slowed where a kill is to meet the run at work, on a machine however fast.
SCRIPT = """
import sys, time
from geodl.runtime import run
from geodl.testing.tiny import register_tiny_models
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects
register_tiny_models()
kind, raster, model, output, block, wait_s = sys.argv[1:]
record = run.record_block
def slow(*block):
    record(*block)
    time.sleep(float(wait_s))
run.record_block = slow
tool = {"pixels": classify_pixels, "objects": detect_objects}[kind]
tool(raster, model, {"tile_size": 24, "padding": 8}, output, progress=False, block_size=int(block))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    # Bright patches of 4 to 7 pixels, 12 pixels apart, on dark ground.
    cells = np.zeros((SIZE // 12, SIZE // 12, 12, 12), int)
    for cell in cells.reshape(-1, 12, 12):
        height, width = rng.integers(4, 8, 2)
        cell[:height, :width] = rng.integers(100, 230)
    data = rng.integers(1, 25, (3, SIZE, SIZE), dtype=np.uint8)
    data += cells.swapaxes(1, 2).reshape(SIZE, SIZE).astype(np.uint8)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(1000, 2000, 1, 1), tiled=True, blockxsize=64,
        blockysize=64,
    ) as file:  # fmt: skip
        file.write(data)
    return {
        "raster": folder / "scene.tif",
        "pixels": tiny_model(folder / "p", "pixels"),
        "objects": tiny_model(folder / "o", "objects"),
    }


def content(path: Path) -> Any:
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            return file.read().tobytes()
    return gpd.read_parquet(path).to_wkb().to_csv()


def lines(run: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in (run / "ledger").glob("*.jsonl"))


def wait_for_lines(run: Path, count: int, process: BaseProcess) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.is_alive():
        if (run / "ledger").exists() and lines(run) >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"the run ended or hung with {lines(run)} blocks: {process.exitcode}")


def reference(inputs: dict[str, Path], kind: str, path: Path) -> Any:
    TOOLS[kind](  # type: ignore[operator]
        str(inputs["raster"]),
        str(inputs[kind]),
        {"tile_size": 24, "padding": 8},
        path,
        progress=False,
        block_size=SIZE,
    )
    return content(path)


def killed_and_resumed(
    inputs: dict[str, Path],
    folder: Path,
    kind: str,
    cuts: list[int],
    start_script: StartScript,
    block: int,
) -> None:
    """Kill a run each time so many more blocks are done; then finish it and compare."""
    output = folder / f"product{SUFFIX[kind]}"
    run = Path(f"{output}.run")
    words = (kind, inputs["raster"], inputs[kind], output, block)
    before = 0
    for cut in cuts:
        process = start_script(SCRIPT, *words, 0.005)
        wait_for_lines(run, before + cut, process)
        process.kill()
        process.join()
        before = lines(run)
        assert not output.exists()
    process = start_script(SCRIPT, *words, 0)
    process.join()
    assert process.exitcode == 0
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    blocks = manifest["blocks"]
    assert blocks["done"] == blocks["total"] == (SIZE // block) ** 2
    # Each kill may tear the line that was being written; its block is computed again.
    assert before - len(cuts) <= blocks["resumed"] <= before
    assert content(output) == reference(inputs, kind, folder / f"whole{SUFFIX[kind]}")


@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_a_killed_run_goes_on_where_it_was(
    inputs: dict[str, Path], tmp_path: Path, start_script: StartScript, kind: str
) -> None:
    killed_and_resumed(inputs, tmp_path, kind, [30, 60], start_script, 16)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_twenty_kills_at_random_lose_nothing(
    inputs: dict[str, Path], tmp_path: Path, start_script: StartScript, kind: str
) -> None:
    cuts = np.random.default_rng(7).integers(1, 45, 20).tolist()
    killed_and_resumed(inputs, tmp_path, kind, cuts, start_script, 8)


def victims(client: Client, what: str) -> list[int]:
    """Processes of a cluster on this machine."""
    if what == "scheduler":
        return [client.run_on_scheduler(os.getpid)]
    return list(client.run(os.getpid).values())[: 1 if what == "worker" else None]


def cluster_run(
    inputs: dict[str, Path], kind: str, output: Path, what: str | None, at: float
) -> str:
    """Run on a fresh cluster and kill part of it at a share of the blocks; how it ended."""
    # A client waits half a minute for a scheduler that is lost; a third of that will do here.
    patience = "10s" if what == "scheduler" else "30s"
    quick = dask.config.set({"distributed.comm.timeouts.connect": patience})
    with quick, connect("local", workers=2, dashboard_address=None) as client:
        client.register_plugin(_Tiny())
        future = TOOLS[kind](  # type: ignore[operator]
            str(inputs["raster"]),
            str(inputs[kind]),
            {"tile_size": 24, "padding": 8},
            output,
            progress=False,
            block_size=24,
            client=client,
            future=True,
        )
        if what is not None:
            pids = victims(client, what)
            while future.progress < at and not future.done():
                time.sleep(0.01)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        error = future.exception(timeout=120)
    return "finished" if error is None else type(error).__name__


@pytest.mark.parametrize(
    ("kind", "what", "ends"),
    [
        ("pixels", "worker", "finished"),
        ("objects", "workers", "finished"),
        ("pixels", "scheduler", "ClusterError"),
    ],
)
def test_a_killed_cluster_loses_nothing(
    inputs: dict[str, Path], tmp_path: Path, kind: str, what: str, ends: str
) -> None:
    output = tmp_path / f"product{SUFFIX[kind]}"
    assert cluster_run(inputs, kind, output, what, 0.15) == ends
    if ends != "finished":
        before = lines(Path(f"{output}.run"))
        assert before > 0
        assert cluster_run(inputs, kind, output, None, 0) == "finished"
        blocks = json.loads(Path(f"{output}.manifest.json").read_text())["blocks"]
        assert before <= blocks["resumed"] < blocks["total"]
    assert content(output) == reference(inputs, kind, tmp_path / f"whole{SUFFIX[kind]}")


@pytest.mark.soak
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_twenty_kills_on_clusters_lose_nothing(
    inputs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(11)
    whole = reference(inputs, kind, tmp_path / f"whole{SUFFIX[kind]}")
    output, kills, done = tmp_path / f"product{SUFFIX[kind]}", 0, 0.0
    while kills < 20:
        what = ["worker", "workers", "scheduler"][int(rng.integers(3))]
        # Later than the blocks of the runs before, so that each kill meets blocks in flight.
        ended = cluster_run(inputs, kind, output, what, done + float(rng.uniform(0.02, 0.3)))
        kills += 1
        if ended == "finished":
            assert content(output) == whole
            output.unlink()
            Path(f"{output}.manifest.json").unlink()
            done = 0.0
        else:
            assert ended == "ClusterError", ended
            done = lines(Path(f"{output}.run")) / (SIZE // 8 // 3) ** 2
    if not output.exists():
        assert cluster_run(inputs, kind, output, None, 0) == "finished"
    assert content(output) == whole


class _Tiny(WorkerPlugin):
    """Makes the tiny models known to workers, those that are started later too."""

    name = "tiny"

    def setup(self, worker: Any) -> None:
        register_tiny_models()
