"""Export of chips against reading the raster once and encoding the same chips, and its memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.windows import Window

from geodl.runtime.connect import connect
from geodl.tools.export_training_data import export_training_data

pytestmark = pytest.mark.bench

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

TILE, BLOCK = 256, 2048


def write_scene(path: Path, size: int) -> Path:
    """uint8 (3, size, size): smooth as imagery is, with noise; written by rows of tiles."""
    rng = np.random.default_rng(0)
    steps = np.linspace(0, 9, 512)
    smooth = 120 + 60 * np.sin(steps[:, None]) * np.cos(steps)
    tile = np.stack([smooth + rng.normal(0, 6, (512, 512)) for _ in range(3)]).clip(1, 255)
    strip = np.tile(tile.astype(np.uint8), (1, 1, -(-size // 512)))
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(0, 0, 0.5, 0.5), tiled=True, blockxsize=512,
        blockysize=512, compress="deflate", zlevel=1, interleave="pixel", bigtiff="if_safer",
    ) as file:  # fmt: skip
        for row in range(0, size, 512):
            height = min(512, size - row)
            file.write(strip[:, :height, :size], window=Window(0, row, size, height))
    return path


def write_labels(path: Path, size: int, count: int) -> Path:
    """Rectangles of some metres, spread over the scene."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, size / 2, (2, count))
    side = rng.uniform(4, 20, (2, count))
    boxes = shapely.box(x, -y - side[1], x + side[0], -y)
    frame = gpd.GeoDataFrame({"classvalue": rng.integers(1, 4, count)}, geometry=boxes, crs=32633)
    frame.to_parquet(path)
    return path


def cpu() -> float:
    """Seconds that all threads of this process have computed: other load leaves them alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def limit(raster: Path, driver: str, folder: Path, labels: bool) -> tuple[float, int]:
    """Seconds of one thread that reads each block once and encodes and writes its chips.

    With ``labels`` a class tile of random rectangles goes with each chip.
    """
    folder.mkdir()
    tile = np.zeros((1, TILE, TILE), np.uint8)
    tile[0, 40:90, 30:120], tile[0, 150:170, 200:230] = 1, 2
    options: dict[str, Any] = {"zlevel": 3} if driver == "PNG" else {}
    started, chips = time.perf_counter(), 0
    with rasterio.open(raster) as source:
        for row in range(0, source.height - TILE + 1, BLOCK):
            for col in range(0, source.width - TILE + 1, BLOCK):
                high, wide = min(BLOCK, source.height - row), min(BLOCK, source.width - col)
                block = source.read(window=Window(col, row, wide, high))
                for r in range(0, high - TILE + 1, TILE):
                    for c in range(0, wide - TILE + 1, TILE):
                        encode(block[:, r : r + TILE, c : c + TILE], driver, source, options,
                               folder / f"{chips:09d}")  # fmt: skip
                        if labels:
                            encode(tile, "GTiff", source, {"compress": "DEFLATE"},
                                   folder / f"{chips:09d}.label")  # fmt: skip
                        chips += 1
    return time.perf_counter() - started, chips


def encode(data: np.ndarray, driver: str, source: Any, options: dict[str, Any], path: Path) -> None:
    with MemoryFile() as memory:
        with memory.open(
            driver=driver, count=len(data), height=TILE, width=TILE, dtype=data.dtype,
            transform=source.transform, crs=source.crs if driver == "GTiff" else None, **options,
        ) as file:  # fmt: skip
            file.write(data)
        path.write_bytes(memory.read())


def export(raster: Path, labels: Path, out: Path, mode: str, chip_format: str, **more: Any) -> Any:
    started = time.perf_counter()
    export_training_data(
        raster, labels, chip_format, TILE, metadata_format=mode, output_location=out,
        progress=False, context={"exportAllTiles": True}, **more,
    )  # fmt: skip
    wall = time.perf_counter() - started
    return wall, json.loads(Path(f"{out}.manifest.json").read_text())["chips"]


@pytest.mark.parametrize("mode", ["PASCAL_VOC_rectangles", "Classified_Tiles"])
@pytest.mark.parametrize(("chip_format", "driver"), [("PNG", "PNG"), ("TIFF", "GTiff")])
def test_chips_per_second_against_the_limit(
    tmp_path: Path, mode: str, chip_format: str, driver: str
) -> None:
    size = int(os.environ.get("GEODL_BENCH_SIZE", "6144"))
    raster = write_scene(tmp_path / "scene.tif", size)
    labels = write_labels(tmp_path / "labels.parquet", size, size * size // 20_000)
    tiles = mode == "Classified_Tiles"
    # What is imported and connected once is no part of the rate.
    small = write_scene(tmp_path / "small.tif", 1024)
    few = write_labels(tmp_path / "few.parquet", 1024, 50)
    export(small, few, tmp_path / "first", mode, chip_format)
    used = [cpu()]
    before, chips = limit(raster, driver, tmp_path / "before", tiles)
    used.append(cpu())
    wall, written = export(raster, labels, tmp_path / "serial", mode, chip_format)
    used.append(cpu())
    after, _ = limit(raster, driver, tmp_path / "after", tiles)
    work = np.diff(used)
    assert written == chips
    bare = (before + after) / 2
    with connect("local", workers=2, dashboard_address=None) as client:
        export(small, few, tmp_path / "second", mode, chip_format, client=client, block_size=256)
        two, _ = export(raster, labels, tmp_path / "two", mode, chip_format, client=client)
        # What this machine gives two processes that share nothing: the most two workers can.
        started = time.perf_counter()
        client.gather([
            client.submit(limit, raster, driver, tmp_path / f"bare{n}", tiles, workers=[address])
            for n, address in enumerate(client.scheduler_info(n_workers=-1)["workers"])
        ])  # fmt: skip
        pair = (time.perf_counter() - started) / 2
    print(
        f"\n{mode} {chip_format}, {size} px, {chips} chips of {TILE}: limit {before:.2f} / "
        f"{after:.2f} s = {chips / bare:.0f}/s, serial {wall:.2f} s = {chips / wall:.0f}/s "
        f"(ratio {bare / wall:.2f}; by CPU time {work[0] / work[1]:.2f}), "
        f"two workers {two:.2f} s = {chips / two:.0f}/s "
        f"({wall / two:.2f} times serial, {bare / two:.2f} of the limit, of which two bare "
        f"processes reach {bare / pair:.2f})"
    )
    assert bare / wall > 0.3


MEMORY = """
import sys
from geodl.runtime.memory import peak_bytes
from geodl.tools.export_training_data import export_training_data
raster, labels, out = sys.argv[1:]
export_training_data(raster, labels, "PNG", 256, 512, metadata_format="Classified_Tiles",
                     output_location=out, progress=False)
print(peak_bytes() / 2**20)
"""


def test_peak_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    sizes = [int(s) for s in os.environ.get("GEODL_BENCH_SIZES", "10000,40000").split(",")]
    peaks = []
    for size in sizes:
        raster = write_scene(tmp_path / f"{size}.tif", size)
        labels = write_labels(tmp_path / f"{size}.parquet", size, 20_000)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(raster), str(labels), str(tmp_path / f"o{size}")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks.append(float(done.stdout.splitlines()[-1]))
        print(f"\n{size} px: peak {peaks[-1]:.0f} MB, {time.perf_counter() - started:.1f} s")
    assert peaks[-1] < peaks[0] * 1.15
