"""The same calls with ``s3://`` products: written whole, resumed, never overwritten unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from rio_cogeo.cogeo import cog_validate

from geodl.base.errors import (
    BlockError,
    OptionError,
    OutputError,
    OutputExistsError,
    RunLockedError,
    RunMismatchError,
)
from geodl.infer.pixels import PixelBlocks
from geodl.io.manifest import read_manifest
from geodl.io.source import open_source
from geodl.runtime.connect import connect
from geodl.runtime.ledger import Ledger, record_block
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

ARGUMENTS = {"predict_background": True, "padding": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "pixels": tiny_model(folder / "pixels", "pixels", tile_px=32),
        "objects": tiny_model(folder / "objects", "objects", tile_px=32),
    }


@pytest.fixture
def raster(write_raster: Any) -> Path:
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, 256, (3, 12, 12))
    return write_raster(np.kron(coarse, np.ones((8, 8), int)).astype(np.uint8)[:, :90, :80])  # type: ignore[no-any-return]


@pytest.fixture
def classify(raster: Path, models: dict[str, Path]) -> Any:
    def go(path: Any, **more: Any) -> Any:
        options = {"progress": False, "block_size": 48, **more}
        return classify_pixels(raster, str(models["pixels"]), ARGUMENTS, path, **options)

    return go


def names(url: str) -> list[str]:
    system = fsspec.filesystem("s3", use_listings_cache=False)
    return sorted(name.partition("/")[2] for name in system.find(url))


def test_a_cog_is_written_with_its_side_files_and_nothing_stays(
    object_store: str, classify: Any, tmp_path: Path
) -> None:
    url = f"{object_store}/maps/a.tif"
    found = classify(url)
    classify(tmp_path / "a.tif")
    assert found.attrs["path"] == url
    assert names(object_store) == ["maps/a.tif", "maps/a.tif.aux.xml", "maps/a.tif.manifest.json"]
    assert read_manifest(url)["blocks"]["done"] == read_manifest(url)["blocks"]["total"] > 1
    local = tmp_path / "again.tif"
    fsspec.filesystem("s3").get(url, str(local))
    assert cog_validate(str(local), strict=True)[0]
    with rasterio.open(tmp_path / "a.tif") as here, rasterio.open(local) as there:
        np.testing.assert_array_equal(there.read(), here.read())
        np.testing.assert_array_equal(found.to_numpy(), here.read())
        assert (there.crs, there.transform, there.nodata) == (here.crs, here.transform, 255)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_store_is_written(
    object_store: str, classify: Any, tmp_path: Path, zarr_format: int
) -> None:
    url = f"{object_store}/a.zarr"
    found = classify(url, zarr_format=zarr_format)
    expected = classify(tmp_path / "a.zarr").to_numpy()
    np.testing.assert_array_equal(found.to_numpy(), expected)
    with xr.open_zarr(url, decode_coords="all", mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset["raster"].to_numpy(), expected)
        assert dataset["raster"].rio.crs.to_epsg() == 32633
    assert not [name for name in names(object_store) if ".run/" in name]


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_features_are_written(
    object_store: str, raster: Path, models: dict[str, Path], suffix: str, tmp_path: Path
) -> None:
    url = f"{object_store}/objects{suffix}"
    arguments = {"threshold": 0.5, "exclude_pad_detections": False}
    found = detect_objects(raster, str(models["objects"]), arguments, url, progress=False)
    local = tmp_path / f"objects{suffix}"
    fsspec.filesystem("s3").get(url, str(local))
    read = gpd.read_parquet(local) if suffix == ".parquet" else gpd.read_file(local)
    assert len(read) == len(found) > 0
    assert shapely.equals_exact(read.geometry.values, found.geometry.values, 1e-9).all()
    assert names(object_store) == [f"objects{suffix}", f"objects{suffix}.manifest.json"]


def test_polygons_of_classes_are_written(object_store: str, classify: Any, tmp_path: Path) -> None:
    found = classify(f"{object_store}/areas.parquet")
    expected = classify(tmp_path / "areas.parquet")
    assert shapely.equals_exact(found.geometry.values, expected.geometry.values, 0).all()


def test_a_finished_product_is_replaced_only_on_request(
    object_store: str, classify: Any, raster: Path
) -> None:
    url = f"{object_store}/a.tif"
    before = classify(url).to_numpy()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        classify(url)
    with rasterio.open(raster, "r+") as file:
        file.write(255 - file.read())
    after = classify(url, overwrite=True).to_numpy()
    assert (after != before).any()
    np.testing.assert_array_equal(open_source(url).read(open_source(url).grid.window).data, after)


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Blocks from the third on fail while ``breaks.on``; ``breaks.computed`` counts the others."""
    real = PixelBlocks.compute

    class Breaks:
        on, computed = True, 0

    def compute(self: Any, spec: Any, block: Any) -> Any:
        if Breaks.on and Breaks.computed >= 2:
            raise OSError("the lights went out")
        Breaks.computed += 1
        return real(self, spec, block)

    monkeypatch.setattr(PixelBlocks, "compute", compute)
    return Breaks


