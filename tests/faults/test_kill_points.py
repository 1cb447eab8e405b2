"""Clouds: kill -9 and other numbers of workers change nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import WorkerPlugin

from geodl.io.manifest import read_manifest
from geodl.runtime.connect import connect
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_points import register_tiny_points, tiny_points
from geodl.tools.classify_points import classify_points

SCRIPT = """
import sys
from geodl.testing.tiny_points import register_tiny_points
from geodl.tools.classify_points import classify_points
register_tiny_points()
cloud, model, output = sys.argv[1:]
classify_points(cloud, model, output, tile_size=10, confidence=True, progress=False)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    cloud = make_cloud(folder / "cloud.laz", points=9_000, side=119)
    return cloud, tiny_points(folder / "model", block_size=20.0)


@pytest.fixture(scope="module")
def whole(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "whole.laz"
    classify_points(*inputs, path, confidence=True, progress=False)
    return path.read_bytes()


def lines(run: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in (run / "ledger").glob("*.jsonl"))


def test_a_killed_run_goes_on_where_it_was(
    inputs: tuple[Path, Path], whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "product.laz"
    run = Path(f"{output}.run")
    command = [sys.executable, "-c", SCRIPT, *map(str, inputs), str(output)]
    before = 0
    for cut in (20, 50):
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 60
            while lines(run) < before + cut and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
        before = lines(run)
        assert not output.exists()
    subprocess.run(command, check=True)
    blocks = read_manifest(output)["blocks"]
    assert blocks["done"] == blocks["total"] == 144
    assert before - 2 <= blocks["resumed"] <= before
    assert output.read_bytes() == whole


def test_two_workers_give_what_one_process_gives(
    inputs: tuple[Path, Path], whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "product.laz"
    with connect("local", workers=2, dashboard_address=None) as client:
        client.register_plugin(_Tiny())
        classify_points(
            *inputs, output, tile_size=33, confidence=True, progress=False, client=client
        )
    assert output.read_bytes() == whole


class _Tiny(WorkerPlugin):
    """Makes the tiny model known to workers."""

    name = "tiny"

    def setup(self, worker: Any) -> None:
        register_tiny_points()
