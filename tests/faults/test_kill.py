"""kill -9 costs the blocks in flight and nothing else; the product is the same."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from distributed import Client, WorkerPlugin
from rasterio.transform import from_origin

from geodl.runtime import run as run_module
from geodl.runtime.connect import connect
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

Ended = Callable[..., int | None]

SIZE = 240
TOOLS = {"pixels": classify_pixels, "objects": detect_objects}
SUFFIX = {"pixels": ".tif", "objects": ".parquet"}
SCRIPT = """
from geodl.testing.tiny import register_tiny_models
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects
register_tiny_models()
kind, raster, model, output, block = sys.argv[1:]
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
    cuts: list[str],
    torn: Ended,
    block: int,
) -> None:
    """Kill a run at each of these writes of its own; then finish it and compare."""
    output = folder / f"product{SUFFIX[kind]}"
    run = Path(f"{output}.run")
    words = (kind, inputs["raster"], inputs[kind], output, block)
    for cut in cuts:
        assert torn(SCRIPT, *words, cut) == -signal.SIGKILL
        assert not output.exists()
    before = lines(run)
    assert torn(SCRIPT, *words, 0) == 0
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    blocks = manifest["blocks"]
    assert blocks["done"] == blocks["total"] == (SIZE // block) ** 2
    # A block whose line is torn is computed again.
    assert blocks["resumed"] == before > 0
    assert content(output) == reference(inputs, kind, folder / f"whole{SUFFIX[kind]}")


@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_a_killed_run_goes_on_where_it_was(
    inputs: dict[str, Path], tmp_path: Path, torn: Ended, kind: str
) -> None:
    killed_and_resumed(inputs, tmp_path, kind, ["30", "61"], torn, 16)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["pixels", "objects"])
def test_twenty_kills_at_random_lose_nothing(
    inputs: dict[str, Path], tmp_path: Path, torn: Ended, kind: str
) -> None:
    rng = np.random.default_rng(7)
    cuts = [f"{rng.integers(1, 45)}/{rng.uniform(0, 0.02):.4f}" for _ in range(20)]
    killed_and_resumed(inputs, tmp_path, kind, cuts, torn, 8)


def victims(client: Client, what: str) -> list[int]:
    """Processes of a cluster on this machine."""
    if what == "scheduler":
        return [client.run_on_scheduler(os.getpid)]
    return list(client.run(os.getpid).values())[: 1 if what == "worker" else None]


def cluster_run(
    inputs: dict[str, Path], kind: str, output: Path, what: str | None = None, at: int = 0
) -> str:
    """Run on a fresh cluster; a worker kills part of it at its block of this number."""
    # A client waits half a minute for a scheduler that is lost; a third of that will do here.
    patience = "10s" if what == "scheduler" else "30s"
    quick = dask.config.set({"distributed.comm.timeouts.connect": patience})
    with quick, connect("local", workers=2, dashboard_address=None) as client:
        doomed = victims(client, what) if what else []
        client.register_plugin(_Tiny(doomed, list(client.run(os.getpid).values()), at))
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
        error = future.exception()
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
    assert cluster_run(inputs, kind, output, what, at=8) == ends
    if ends != "finished":
        before = lines(Path(f"{output}.run"))
        assert before > 0
        assert cluster_run(inputs, kind, output) == "finished"
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
    output = tmp_path / f"product{SUFFIX[kind]}"
    for _ in range(20):
        what = ["worker", "workers", "scheduler"][int(rng.integers(3))]
        ended = cluster_run(inputs, kind, output, what, int(rng.integers(1, 15)))
        if ended == "finished":
            assert content(output) == whole
            output.unlink()
            Path(f"{output}.manifest.json").unlink()
        else:
            assert ended == "ClusterError", ended
    if not output.exists():
        assert cluster_run(inputs, kind, output) == "finished"
    assert content(output) == whole


class _Tiny(WorkerPlugin):
    """Makes the tiny models known to workers, those that are started later too.

    Those that were there from the start kill the doomed once one of them has finished a number of
    blocks: while others are in flight, and however fast they are.
    """

    name = "tiny"

    def __init__(self, doomed: list[int], there: list[int], at: int) -> None:
        self.doomed, self.there, self.at = doomed, there, at

    def setup(self, worker: Any) -> None:
        register_tiny_models()
        if not self.doomed or os.getpid() not in self.there:
            return
        names, numbers = vars(run_module), itertools.count(1)
        record = names["record_block"]

        def record_and_kill(*block: Any) -> None:
            record(*block)
            if next(numbers) == self.at:
                for pid in self.doomed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        names["record_block"] = record_and_kill
