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
from geodl.core.points import PointPlan, lattice_index
from geodl.io.point_cells import SortedCloud
from geodl.io.point_tiles import (
    CELLS_PER_TILE,
    chunk_bounds,
    chunk_values,
    dataset_identity,
    sorted_points,
)
from geodl.ops.point_ground import averaged, ground_heights
from geodl.ops.point_raster import (
    cell_of,
    count_in_cells,
    extreme_in_cells,
    first_in_voxels,
    first_of_each,
    mean_in_cells,
)

KINDS = ("density", "count", "dsm", "dtm", "max", "min", "mean")
_NEEDS_CLASS = ("dsm", "dtm")
_NOISE = (7, 18)
_GROUND = (2, 8)
_CHUNK_CELLS = 512
# More make the graph itself a burden: 500,000 cells along each side of a raster of usual chunks.
_MOST_CHUNKS = 1_000_000
# Ground points around a chunk that its triangles may need, in cells.
_GROUND_CELLS = 32


@dataclass(frozen=True, kw_only=True)
class CloudRaster:
    """Makes chunks of one raster; picklable where the sorted cloud is.

    Parameters
    ----------
    corner
        Row, downwards, and column of the raster's upper left cell on the lattice of cells from
        the origin of the CRS.
    """

    cloud: SortedCloud
    kind: str
    dim: str
    cell: float
    corner: tuple[int, int]
    held: Any = None

    def chunk(self, row: int, col: int, shape: tuple[int, int]) -> np.ndarray:
        """float32 (H, W), or int32 for counts: the cells from a row and column on."""
        corner = self.corner[0] + row, self.corner[1] + col
        left, top = corner[1] * self.cell, -corner[0] * self.cell
        # A cell more than is asked for: its points are on this side or that of a rounded edge.
        pad = self.cell * (_GROUND_CELLS if self.kind == "dtm" else 1)
        right, bottom = left + shape[1] * self.cell, top - shape[0] * self.cell
        points = self.cloud.window((left - pad, bottom - pad, right + pad, top + pad))
        if not len(points):
            empty = np.zeros if self.kind in ("density", "count") else _nan
            return empty(shape, np.int32 if self.kind == "count" else np.float32)
        if self.kind == "dtm":
            return self._ground(points, left, top, shape)
        xy = np.stack([points["x"], points["y"]], axis=1)
        cells = cell_of(xy, self.cell, corner, shape)
        if self.kind in ("density", "count"):
            counts = count_in_cells(cells, shape)
            if self.kind == "count":
                return counts.astype(np.int32)
            return (counts / self.cell**2).astype(np.float32)
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
        x = left + (np.arange(shape[1]) + 0.5) * self.cell
        y = top - (np.arange(shape[0]) + 0.5) * self.cell
        xy = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)
        xyz = np.stack([points[axis] for axis in "xyz"], axis=1)
        ground = _ground_of(xyz, points["classification"])
        heights = ground_heights(averaged(ground, self.cell), xy, 2 * self.cell)
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
    cloud, held = sorted_points(dataset, list(dict.fromkeys(names)), tile=side * cell)
    extent = cloud.extent()
    if extent is None:
        raise DataError("There are no points to make a raster of.")
    left, bottom, right, top = extent
    (row, stop_row), (col, stop_col) = (
        lattice_index(np.array(ends), cell).tolist() for ends in ((-top, -bottom), (left, right))
    )
    shape = (stop_row + 1 - row, stop_col + 1 - col)
    if math.prod(-(-length // side) for length in shape) > _MOST_CHUNKS:
        raise OptionError(
            f"resolution={cell:g} makes a raster of {shape[0]} x {shape[1]} cells in chunks of "
            f"{side}; give a larger resolution, in units of the CRS, or larger chunks."
        )
    raster = CloudRaster(cloud=cloud, kind=kind, dim=dim, cell=cell, corner=(row, col), held=held)
    return _array(dataset, raster, shape, side)


def _nan(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    return np.full(shape, np.nan, dtype)


def _array(
    dataset: xr.Dataset, raster: CloudRaster, shape: tuple[int, int], side: int
) -> xr.DataArray:
    sizes = tuple(
        tuple(min(side, length - start) for start in range(0, length, side)) for length in shape
    )
    token = tokenize(dataset_identity(dataset), raster.kind, raster.dim, raster.cell, side)
    name = f"geodl_{raster.kind}-{token}"
    # A key of its own: workers of a cluster are sent the points once, not with each chunk.
    points = f"geodl_points-{token}"
    tasks: dict[Any, Any] = {
        (name, i, j): (CloudRaster.chunk, points, i * side, j * side, (height, width))
        for i, height in enumerate(sizes[0])
        for j, width in enumerate(sizes[1])
    }
    layers: dict[str, Any] = {points: {points: raster}, name: tasks}
    graph = HighLevelGraph(layers, {points: set(), name: {points}})
    dtype = np.int32 if raster.kind == "count" else np.float32
    data = da.Array(graph, name, chunks=sizes, dtype=dtype)
    cell = raster.cell
    top, left = -raster.corner[0] * cell, raster.corner[1] * cell
    array = xr.DataArray(
        data,
        dims=("y", "x"),
        coords={
            "y": top - (np.arange(shape[0]) + 0.5) * cell,
            "x": left + (np.arange(shape[1]) + 0.5) * cell,
        },
        name=raster.kind,
    )
    array = array.rio.write_transform(Affine(cell, 0, left, 0, -cell, top))
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
    # Places in the Dataset, not in files.
    plain = dataset[["x", "y", "z", "classification"]].copy()
    plain["x"] = plain.x + 0.0
    cloud, held = sorted_points(plain, ["classification"], tile=size)
    found = np.full(dataset.sizes["point"], np.nan, np.float32)
    any_ground = False
    for spec in PointPlan(
        size=size, buffer=buffer, tiles=tuple(cloud.tile_counts(CELLS_PER_TILE))
    ).blocks():
        tile = cloud.read(spec)
        ground = _ground_of(tile.xyz, tile.attributes["classification"])
        any_ground |= len(ground) > 0
        core = tile.inside
        surface = ground_heights(averaged(ground, spacing), tile.xyz[core, :2], 2 * spacing)
        heights = tile.xyz[core, 2] - surface
        found[tile.index[core]] = heights
    del held
    if not any_ground:
        raise DataError("No point is classified as ground (2 or 8); classify the ground first.")
    return found


def _ground_of(xyz: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The points of the ground that have a height."""
    found: np.ndarray = xyz[np.isin(codes, _GROUND) & np.isfinite(xyz[:, 2])]
    return found


def thinned(dataset: xr.Dataset, every: int | None, spacing: float | None) -> np.ndarray | slice:
    """Which points stay; see :meth:`geodl.tools.points_accessor.PointsAccessor.thin`."""
    if (every is None) == (spacing is None):
        raise OptionError("thin() takes one of every= (points) and spacing= (units of the CRS).")
    if every is not None:
        return slice(None, None, as_int(every, "every", minimum=1))
    side = as_float(spacing, "spacing", minimum=1e-9)
    found = [(np.zeros((0, 3), np.int64), np.zeros(0, np.int64))]
    for first, stop in chunk_bounds(dataset):
        values = chunk_values(dataset, ["x", "y", "z"], first, stop)
        voxels, own = first_in_voxels(np.stack(list(values.values()), axis=1), side)
        found.append((voxels, own + first))
        # Only when they have doubled: each point is looked at a few times, however many chunks.
        if sum(len(places) for _, places in found[1:]) >= len(found[0][1]):
            found = [_joined_voxels(found)]
    return np.sort(_joined_voxels(found)[1])


def _joined_voxels(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of some chunks, in their order, with the first point of each."""
    voxels, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first = first_of_each(voxels)
    return voxels[first], places[first]
