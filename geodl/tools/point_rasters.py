"""Rasters of point clouds, made chunk by chunk as they are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from affine import Affine
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float, as_int, check_choice
from geodl.core.points import PointPlan
from geodl.io.point_cells import SortedCloud
from geodl.io.point_tiles import CELLS_PER_TILE, chunk_bounds, chunk_values, sorted_points
from geodl.ops.point_ground import averaged, ground_heights
from geodl.ops.point_raster import (
    cell_of,
    count_in_cells,
    extreme_in_cells,
    first_in_voxels,
    mean_in_cells,
)

KINDS = ("density", "count", "dsm", "dtm", "max", "min", "mean")
_NEEDS_CLASS = ("dsm", "dtm")
_NOISE = (7, 18)
_GROUND = (2, 8)
_CHUNK_CELLS = 512
# Ground points around a chunk that its triangles may need, in cells.
_GROUND_CELLS = 32


@dataclass(frozen=True, kw_only=True)
class CloudRaster:
    """Makes chunks of one raster; picklable where the sorted cloud is.

    Parameters
    ----------
    left, top
        Corner of the raster; whole cells from the origin of the CRS.
    """

    cloud: SortedCloud
    kind: str
    dim: str
    cell: float
    left: float
    top: float
    held: Any = None

    def chunk(self, row: int, col: int, shape: tuple[int, int]) -> np.ndarray:
        """float32 (H, W), or int32 for counts: the cells from a row and column on."""
        left, top = self.left + col * self.cell, self.top - row * self.cell
        pad = self.cell * (_GROUND_CELLS if self.kind == "dtm" else 1)
        right, bottom = left + shape[1] * self.cell, top - shape[0] * self.cell
        points = self.cloud.window((left - pad, bottom - pad, right + pad, top + pad))
        xy = np.stack([points["x"], points["y"]], axis=1) if len(points) else np.zeros((0, 2))
        cells = cell_of(xy, left, top, self.cell, shape)
        if self.kind in ("density", "count"):
            counts = count_in_cells(cells, shape)
            if self.kind == "count":
                return counts.astype(np.int32)
            return (counts / self.cell**2).astype(np.float32)
        if not len(points):
            return np.full(shape, np.nan, np.float32)
        if self.kind == "dtm":
            return self._ground(points, left, top, shape)
        values = points[self.dim].astype(np.float64)
        if self.kind == "mean":
            return mean_in_cells(cells, values, shape)
        if self.kind == "dsm":
            cells[np.isin(points["classification"], _NOISE)] = -1
        return extreme_in_cells(cells, values, shape, least=self.kind == "min")

    def _ground(
        self, points: np.ndarray, left: float, top: float, shape: tuple[int, int]
    ) -> np.ndarray:
        """Heights of the ground at the centres of cells."""
        ground = points[np.isin(points["classification"], _GROUND)]
        x = left + (np.arange(shape[1]) + 0.5) * self.cell
        y = top - (np.arange(shape[0]) + 0.5) * self.cell
        xy = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)
        xyz = np.stack([ground[axis] for axis in "xyz"], axis=1)
        heights = ground_heights(averaged(xyz, self.cell), xy, 2 * self.cell)
        return heights.reshape(shape).astype(np.float32)


def rasterize(
    dataset: xr.Dataset, resolution: float, kind: str, dim: str, chunk: int | None
) -> xr.DataArray:
    """See :meth:`geodl.tools.points_accessor.PointsAccessor.rasterize`."""
    check_choice(kind, KINDS, "kind")
    cell = as_float(resolution, "resolution", minimum=1e-9)
    if kind in _NEEDS_CLASS and "classification" not in dataset:
        raise DataError(f"kind={kind!r} needs the dimension 'classification'; open it as well.")
    if dim not in dataset or dataset[dim].ndim != 1:
        raise OptionError(f"dim={dim!r} is no dimension of one column of these points.")
    names = [dim] if dim not in "xyz" else []
    names += ["classification"] if kind in _NEEDS_CLASS else []
    side = _CHUNK_CELLS if chunk is None else chunk
    left, bottom, right, top = _extent(dataset)
    # Whole cells from the origin, the last one with the points of the right and lower edge.
    col, stop_col = math.floor(left / cell), math.floor(right / cell) + 1
    row, stop_row = math.ceil(top / cell), math.ceil(bottom / cell) - 1
    cloud, held = sorted_points(dataset, list(dict.fromkeys(names)), tile=side * cell)
    raster = CloudRaster(
        cloud=cloud, kind=kind, dim=dim, cell=cell, left=col * cell, top=row * cell, held=held
    )
    shape = (row - stop_row, stop_col - col)
    return _array(dataset, raster, shape, side)


def _extent(dataset: xr.Dataset) -> tuple[float, float, float, float]:
    """Bounds of the points themselves: headers may be wrong."""
    found = []
    for first, stop in chunk_bounds(dataset):
        values = chunk_values(dataset, ["x", "y"], first, stop)
        if stop > first:
            x, y = values["x"], values["y"]
            found.append((x.min(), y.min(), -x.max(), -y.max()))
    if not found:
        raise DataError("There are no points to make a raster of.")
    left, bottom, right, top = np.min(found, axis=0)
    return float(left), float(bottom), float(-right), float(-top)


def _array(
    dataset: xr.Dataset, raster: CloudRaster, shape: tuple[int, int], side: int
) -> xr.DataArray:
    sizes = tuple(
        tuple(min(side, length - start) for start in range(0, length, side)) for length in shape
    )
    name = f"geodl_{raster.kind}-{tokenize(raster.kind, raster.dim, raster.cell, id(raster))}"
    tasks: dict[Any, Any] = {
        (name, i, j): (raster.chunk, i * side, j * side, (height, width))
        for i, height in enumerate(sizes[0])
        for j, width in enumerate(sizes[1])
    }
    graph = HighLevelGraph({name: tasks}, {name: set()})
    dtype = np.int32 if raster.kind == "count" else np.float32
    data = da.Array(graph, name, chunks=sizes, dtype=dtype)
    cell = raster.cell
    array = xr.DataArray(
        data,
        dims=("y", "x"),
        coords={
            "y": raster.top - (np.arange(shape[0]) + 0.5) * cell,
            "x": raster.left + (np.arange(shape[1]) + 0.5) * cell,
        },
        name=raster.kind,
    )
    array = array.rio.write_transform(Affine(cell, 0, raster.left, 0, -cell, raster.top))
    crs = dataset.attrs.get("crs_wkt")
    if crs is not None:
        array = array.rio.write_crs(crs)
    return array if dtype == np.int32 else array.rio.write_nodata(np.nan)


def heights_above_ground(
    dataset: xr.Dataset, size: float, buffer: float, spacing: float
) -> np.ndarray:
    """float32 (N,): heights of a Dataset's points above the ground, NaN without any ground.

    Raises
    ------
    DataError
        No classification, or no point of class 2 or 8.
    """
    if "classification" not in dataset:
        raise DataError("The points have no dimension 'classification' to tell the ground by.")
    if not bool(dataset.classification.isin(list(_GROUND)).any()):
        raise DataError("No point is classified as ground (2 or 8); classify the ground first.")
    # Places in the Dataset, not in files.
    plain = dataset[["x", "y", "z", "classification"]].copy()
    plain["x"] = plain.x + 0.0
    cloud, held = sorted_points(plain, ["classification"], tile=size)
    found = np.full(dataset.sizes["point"], np.nan, np.float32)
    for spec in PointPlan(
        size=size, buffer=buffer, tiles=tuple(cloud.tile_counts(CELLS_PER_TILE))
    ).blocks():
        tile = cloud.read(spec)
        ground = tile.xyz[np.isin(tile.attributes["classification"], _GROUND)]
        core = tile.inside
        surface = ground_heights(averaged(ground, spacing), tile.xyz[core, :2], 2 * spacing)
        heights = tile.xyz[core, 2] - surface
        found[tile.index[core]] = heights
    del held
    return found


def thinned(dataset: xr.Dataset, every: int | None, spacing: float | None) -> Sequence[int] | slice:
    """Which points stay; see :meth:`geodl.tools.points_accessor.PointsAccessor.thin`."""
    if (every is None) == (spacing is None):
        raise OptionError("thin() takes one of every= (points) and spacing= (units of the CRS).")
    if every is not None:
        return slice(None, None, as_int(every, "every", minimum=1))
    side = as_float(spacing, "spacing", minimum=1e-9)
    voxels, places = np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    for first, stop in chunk_bounds(dataset):
        values = chunk_values(dataset, ["x", "y", "z"], first, stop)
        new, own = first_in_voxels(np.stack(list(values.values()), axis=1), side)
        voxels, places = np.concatenate([voxels, new]), np.concatenate([places, own + first])
        # The first of each voxel comes from the earliest chunk.
        voxels, kept = np.unique(voxels, axis=0, return_index=True)
        places = places[kept]
    return np.sort(places).tolist()
