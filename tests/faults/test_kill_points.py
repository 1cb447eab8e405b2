"""Clouds: kill -9 and other numbers of workers change neither classes nor objects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from distributed import WorkerPlugin
from geopandas import GeoDataFrame
from pandas.testing import assert_frame_equal

from geodl.io.manifest import read_manifest
from geodl.runtime.connect import connect
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_boxes import register_tiny_boxes, tiny_boxes
from geodl.testing.tiny_points import register_tiny_points, tiny_points
from geodl.tools.classify_points import classify_points
from geodl.tools.detect_objects_3d import detect_objects_3d

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


def kill_after(command: list[str], run: Path, lines_more: int) -> int:
    """Start, and kill -9 once so many more tiles and parts are done; returns those done."""
    before = lines(run)
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while lines(run) < before + lines_more and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    return lines(run)


def test_a_killed_run_goes_on_where_it_was(
    inputs: tuple[Path, Path], whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "product.laz"
    run = Path(f"{output}.run")
    command = [sys.executable, "-c", SCRIPT, *map(str, inputs), str(output)]
    before = 0
    for cut in (20, 50):
        before = kill_after(command, run, cut)
        assert not output.exists()
    subprocess.run(command, check=True)
    blocks = read_manifest(output)["blocks"]
    assert blocks["done"] == blocks["total"] == 144
    assert before - 2 <= blocks["resumed"] <= before
    assert output.read_bytes() == whole


def test_two_workers_give_what_one_process_gives(
    inputs: tuple[Path, Path],
    whole: bytes,
    finder: Path,
    objects: GeoDataFrame,
    tmp_path: Path,
) -> None:
    output = tmp_path / "product.laz"
    with connect("local", workers=2, dashboard_address=None) as client:
        client.register_plugin(_Tiny())
        classify_points(
            *inputs, output, tile_size=33, confidence=True, progress=False, client=client
        )
        found = detect_objects_3d(
            inputs[0], finder, tmp_path / "f.parquet", tile_size=33, progress=False, client=client
        )
    assert output.read_bytes() == whole
    assert_frame_equal(found.to_wkb(), objects.to_wkb())


FIND = """
import sys
from geodl.testing.tiny_boxes import register_tiny_boxes
from geodl.tools.detect_objects_3d import detect_objects_3d
register_tiny_boxes()
cloud, model, output = sys.argv[1:]
detect_objects_3d(cloud, model, output, tile_size=10, progress=False)
"""


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_boxes(tmp_path_factory.mktemp("finder") / "model", block_size=30.0)


@pytest.fixture(scope="module")
def objects(
    inputs: tuple[Path, Path], finder: Path, tmp_path_factory: pytest.TempPathFactory
) -> GeoDataFrame:
    path = tmp_path_factory.mktemp("objects") / "found.parquet"
    found = detect_objects_3d(inputs[0], finder, path, progress=False)
    assert len(found) > 10
    return found


def test_a_killed_search_finds_the_same_objects(
    inputs: tuple[Path, Path], finder: Path, objects: GeoDataFrame, tmp_path: Path
) -> None:
    output = tmp_path / "found.parquet"
    command = [sys.executable, "-c", FIND, str(inputs[0]), str(finder), str(output)]
    before = kill_after(command, Path(f"{output}.run"), 40)
    assert not output.exists()
    subprocess.run(command, check=True)
    blocks = read_manifest(output)["blocks"]
    # 12 x 12 tiles, and those around them.
    assert blocks["done"] == blocks["total"] == 196
    assert before - 2 <= blocks["resumed"] <= before
    assert_frame_equal(gpd.read_parquet(output).to_wkb(), objects.to_wkb())


class _Tiny(WorkerPlugin):
    """Makes the tiny model known to workers."""

    name = "tiny"

    def setup(self, worker: Any) -> None:
        register_tiny_points()
        register_tiny_boxes()
