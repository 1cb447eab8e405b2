"""Outlines of pixel regions: their corners, block by block, and the rings that corners make.

A ring runs with its region on the right hand (x right, y down): clockwise around a region,
anticlockwise around a hole. Where a region meets itself at a corner, rings touch there and do not
cross: of an edge-connected region every ring is simple, one is the shell and the others are holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

# Directions from a vertex.
_LEFT, _RIGHT, _UP, _DOWN = range(4)
# Where a ring comes from and goes to, by kind of corner. Of the four pixels around a vertex (a b
# over c d): 0-3 are pixels a-d alone, 4-7 the elbows of three with a-d in the middle, 8-11 straight
# edges with the region above, below, left and right.
_COMES = np.array(
    [_UP, _RIGHT, _LEFT, _DOWN, _RIGHT, _DOWN, _UP, _LEFT, _RIGHT, _LEFT, _UP, _DOWN], np.int8
)
_GOES = np.array(
    [_LEFT, _UP, _DOWN, _RIGHT, _DOWN, _LEFT, _RIGHT, _UP, _LEFT, _RIGHT, _DOWN, _UP], np.int8
)


@dataclass(frozen=True, slots=True)
class Corners:
    """Corners of regions.

    Parameters
    ----------
    region
        int64 (N,): number of the region.
    x, y
        int32 (N,): pixel edges.
    kind
        uint8 (N,): how the ring turns there.
    """

    region: np.ndarray
    x: np.ndarray
    y: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.region)

    def take(self, chosen: np.ndarray) -> Corners:
        """Those where a bool mask (N,) is True."""
        return Corners(self.region[chosen], self.x[chosen], self.y[chosen], self.kind[chosen])

    @classmethod
    def concatenate(cls, parts: list[Corners]) -> Corners:
        if not parts:
            none = np.zeros(0, np.int32)
            return cls(none.astype(np.int64), none, none, none.astype(np.uint8))
        return cls(
            np.concatenate([part.region for part in parts]),
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.kind for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed rings, by region, its shell first and then its holes by first vertex.

    Parameters
    ----------
    xy
        int32 (M, 2): vertices, the first of each ring again at its end. A ring begins at its
        topmost and there leftmost vertex.
    offsets
        int64 (R + 1,): where each ring begins in ``xy``.
    region
        int64 (R,).
    area
        int64 (R,): pixels inside; negative for holes.
    """

    xy: np.ndarray
    offsets: np.ndarray
    region: np.ndarray
    area: np.ndarray

    def of(self, wanted: np.ndarray) -> Rings:
        """Those of the regions where a bool mask is True."""
        kept, lengths = wanted[self.region], np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
        return Rings(self.xy[np.repeat(kept, lengths)], offsets, self.region[kept], self.area[kept])