def test_an_interrupted_run_goes_on_from_the_store(
    object_store: str, classify: Any, tmp_path: Path, breaks: Any
) -> None:
    url = f"{object_store}/a.tif"
    with pytest.raises(BlockError):
        classify(url)
    kept = names(object_store)
    assert "a.tif.run/run.json" in kept
    assert "a.tif.run/lock" not in kept
    # A batch of blocks is one object.
    assert sum(name.startswith("a.tif.run/ledger/") for name in kept) == 1
    breaks.on, done = False, breaks.computed
    # With another block size too: the layout is the ledger's.
    found = classify(url, block_size=96)
    blocks = json.loads(fsspec.filesystem("s3").cat(f"{url}.manifest.json"))["blocks"]
    assert blocks["resumed"] == done == 2
    assert breaks.computed == blocks["total"] == blocks["done"]
    np.testing.assert_array_equal(found.to_numpy(), classify(tmp_path / "a.tif").to_numpy())


def test_another_setting_does_not_join_an_unfinished_run(
    object_store: str, raster: Path, models: dict[str, Path], classify: Any, breaks: Any
) -> None:
    url = f"{object_store}/a.tif"
    with pytest.raises(BlockError):
        classify(url)
    other = {**ARGUMENTS, "padding": 8}
    with pytest.raises(RunMismatchError, match="unfinished run"):
        classify_pixels(raster, str(models["pixels"]), other, url, progress=False)


def test_a_live_run_is_not_joined_and_a_dead_one_is(object_store: str) -> None:
    folder = f"{object_store}/a.tif.run"
    with Ledger.open(folder, "f", {}) as first:
        with pytest.raises(RunLockedError, match="Another process"):
            Ledger.open(folder, "f", {})
        record_block(folder, (0, 1), {"found": 1}, b"\x00payload")
        record_block(folder, (0, 0), {"found": 2})
        lock = json.loads(first._lock_path.read_text())
        first._touch_lock()
    # A process of this machine that is no more.
    fsspec.filesystem("s3").pipe(f"{folder}/lock", json.dumps({**lock, "pid": 2**30}).encode())
    with Ledger.open(folder, "f", {}) as again:
        assert again.resumed
        assert again.done == {(0, 0), (0, 1)}
        assert dict(again.reports()) == {(0, 0): {"found": 2}, (0, 1): {"found": 1}}
        assert list(again.payloads()) == [((0, 0), b""), ((0, 1), b"\x00payload")]
        again.remove()
    assert names(object_store) == []


def test_batches_end_and_a_new_run_clears_them(
    object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geodl.runtime.object_ledger._BATCH_BLOCKS", 4)
    folder = f"{object_store}/b.run"
    with Ledger.open(folder, "f", {}) as ledger:
        for block in range(10):
            record_block(folder, (block,), {})
        ledger.refresh()
        assert ledger.done == {(block,) for block in range(10)}
    assert sum("/ledger/" in name for name in names(object_store)) == 3
    with Ledger.open(folder, "g", {}, overwrite=True) as fresh:
        assert not fresh.resumed
        assert fresh.done == set()


@pytest.mark.slow
def test_workers_write_to_the_store_too(object_store: str, classify: Any, tmp_path: Path) -> None:
    with connect("local", workers=2, dashboard_address=None) as client:
        client.run(register_tiny_models)
        found = classify(f"{object_store}/a.zarr", client=client)
    np.testing.assert_array_equal(found.to_numpy(), classify(tmp_path / "a.zarr").to_numpy())


def test_what_cannot_be_reached_is_named(classify: Any, object_store: str) -> None:
    with pytest.raises(OutputError, match="no-such-bucket-here"):
        classify("s3://no-such-bucket-here/a.tif")
    with pytest.raises(OptionError, match="nosuch"):
        classify("nosuch://bucket/a.tif")
