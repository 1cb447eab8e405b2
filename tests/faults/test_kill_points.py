"""Clouds: kill -9 and other numbers of workers change neither classes nor objects."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pytest
from distributed import Client
from geopandas import GeoDataFrame
from pandas.testing import assert_frame_equal

from geodl.io.manifest import read_manifest
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_boxes import register_tiny_boxes, tiny_boxes
from geodl.testing.tiny_points import register_tiny_points, tiny_points
from geodl.tools.classify_points import classify_points
from geodl.tools.detect_objects_3d import detect_objects_3d

Ended = Callable[..., int | None]

SCRIPT = """
from geodl.testing.tiny_points import register_tiny_points
from geodl.tools.classify_points import classify_points
register_tiny_points()
classify_points(*sys.argv[1:], tile_size=15, confidence=True, progress=False)
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
    inputs: tuple[Path, Path], whole: bytes, tmp_path: Path, torn: Ended
) -> None:
    output = tmp_path / "product.laz"
    for cut in (12, 21):
        assert torn(SCRIPT, *inputs, output, cut) == -signal.SIGKILL
        assert not output.exists()
    before = lines(Path(f"{output}.run"))
    assert torn(SCRIPT, *inputs, output, 0) == 0
    blocks = read_manifest(output)["blocks"]
    assert blocks["done"] == blocks["total"] == 81
    assert blocks["resumed"] == before > 0
    assert output.read_bytes() == whole


def test_two_workers_give_what_one_process_gives(
    inputs: tuple[Path, Path],
    whole: bytes,
    finder: Path,
    objects: GeoDataFrame,
    tmp_path: Path,
    workers: Client,
) -> None:
    output = tmp_path / "product.laz"
    workers.run(register_tiny_points)
    workers.run(register_tiny_boxes)
    classify_points(*inputs, output, tile_size=33, confidence=True, progress=False, client=workers)
    found = detect_objects_3d(
        inputs[0], finder, tmp_path / "f.parquet", tile_size=33, progress=False, client=workers
    )
    assert output.read_bytes() == whole
    assert_frame_equal(found.to_wkb(), objects.to_wkb())


FIND = """
from geodl.testing.tiny_boxes import register_tiny_boxes
from geodl.tools.detect_objects_3d import detect_objects_3d
register_tiny_boxes()
detect_objects_3d(*sys.argv[1:], tile_size=15, progress=False)
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
    inputs: tuple[Path, Path],
    finder: Path,
    objects: GeoDataFrame,
    tmp_path: Path,
    torn: Ended,
) -> None:
    output = tmp_path / "found.parquet"
    words = (inputs[0], finder, output)
    assert torn(FIND, *words, 25) == -signal.SIGKILL
    assert not output.exists()
    before = lines(Path(f"{output}.run"))
    assert torn(FIND, *words, 0) == 0
    blocks = read_manifest(output)["blocks"]
    # 9 x 9 tiles, and those around them.
    assert blocks["done"] == blocks["total"] == 121
    assert blocks["resumed"] == before > 0
    assert_frame_equal(gpd.read_parquet(output).to_wkb(), objects.to_wkb())
