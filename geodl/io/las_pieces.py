"""A point file cut into square LAS files with the points around them, in one pass."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.packages import require
from geodl.io.las_file import LasFile

# What is seen around a piece, as a share of its side.
BUFFER_SHARE = 1 / 8
_COPC = "copc"


@dataclass(frozen=True, slots=True, kw_only=True)
class LasPiece:
    """One square of a file.

    Parameters
    ----------
    path
        LAS file with the points of the square and those around it.
    core
        x0, y0, x1, y1 of the square; no point lies on its edge.
    """

    path: Path
    core: tuple[float, float, float, float]


def cut_file(file: LasFile, folder: Path, most: int) -> list[LasPiece]:
    """Write the pieces of a file, every record as it is; memory holds one part of the file.

    Parameters
    ----------
    folder
        New; takes one LAS file for each piece.
    most
        Points of a piece without those around it, where they lie evenly.

    Returns
    -------
    Pieces that own a point, by row and column. Each point belongs to one of them.
    """
    folder.mkdir()
    layout = file.layout
    x0, y0, x1, y1 = file.bounds
    side = math.sqrt(max((x1 - x0) * (y1 - y0), 1e-12) * most / layout.count)
    # Whole steps of the stored integers: no rounding decides where a point belongs.
    steps = [max(1, round(side / abs(scale))) for scale in layout.scales[:2]]
    owners: set[tuple[int, int]] = set()
    header = _header(file)
    for part in file.parts(0):
        records = file.read(part)
        for (row, column), chosen, owned in _places(records, steps):
            _append(folder / f"{row}_{column}.las", header, records[chosen])
            if owned:
                owners.add((row, column))
    return [
        LasPiece(path=folder / f"{row}_{column}.las", core=_core(file, row, column, steps))
        for row, column in sorted(owners)
    ]


def _places(
    records: np.ndarray, steps: Sequence[int]
) -> Iterator[tuple[tuple[int, int], np.ndarray, bool]]:
    """Each square that some records lie in or near: row and column, which, and whether in it."""
    stored = [records[axis].astype(np.int64) for axis in "XY"]
    own = [values // step for values, step in zip(stored, steps, strict=True)]
    pads = [math.ceil(step * BUFFER_SHARE) for step in steps]
    for move in itertools.product((-1, 0, 1), repeat=2):
        near = np.ones(len(records), bool)
        for values, cell, step, pad, by in zip(stored, own, steps, pads, move, strict=True):
            low = (cell + by) * step
            near &= (values >= low - pad) & (values < low + step + pad)
        rows = np.flatnonzero(near)
        cells = np.stack([own[1][rows] + move[1], own[0][rows] + move[0]], axis=1)
        found, which = np.unique(cells, axis=0, return_inverse=True)
        for number, (row, column) in enumerate(found.tolist()):
            yield (row, column), rows[which.reshape(-1) == number], move == (0, 0)


def _core(
    file: LasFile, row: int, column: int, steps: Sequence[int]
) -> tuple[float, float, float, float]:
    """Half a step below the first integer of a square, and of the next one."""
    scales, offsets = file.layout.scales, file.layout.offsets

    def edge(axis: int, number: int) -> float:
        return (number * steps[axis] - 0.5) * scales[axis] + offsets[axis]

    ends = [edge(0, column), edge(1, row), edge(0, column + 1), edge(1, row + 1)]
    return (
        min(ends[0], ends[2]),
        min(ends[1], ends[3]),
        max(ends[0], ends[2]),
        max(ends[1], ends[3]),
    )


def _header(file: LasFile) -> Any:
    """That of the pieces: the file's own, without an octree that they do not have."""
    laspy = require("laspy", "points")
    header = laspy.LasHeader.read_from(io.BytesIO(file.layout.head))
    header.vlrs = [vlr for vlr in header.vlrs if vlr.user_id != _COPC]
    if file.crs is not None and header.parse_crs() is None:
        # It was stated behind the points.
        header.add_crs(require("pyproj", "points").CRS.from_wkt(file.crs))
    return header


def _append(path: Path, header: Any, records: np.ndarray) -> None:
    laspy = require("laspy", "points")
    points = laspy.ScaleAwarePointRecord(
        np.ascontiguousarray(records),
        header.point_format,
        scales=header.scales,
        offsets=header.offsets,
    )
    if path.exists():
        with laspy.open(path, mode="a") as file:
            file.append_points(points)
    else:
        with laspy.open(path, mode="w", header=header, do_compress=False) as file:
            file.write_points(points)
