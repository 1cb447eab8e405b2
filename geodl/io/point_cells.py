"""A cloud sorted by place: in memory, or in files for clouds of any size.

Each part of the cloud (about a million points) is sorted by the cells of one lattice and written to
a file of its own, by whichever process has read it. A tile then gathers the runs of its cells from
all parts. One pass over the cloud, any number of workers, memory of one part each.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.core.points import Bounds, PointTile, PointTileSpec, inside, lattice_index, run_starts
from geodl.io.cloud import Cloud, CloudPoints
from geodl.io.las_file import PointPart

_OWN = ("x", "y", "z", "source", "index")
# Where a window's edge is rounded, points of one cell more are looked at; never one less.
_SLACK = 1e-6


def sorted_dtype(cloud: Cloud, names: Sequence[str]) -> np.dtype[Any]:
    """Fields of a sorted point: coordinates, where it comes from, and dimensions."""
    fields: list[Any] = [(axis, np.float64) for axis in "xyz"]
    fields += [("source", np.int32), ("index", np.int64)]
    for name in names:
        dtype, columns = cloud.fields[name]
        fields.append((name, dtype) if columns is None else (name, dtype, (columns,)))
    return np.dtype(fields)


@dataclass(frozen=True, slots=True)
class SortedPart:
    """Points of one part by cell, then by their place in the file.

    Parameters
    ----------
    points
        (N,) of :func:`sorted_dtype`.
    cells
        int64 (M, 4): row and column of a cell, its first point and the one behind its last.
    """

    points: np.ndarray
    cells: np.ndarray


def sort_part(cloud: Cloud, read: CloudPoints, names: Sequence[str], cell: float) -> SortedPart:
    """Sort points that were read; see :func:`sort_points`."""
    points = np.empty(len(read.index), sorted_dtype(cloud, names))
    for axis in range(3):
        points["xyz"[axis]] = read.xyz[:, axis]
    points["source"] = read.part.source
    points["index"] = read.index
    for name in names:
        points[name] = cloud.field(read, name)
    return sort_points(points, cell)


def sort_points(points: np.ndarray, cell: float) -> SortedPart:
    """Sort points of :func:`sorted_dtype`.

    Parameters
    ----------
    cell
        Side of the cells, whose lattice is anchored at the CRS's origin.

    Raises
    ------
    DataError
        Points whose x or y is not finite.
    """
    rows, cols = (lattice_index(points[axis], cell) for axis in "yx")
    order = np.lexsort((cols, rows))
    rows, cols, points = rows[order], cols[order], points[order]
    starts = run_starts(rows, cols)
    stops = np.append(starts[1:], len(points))[: len(starts)]
    return SortedPart(points, np.stack([rows[starts], cols[starts], starts, stops], axis=1))


@dataclass(frozen=True, slots=True)
class PartSpec:
    """One part to sort."""

    part: PointPart

    @property
    def key(self) -> tuple[int, int]:
        return self.part.source, self.part.first

    @property
    def name(self) -> str:
        return f"file {self.part.source}, points from {self.part.first}"


@dataclass(frozen=True, kw_only=True)
class SortBlocks:
    """The pass that sorts a cloud, a block task of :func:`geodl.runtime.run.run_blocks`."""

    cloud: Cloud
    names: tuple[str, ...]
    cell: float
    folder: Path

    def read(self, spec: PartSpec) -> CloudPoints:
        return self.cloud.read(spec.part)

    def compute(self, spec: PartSpec, loaded: CloudPoints) -> SortedPart:
        return sort_part(self.cloud, loaded, self.names, self.cell)

    def write(self, spec: PartSpec, computed: SortedPart) -> tuple[dict[str, Any], bytes]:
        save_part(self.folder, part_stem(spec.part), computed)
        return {"points": len(computed.points)}, b""


def part_stem(part: PointPart) -> str:
    return f"{part.source:05d}_{part.first:012d}"


def save_part(folder: Path, stem: str, part: SortedPart) -> None:
    """Write a sorted part; the file of its cells comes last and says that it is whole."""
    save_array(folder / f"{stem}.npy", part.points)
    save_array(folder / f"{stem}.cells.npy", part.cells)


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an array whole or not at all; a second writer writes the same."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, values, allow_pickle=False)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


@dataclass(frozen=True, kw_only=True)
class SortedCloud:
    """A sorted cloud that is read by window. Picklable where it lies in files.

    Parameters
    ----------
    cell
        Side of its cells.
    parts
        Arrays of points, or files that hold them.
    cells
        int64 (M, 5): row, column, part, first point, stop; ordered by part, row and column. Or the
        file that holds them.
    """

    cell: float
    parts: tuple[np.ndarray | Path, ...] = field(repr=False)
    cells: np.ndarray | Path = field(repr=False)

    def tile_counts(self, cells: int) -> dict[tuple[int, int], int]:
        """Row and column of each tile that owns a point, row by row, to the number of its points.

        Parameters
        ----------
        cells
            Side of a tile in cells: a power of 2, so that the edges of both lattices are the same
            floating-point numbers.
        """
        table = self._table()
        if not len(table):
            return {}
        places = np.stack([table[:, 0] // cells, table[:, 1] // cells], axis=1)
        tiles, which = np.unique(places, axis=0, return_inverse=True)
        counts = np.bincount(which.reshape(-1), weights=table[:, 4] - table[:, 3])
        return {
            (row, col): int(count) for (row, col), count in zip(tiles.tolist(), counts, strict=True)
        }

    def extent(self) -> Bounds | None:
        """Bounds of the points themselves; None without any."""
        found = []
        for number in range(len(self.parts)):
            points = self._part(number)
            if len(points):
                x, y = points["x"], points["y"]
                found.append((x.min(), y.min(), -x.max(), -y.max()))
        if not found:
            return None
        left, bottom, right, top = np.min(found, axis=0)
        return float(left), float(bottom), float(-right), float(-top)

    @classmethod
    def gather(cls, folder: Path, stems: Sequence[str], cell: float) -> SortedCloud:
        """The cloud of parts in files; writes one table of all cells."""
        table = [np.load(folder / f"{stem}.cells.npy") for stem in stems]
        save_array(folder / "cells.npy", _join_cells(table))
        return cls(
            cell=cell,
            parts=tuple(folder / f"{stem}.npy" for stem in stems),
            cells=folder / "cells.npy",
        )

    @classmethod
    def in_memory(cls, cloud: Cloud, names: Sequence[str], *, cell: float) -> SortedCloud:
        """Read and sort a cloud that fits memory."""
        return cls.of(
            (sort_part(cloud, cloud.read(part), names, cell) for part in cloud.parts), cell
        )

    @classmethod
    def of(cls, parts: Iterable[SortedPart], cell: float) -> SortedCloud:
        """Parts in memory as one cloud."""
        kept = list(parts)
        return cls(
            cell=cell,
            parts=tuple(part.points for part in kept),
            cells=_join_cells([part.cells for part in kept]),
        )

    def read(self, spec: PointTileSpec) -> PointTile:
        """Points of a tile's core and buffer, ordered by source and index."""
        points = self.window(spec.read)
        xyz = np.stack([points[axis] for axis in "xyz"], axis=1)
        names = [name for name in points.dtype.names or () if name not in _OWN]
        return PointTile(
            row=spec.row,
            col=spec.col,
            core=spec.core,
            xyz=xyz,
            attributes={name: np.ascontiguousarray(points[name]) for name in names},
            source=np.ascontiguousarray(points["source"]),
            index=np.ascontiguousarray(points["index"]),
        )

    def window(self, bounds: Bounds) -> np.ndarray:
        """Points inside half-open bounds, ordered by source and index."""
        parts = []
        for number, start, stop in self._slices(bounds):
            points = self._part(number)[start:stop]
            xy = np.stack([points["x"], points["y"]], axis=1)
            parts.append(np.asarray(points)[inside(xy, bounds)])
        if not parts:
            return np.empty(0, self._part(0).dtype) if self.parts else np.empty(0)
        points = np.concatenate(parts)
        return points[np.lexsort((points["index"], points["source"]))]

    def _table(self) -> np.ndarray:
        if isinstance(self.cells, np.ndarray):
            return self.cells
        # A later run to the same product sorts other points into files of the same names.
        found = self.cells.stat()
        return _cells_of(str(self.cells), (found.st_mtime_ns, found.st_ino, found.st_size))

    def _part(self, number: int) -> np.ndarray:
        part = self.parts[number]
        if not isinstance(part, Path):
            return part
        found: np.ndarray = np.load(part, mmap_mode="r", allow_pickle=False)
        return found

    def _slices(self, bounds: Bounds) -> Iterator[tuple[int, int, int]]:
        """Runs of points in the cells that bounds touch: part, first, stop."""
        cells = self._table()
        c0, r0 = (np.floor(b / self.cell - _SLACK) for b in bounds[:2])
        c1, r1 = (np.floor(b / self.cell + _SLACK) for b in bounds[2:])
        row, col = cells[:, 0], cells[:, 1]
        chosen = cells[(row >= r0) & (row <= r1) & (col >= c0) & (col <= c1)]
        if not len(chosen):
            return
        part, start, stop = chosen[:, 2], chosen[:, 3], chosen[:, 4]
        new = np.ones(len(chosen), bool)
        new[1:] = (part[1:] != part[:-1]) | (start[1:] != stop[:-1])
        first = np.flatnonzero(new)
        last = np.append(first[1:], len(chosen)) - 1
        yield from zip(
            part[first].tolist(), start[first].tolist(), stop[last].tolist(), strict=True
        )


@functools.lru_cache(maxsize=2)
def _cells_of(path: str, stamp: tuple[int, int, int]) -> np.ndarray:
    """The cells in a file, kept for the next tile; ``stamp`` tells files of one name apart."""
    found: np.ndarray = np.load(path, allow_pickle=False)
    return found


def _join_cells(tables: Sequence[np.ndarray]) -> np.ndarray:
    parts = [
        np.column_stack([t[:, :2], np.full(len(t), k), t[:, 2:]]) for k, t in enumerate(tables)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 5), np.int64)
