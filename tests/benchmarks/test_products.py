"""Making products: COGs against GDAL's own driver, polygons, and the merge of a million boxes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.bench

# Each piece of work runs in a process of its own, so that its peak memory is its own too.
PROLOGUE = """
import json, sys, time
from geodl.runtime.memory import peak_bytes
import numpy as np
from pathlib import Path
folder = Path(sys.argv[1])
def peak_mb():
    return peak_bytes() / 2**20
def say(**facts):
    print(json.dumps(facts))
"""


def in_process(code: str, folder: Path, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROLOGUE + code, str(folder), *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


STORE = """
from affine import Affine
from scipy import ndimage
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_text
from geodl.io.regions import RegionStore
size, chunk = int(sys.argv[2]), 2048
grid = GeoGrid(width=size, height=size, transform=(0.5, 0, 0, 0, -0.5, 0), crs=crs_text(32633))
store = RegionStore.create(folder / "regions.zarr", (1, size, size), chunk, "uint8", 255, grid)
rng = np.random.default_rng(0)
smooth = ndimage.gaussian_filter(rng.random((chunk, chunk)), 6, mode="wrap")
classes = np.digitize(smooth, np.quantile(smooth, [0.2, 0.4, 0.6, 0.8])).astype(np.uint8)
classes[rng.random(classes.shape) < 0.01] = 3
for row in range(0, size, chunk):
    for col in range(0, size, chunk):
        part = np.roll(classes, (row // 7, col // 5), (0, 1))[: size - row, : size - col]
        window = Window(row=row, col=col, height=part.shape[0], width=part.shape[1])
        store.write(window, np.ascontiguousarray(part)[None])
say(done=True)
"""
OURS = """
from geodl.io.regions import RegionStore
from geodl.io.writers import write_raster
store = RegionStore.open(folder / "regions.zarr")
before, cpu, started = peak_mb(), time.process_time(), time.perf_counter()
write_raster(store, folder / "ours.tif", overviews="nearest")
say(seconds=time.perf_counter() - started, cpu=time.process_time() - cpu, peak_mb=peak_mb(),
    before_mb=before, bytes=(folder / "ours.tif").stat().st_size)
"""
# What the driver makes of a file that is there already, tiled and as cheaply packed as ours is.
TILED = """
import rasterio
from rasterio.windows import Window as FileWindow
from geodl.core.grid import Window
from geodl.io.regions import RegionStore
store = RegionStore.open(folder / "regions.zarr")
size = store.grid.width
with rasterio.open(folder / "tiled.tif", "w", driver="GTiff", width=size, height=size, count=1,
                   dtype="uint8", nodata=255, crs="EPSG:32633", transform=store.grid.affine,
                   tiled=True, blockxsize=512, blockysize=512, compress="zstd", zstd_level=1,
                   bigtiff="if_safer") as file:
    for row in range(0, size, 2048):
        window = Window(row=row, col=0, height=min(2048, size - row), width=size)
        file.write(store.read(window), window=FileWindow(0, row, size, window.height))
say(done=True)
"""
GDAL = """
import rasterio, rasterio.shutil
cpu, started = time.process_time(), time.perf_counter()
rasterio.shutil.copy(folder / "tiled.tif", folder / "gdal.tif", driver="COG", compress="DEFLATE",
                     blocksize=512, overview_resampling="nearest", num_threads="ALL_CPUS",
                     bigtiff="IF_SAFER")
say(seconds=time.perf_counter() - started, cpu=time.process_time() - cpu, peak_mb=peak_mb(),
    bytes=(folder / "gdal.tif").stat().st_size)
"""


def test_cog_against_the_driver_alone(tmp_path: Path) -> None:
    size = int(os.environ.get("GEODL_BENCH_SIZE", "20000"))
    in_process(STORE, tmp_path, size)
    in_process(TILED, tmp_path)
    first, ours, second = (in_process(code, tmp_path) for code in (GDAL, OURS, GDAL))
    limit = (first["seconds"] + second["seconds"]) / 2
    print(
        f"\nCOG {size} x {size} uint8, deflate, 512 px, nearest overviews, {os.cpu_count()} cores: "
        f"geodl from regions {ours['seconds']:.1f} s ({ours['cpu']:.1f} s CPU), peak "
        f"{ours['peak_mb']:.0f} MB, {ours['bytes'] / 1e6:.0f} MB; driver from a tiled file "
        f"{first['seconds']:.1f} / {second['seconds']:.1f} s ({first['cpu']:.1f} s CPU), peak "
        f"{first['peak_mb']:.0f} MB; ratio {limit / ours['seconds']:.2f}"
    )
    assert ours["peak_mb"] < 600


def test_cog_memory_is_flat(tmp_path: Path) -> None:
    peaks = []
    for size in (8192, 20000):
        folder = tmp_path / str(size)
        folder.mkdir()
        in_process(STORE, folder, size)
        peaks.append(in_process(OURS, folder)["peak_mb"])
    print(f"\nCOG peak memory: {peaks[0]:.0f} MB at 8192 px, {peaks[1]:.0f} MB at 20000 px")
    assert peaks[1] < peaks[0] * 1.15


POLYGONS = """
from scipy import ndimage
from rasterio import features
from geodl.core.grid import GeoGrid
from geodl.io.crs import crs_text
from geodl.tools.polygonize import region_polygons
size, kind = int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
small = min(size, 2048)
if kind == "speckle":
    values = rng.integers(0, 4, (small, small)).astype(np.int32)
else:
    smooth = ndimage.gaussian_filter(rng.random((small, small)), 4, mode="wrap")
    values = np.digitize(smooth, np.quantile(smooth, [0.3, 0.6])).astype(np.int32)
    values[rng.random(values.shape) < (0.02 if kind == "mixed" else 0)] = 2
tiles = -(-size // small)
values = np.tile(values, (tiles, tiles))[:size, :size]
valid = np.ones(values.shape, bool)
grid = GeoGrid(width=size, height=size, transform=(1, 0, 0, 0, -1, 0), crs=crs_text(32633))
def read(window):
    here = np.s_[window.row : window.row_stop, window.col : window.col_stop]
    return values[here], valid[here]
least = float(sys.argv[4])
before, started = peak_mb(), time.perf_counter()
found = region_polygons(read, grid, 2048, min_area=least)
seconds, peak = time.perf_counter() - started, peak_mb()
started = time.perf_counter()
limit = 0.0
if least == 0:
    regions = sum(1 for _ in features.shapes(values, connectivity=8))
    assert regions == len(found.values)
    limit = time.perf_counter() - started
say(seconds=seconds, limit=limit, before_mb=before, peak_mb=peak, count=len(found.values))
"""


@pytest.mark.parametrize(
    ("kind", "size", "least"),
    [("smooth", 8192, 0), ("mixed", 4096, 0), ("speckle", 2048, 0), ("speckle", 8192, 50)],
)
def test_polygons(tmp_path: Path, kind: str, size: int, least: int) -> None:
    got = in_process(POLYGONS, tmp_path, size, kind, least)
    compared = ""
    if got["limit"]:
        compared = (
            f"; GDAL's own pass over the whole raster, without making geometries, "
            f"{got['limit']:.1f} s"
        )
    print(
        f"\npolygons {kind} {size} x {size}, min_area {least}: {got['count']} in "
        f"{got['seconds']:.1f} s = {size**2 / 1e6 / got['seconds']:.2f} MPix/s, "
        f"{got['before_mb']:.0f} -> {got['peak_mb']:.0f} MB{compared}"
    )
    assert not got["limit"] or got["seconds"] < 6 * got["limit"]


MERGE = """
from geodl.ops.nms import suppress
count, kind = int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
objects = count // 4
side = 64_000 if kind == "spread" else 12_000
centre = rng.uniform(0, side, (objects, 2)).repeat(4, axis=0) + rng.normal(0, 2, (count, 2))
half = rng.uniform(8, 20, (objects, 2)).repeat(4, axis=0) * rng.normal(1, 0.05, (count, 2))
boxes = np.concatenate([centre - half, centre + half], axis=1)
scores = rng.random(count).astype(np.float32)
labels = rng.integers(1, 4, objects).repeat(4)
before, started = peak_mb(), time.perf_counter()
kept = suppress(boxes, scores, labels, 0.3)
say(seconds=time.perf_counter() - started, before_mb=before, peak_mb=peak_mb(), kept=len(kept))
"""


@pytest.mark.parametrize("kind", ["spread", "crowded"])
def test_a_million_boxes(tmp_path: Path, kind: str) -> None:
    count = 1_000_000
    got = in_process(MERGE, tmp_path, count, kind)
    print(
        f"\nmerge of {count} boxes, {kind}: {got['kept']} kept in {got['seconds']:.1f} s, "
        f"{got['before_mb']:.0f} -> {got['peak_mb']:.0f} MB"
    )
    assert got["peak_mb"] - got["before_mb"] < 1500