def find_corners(
    values: np.ndarray, regions: np.ndarray, row: int, col: int, *, junctions: bool
) -> tuple[Corners, np.ndarray]:
    """Corners at the inner vertices of an array, and the regions that meet there at a corner alone.

    Parameters
    ----------
    values
        int32 (H, W).
    regions
        int64 (H, W): edge-connected regions of equal value; -1 where there is no data. A region
        may bear several numbers in one array if it is known to be one elsewhere only.
    row, col
        Of the raster's vertex between the first four pixels.
    junctions
        Also the straight edges where two other regions meet.

    Returns
    -------
    Corners, and int64 (L, 2) pairs of regions of equal value.
    """
    valid = regions >= 0
    across = (values[:, 1:] == values[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    down = (values[1:] == values[:-1]) & valid[1:] & valid[:-1]
    top, bottom, left, right = across[:-1], across[1:], down[:, :-1], down[:, 1:]
    a, b, c, d = (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:])
    alone = (
        (a, ~(top | left) & valid[a]),
        (b, ~(top | right) & valid[b]),
        (c, ~(bottom | left) & valid[c]),
        (d, ~(bottom | right) & valid[d]),
    )
    elbows = (
        (a, top & left & ~right),
        (b, top & right & ~left),
        (c, bottom & left & ~right),
        (d, bottom & right & ~left),
    )
    straight: tuple[tuple[tuple[slice, slice], np.ndarray], ...] = ()
    if junctions:
        # Two pixels without data count as one neighbour.
        void_across = ~(valid[:, 1:] | valid[:, :-1])
        void_down = ~(valid[1:] | valid[:-1])
        straight = (
            (a, top & ~(left | right | bottom | void_across[1:])),
            (c, bottom & ~(left | right | top | void_across[:-1])),
            (a, left & ~(top | bottom | right | void_down[:, 1:])),
            (b, right & ~(top | bottom | left | void_down[:, :-1])),
        )
    parts = []
    for kind, (pixel, where) in enumerate((*alone, *elbows, *straight)):
        y, x = np.nonzero(where)
        parts.append(
            Corners(
                regions[pixel][y, x],
                (x + col).astype(np.int32),
                (y + row).astype(np.int32),
                np.full(len(x), kind, np.uint8),
            )
        )
    links = []
    for (one, first), (two, second) in ((alone[0], alone[3]), (alone[1], alone[2])):
        meet = first & second & (values[one] == values[two])
        links.append(np.stack([regions[one][meet], regions[two][meet]], axis=1))
    return Corners.concatenate(parts), np.concatenate(links)


def trace(corners: Corners) -> Rings:
    """The rings that all corners of some regions make.

    Parameters
    ----------
    corners
        Every corner of every region; each region bears one number from 0.
    """
    if len(corners) == 0:
        none = np.zeros(0, np.int64)
        return Rings(np.zeros((0, 2), np.int32), np.zeros(1, np.int64), none, none)
    order, key = _reading_order(corners)
    region, x, y, kind = (
        part[order] for part in (corners.region, corners.x, corners.y, corners.kind)
    )
    after = _successors(region, x, y, kind)
    # Two corners of one region at one vertex: the rings touch there, each goes on as the other.
    twice = np.flatnonzero((key[1:] == key[:-1]) & (kind[1:] < 8) & (kind[:-1] < 8))
    after[twice], after[twice + 1] = after[twice + 1], after[twice]
    path, starts, lengths = _walk(after)
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    closed = np.ones(int(offsets[-1]), bool)
    closed[offsets[1:] - 1] = False
    nodes = np.empty(len(closed), np.int64)
    nodes[closed] = path
    nodes[~closed] = starts
    xy = np.stack([x[nodes], y[nodes]], axis=1)
    return Rings(xy, offsets, region[starts], _areas(xy, offsets))


def _reading_order(corners: Corners) -> tuple[np.ndarray, np.ndarray]:
    """Positions by region, row, column and then the side that the horizontal edge goes to."""
    height, width = int(corners.y.max()) + 1, int(corners.x.max()) + 1
    key = (corners.region * height + corners.y) * width + corners.x
    to_right = (_COMES[corners.kind] == _RIGHT) | (_GOES[corners.kind] == _RIGHT)
    order = np.argsort(key * 2 + to_right)
    return order, key[order]


def _successors(region: np.ndarray, x: np.ndarray, y: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """int64 (N,): the corner that each corner's ring goes to; corners in reading order."""
    comes, goes = _COMES[kind], _GOES[kind]
    after = np.empty(len(kind), np.int64)
    # Along a line the edges of a region begin and end in turn.
    count = (comes <= _RIGHT).astype(np.int64) + (goes <= _RIGHT)
    _pair(np.repeat(np.arange(len(kind)), count), goes == _RIGHT, after)
    count = 2 - count
    height = int(y.max()) + 1
    key = (region * (int(x.max()) + 1) + x) * height + y
    to_down = (comes == _DOWN) | (goes == _DOWN)
    by_column = np.argsort(key * 2 + to_down)
    _pair(np.repeat(by_column, count[by_column]), goes == _DOWN, after)
    return after


def _pair(ends: np.ndarray, leaves: np.ndarray, after: np.ndarray) -> None:
    """Join ends of edges in pairs; ``leaves`` tells which corners go on to the farther end."""
    near, far = ends[0::2], ends[1::2]
    onwards = leaves[near]
    after[np.where(onwards, near, far)] = np.where(onwards, far, near)


def _walk(after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All corners ring by ring, each from its first one; those first ones; and rings' lengths."""
    count = len(after)
    each = np.arange(count)
    graph = _graph(after)
    rings, ring = csgraph.connected_components(graph, directed=True, connection="weak")
    first = np.empty(rings, np.int64)
    first[ring[::-1]] = each[::-1]
    by_first = np.argsort(first)
    starts = first[by_first]
    before = np.empty(count, np.int64)
    before[after] = each
    # One path through all rings: each is cut before its first corner and tied to the next one.
    joined = after.copy()
    last = before[starts]
    joined[last[:-1]] = starts[1:]
    joined[last[-1]] = last[-1]
    path = csgraph.breadth_first_order(
        _graph(joined), int(starts[0]), directed=True, return_predecessors=False
    )
    return path, starts, np.bincount(ring, minlength=rings)[by_first]


def _graph(after: np.ndarray) -> sparse.csr_array:
    count = len(after)
    return sparse.csr_array(
        (np.ones(count, np.int8), after, np.arange(count + 1)), shape=(count, count)
    )


def _areas(xy: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 (R,): of closed rings; positive where clockwise on screen."""
    x, y = xy.astype(np.int64).T
    doubled = np.zeros(len(xy), np.int64)
    doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    # The last vertex of a ring is not tied to the first of the next one.
    doubled[offsets[1:] - 1] = 0
    return np.add.reduceat(doubled, offsets[:-1]) // 2
