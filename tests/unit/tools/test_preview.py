"""What a run takes is told before it starts, and blocks fit the memory of the workers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from distributed import Client
from rasterio.transform import from_origin

from geodl.base.errors import PlanError
from geodl.runtime.connect import connect
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools import preview
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects
from geodl.tools.preview import RunPlan


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect("local", workers=1, memory_limit="1200MB", dashboard_address=None) as found:
        found.run(register_tiny_models)
        yield found


def write_raster(path: Path, size: int, data: np.ndarray | None = None) -> Path:
    """uint8, three bands, nodata 0; without pixels it takes no room on disk."""
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=from_origin(1000, 90_000, 1, 1), tiled=True, sparse_ok=True,
    ) as file:  # fmt: skip
        if data is not None:
            file.write(data)
    return path


def classify(raster: Path, folder: Path, **more: Any) -> Any:
    model = str(tiny_model(folder / "model", "pixels", tile_px=64))
    arguments = {"predict_background": True, **more.pop("arguments", {})}
    return classify_pixels(raster, model, arguments, folder / "map.tif", **more)


def test_a_dry_run_tells_all_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.full((3, 200, 200), 9, np.uint8)
    plan = classify(write_raster(tmp_path / "a.tif", 200, data), tmp_path, dry_run=True)
    assert isinstance(plan, RunPlan)
    assert (plan.rows, plan.columns, plan.tiles, plan.tile_px, plan.padding_px) == (
        200,
        200,
        49,
        64,
        16,
    )
    assert plan.output_bytes == 200 * 200
    assert plan.worker_hours is not None
    assert 0 < plan.worker_hours < 0.1
    assert json.loads(json.dumps(plan.to_json()))["memory"]["total"] == plan.memory.total
    assert "200 x 200 px in 1 blocks of 2048 px, 49 tiles of 64 px" in str(plan)
    assert not (tmp_path / "map.tif").exists()
    assert not (tmp_path / "map.tif.run").exists()
    assert capsys.readouterr().err == ""


def test_a_run_says_its_plan_and_keeps_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raster = write_raster(tmp_path / "a.tif", 200, np.full((3, 200, 200), 9, np.uint8))
    classify(raster, tmp_path, progress=True)
    told = capsys.readouterr().err
    assert "200 x 200 px in 1 blocks" in told
    assert "the model ran" in told
    manifest = json.loads((tmp_path / "map.tif.manifest.json").read_text())
    memory = manifest["memory_mb"]
    assert memory["planned"] > 100
    assert memory["peak"] > 100
    assert set(manifest["mpix_per_s_by_stage"]) == {"read", "model", "merge", "write", "finalise"}
    assert 0 < manifest["device_busy"] <= 1


def test_scores_and_larger_blocks_and_batches_take_more(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "a.tif", 4000)
    small = classify(raster, tmp_path, dry_run=True, block_size=1024)
    large = classify(raster, tmp_path, dry_run=True, block_size=2048)
    scores = classify(
        raster, tmp_path, dry_run=True, block_size=2048, arguments={"output": "scores"}
    )
    one = classify(raster, tmp_path, dry_run=True, arguments={"batch_size": 1})
    assert small.memory.blocks < large.memory.blocks < scores.memory.blocks
    assert one.memory.network * 4 == large.memory.network
    assert scores.output_bytes == 3 * 4 * 4000**2
    assert small.worker_hours == 0, "there is no data anywhere"


def test_blocks_shrink_to_the_memory_of_workers(client: Client, tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "a.tif", 20_000)
    scores = {"output": "scores"}
    there = classify(raster, tmp_path, dry_run=True, arguments=scores, client=client)
    assert there.memory_limit == 1_200_000_000
    assert there.block_px == 512, "a quarter of what is usual, as each worker has two in hand"
    assert there.memory.total < 0.8 * there.memory_limit
    with pytest.raises(PlanError, match=r"1\.12 GB.*4096 px need .*smaller block_size"):
        classify(raster, tmp_path, arguments=scores, client=client, block_size=4096)
    with pytest.raises(PlanError, match=r"smaller batch_size or tile_size"):
        classify(raster, tmp_path, arguments={"batch_size": 200_000}, client=client)
    assert not (tmp_path / "map.tif.run").exists()


def test_detectors_are_planned_too(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "a.tif", 200, np.full((3, 200, 200), 9, np.uint8))
    model = str(tiny_model(tmp_path / "model", "objects"))
    plan = detect_objects(raster, model, output_name=tmp_path / "b.parquet", dry_run=True)
    assert isinstance(plan, RunPlan)
    assert plan.output_bytes is None
    assert plan.memory.network > 0


def test_hours_count_only_where_there_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each block takes a second of this clock: what differs is the share of the extent alone.
    monkeypatch.setattr(preview, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    data = np.full((3, 1024, 1024), 9, np.uint8)
    whole = classify(write_raster(tmp_path / "a.tif", 1024, data), tmp_path, estimate=True)
    data[:, :, 128:] = 0
    part = classify(write_raster(tmp_path / "b.tif", 1024, data), tmp_path, estimate=True)
    assert whole * 0.1 < part < whole * 0.3
