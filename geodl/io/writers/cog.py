"""Cloud Optimized GeoTIFF from a region store, streamed: memory does not grow with the raster."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as FileWindow

from geodl.base.errors import OutputError
from geodl.core.classes import ClassTable
from geodl.core.grid import Window
from geodl.io.handles import gdal_environment
from geodl.io.regions import RegionStore
from geodl.io.staging import staged
from geodl.io.writers.categories import write_categories

TILE_PX = 512
# About this many pixels are read from the regions and written at a time.
STRIPE_PIXELS = 16 * 2**20
# Whole tiles are written and read once: a larger cache gains no time, and memory would grow with
# the raster until it is full.
CACHE_BYTES = 24 * 2**20
_COLOR_DTYPES = ("uint8", "uint16")


class CogWriter:
    """Writes COGs: tiled, with overviews, nodata, colours and category names."""

    kind: Literal["raster"] = "raster"

    def write(
        self,
        regions: RegionStore,
        path: Path,
        *,
        classes: ClassTable | None,
        overviews: str | None,
    ) -> None:
        """Stream the regions into a tiled GeoTIFF beside ``path``, then into the COG.

        Raises
        ------
        OutputError
            The folder cannot be written or the disk is full; the regions are kept.
        """
        resampling = overviews or ("average" if classes is None else "nearest")
        with (
            staged(path) as place,
            warnings.catch_warnings(),
            gdal_environment(CACHE_BYTES),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            tiled = place.with_name(f"{place.name}.tiled.tif")
            _write_tiled(regions, tiled, classes)
            rasterio.shutil.copy(tiled, place, driver="COG", **_cog_options(regions, resampling))
            tiled.unlink()
            # GDAL may leave what a TIFF cannot hold beside the intermediate file.
            tiled.with_name(f"{tiled.name}.aux.xml").unlink(missing_ok=True)
            _check_whole(place, regions)
            if classes is not None:
                write_categories(place, classes, nodata=int(regions.fill))


def _profile(regions: RegionStore) -> dict[str, Any]:
    grid = regions.grid
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": regions.count,
        "dtype": regions.dtype.name,
        "nodata": regions.fill,
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "interleave": "pixel" if regions.count > 1 else "band",
        # The fastest codec: this file lives for minutes.
        "compress": "zstd",
        "zstd_level": 1,
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,
    }
    if grid.crs is not None:
        profile |= {"crs": CRS.from_user_input(grid.crs), "transform": grid.affine}
    return profile


def _write_tiled(regions: RegionStore, path: Path, classes: ClassTable | None) -> None:
    # Tiles are packed beside the reading of the next ones.
    with rasterio.open(path, "w", num_threads="ALL_CPUS", **_profile(regions)) as dataset:
        if classes is not None and regions.dtype.name in _COLOR_DTYPES:
            dataset.write_colormap(1, _colors(classes))
        if any(not name.startswith("Band_") for name in regions.band_names):
            dataset.descriptions = regions.band_names
        for window in _stripes(regions):
            data = regions.read(window)
            area = FileWindow(window.col, window.row, window.width, window.height)
            dataset.write(data, window=area)


def _stripes(regions: RegionStore) -> Iterator[Window]:
    """Windows of whole tiles and whole chunks, so that nothing is read or packed twice."""
    height, width = regions.grid.shape
    rows, cols = (int(np.lcm(TILE_PX, chunk)) for chunk in regions.chunk)
    if max(rows, cols) > 8 * TILE_PX:
        # Chunks at odds with the tiles: read some twice rather than hold very large windows.
        rows, cols = max(TILE_PX, rows % TILE_PX), 4 * TILE_PX
    budget = max(1, STRIPE_PIXELS // (regions.count * regions.dtype.itemsize))
    cols *= max(1, min(-(-width // cols), budget // (rows * cols)))
    for row in range(0, height, rows):
        for col in range(0, width, cols):
            yield Window(
                row=row, col=col, height=min(rows, height - row), width=min(cols, width - col)
            )


def _colors(classes: ClassTable) -> dict[int, tuple[int, int, int, int]]:
    colors = {entry.value: (*entry.color, 255) for entry in classes if entry.value >= 0}
    return {0: (0, 0, 0, 255)} | colors


def _cog_options(regions: RegionStore, resampling: str) -> dict[str, Any]:
    continuous = regions.dtype.kind == "f" or resampling != "nearest"
    return {
        "compress": "DEFLATE",
        # Differences between neighbours pack better where values are a surface, not labels.
        "predictor": "YES" if continuous else "NO",
        "blocksize": TILE_PX,
        "overview_resampling": resampling,
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,
    }


def _check_whole(path: Path, regions: RegionStore) -> None:
    """Read the last tile: the drivers do not always report that a disk was full."""
    height, width = regions.grid.shape
    try:
        with rasterio.open(path) as dataset:
            dataset.read(window=FileWindow(width - 1, height - 1, 1, 1))
            shape = (dataset.count, *dataset.shape)
    except rasterio.errors.RasterioError as error:
        raise OutputError(
            f"{path.name} was written incompletely ({error}); the disk may be full. Make room and "
            "run the same call again; what is finished is kept."
        ) from error
    if shape != (regions.count, height, width):
        raise OutputError(
            f"{path.name} came out as {shape}, expected {(regions.count, height, width)}."
        )
