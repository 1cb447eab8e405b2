"""The octree of a COPC file: which chunks may hold points of an area.

Cloud Optimized Point Cloud specification 1.0, https://copc.io.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from geodl.base.errors import SourceError
from geodl.core.points import Bounds
from geodl.io.las_layout import LasLayout, ReadBytes

COPC_INFO = (b"copc", 1)
COPC_HIERARCHY = (b"copc", 1000)
_ENTRY = np.dtype([("key", "<i4", (4,)), ("offset", "<u8"), ("size", "<i4"), ("count", "<i4")])
# A node of level 40 of a country-wide cloud measures a millionth of a metre.
_MOST_LEVEL = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Octree:
    """Where the hierarchy of a COPC file begins.

    Parameters
    ----------
    center, halfsize
        Of the root cube, in units of the CRS.
    root
        First byte and size of the root page.
    """

    center: tuple[float, float, float]
    halfsize: float
    root: tuple[int, int]

    def square(self, key: tuple[int, int, int]) -> Bounds:
        """Bounds of the node (level, x, y) on the ground."""
        level, x, y = key
        side = 2 * self.halfsize / 2**level
        left, low = self.center[0] - self.halfsize, self.center[1] - self.halfsize
        return left + x * side, low + y * side, left + (x + 1) * side, low + (y + 1) * side


def read_octree(layout: LasLayout) -> Octree | None:
    """The octree that a file promises, or None for other files."""
    place = layout.find(*COPC_INFO)
    data = b"" if place is None else layout.data_of(place)
    if len(data) < 160:
        return None
    x, y, z, halfsize, _, start, size = struct.unpack("<5dQQ", data[:56])
    sound = np.isfinite([x, y, z, halfsize]).all() and halfsize > 0
    if not sound or start + size > layout.size:
        return None
    return Octree(center=(x, y, z), halfsize=halfsize, root=(start, size))


def nodes_in(
    octree: Octree, bounds: Bounds, read: ReadBytes, where: str
) -> list[tuple[int, Bounds]]:
    """First byte and bounds of the chunks whose nodes overlap an area; reads their pages only.

    Raises
    ------
    SourceError
        A broken hierarchy.
    """
    found: list[tuple[int, Bounds]] = []
    pages, seen = [octree.root], set()
    while pages:
        start, size = pages.pop()
        if start in seen:
            raise SourceError(f"{where} is damaged: its octree refers to itself.")
        seen.add(start)
        data = read(start, size)
        entries = np.frombuffer(data[: len(data) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        for entry in entries:
            level, x, y, _ = (int(number) for number in entry["key"])
            if not 0 <= level <= _MOST_LEVEL:
                raise SourceError(f"{where} is damaged: its octree has a node of level {level}.")
            square = octree.square((level, x, y))
            if not overlap(square, bounds):
                continue
            if entry["count"] < 0:
                pages.append((int(entry["offset"]), int(entry["size"])))
            elif entry["count"] > 0:
                found.append((int(entry["offset"]), square))
    return sorted(found)


def overlap(one: Bounds, other: Bounds) -> bool:
    """Whether two closed areas share a point."""
    return bool(
        one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
    )


def within(one: Bounds, other: Bounds) -> bool:
    """Whether ``one`` lies inside ``other``."""
    return bool(
        one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]
    )


def moved_hierarchy(data: bytes, chunks: dict[int, tuple[int, int]], shift: int) -> bytes:
    """All pages of a hierarchy for a copy whose chunks and pages lie elsewhere.

    Parameters
    ----------
    data
        Of the hierarchy's record: nothing but entries.
    chunks
        First byte of each chunk to its first byte and size in the copy.
    shift
        Bytes by which the record moves.

    Raises
    ------
    KeyError
        A node at a byte where no chunk begins.
    """
    entries = np.frombuffer(data[: len(data) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY).copy()
    for entry in entries:
        if entry["count"] > 0:
            entry["offset"], entry["size"] = chunks[int(entry["offset"])]
        elif entry["count"] < 0:
            entry["offset"] = int(entry["offset"]) + shift
    return entries.tobytes() + data[entries.nbytes :]
