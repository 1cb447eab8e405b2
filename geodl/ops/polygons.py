"""Regions of equal value as polygons, from blocks of a raster: what the whole raster gives.

Blocks are numbered by themselves and joined where they meet. A region is traced as soon as no
block that is still to come can touch it, so that memory holds the open regions and the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from scipy import sparse
from scipy.sparse import csgraph

from geodl.core.grid import Window
from geodl.ops.outlines import Corners, Rings, find_corners, trace
from geodl.ops.region_labels import label_regions

# About so many corners are traced at once; tracing takes some hundred bytes for each.
_TRACED = 1_000_000
# Corners are kept until there are so many, and twice those that stayed open the last time.
_SWEEP_AT = 2_000_000


@dataclass(frozen=True, slots=True)
class RegionPolygons:
    """Polygons of regions, in pixel edges (x right, y down) of the whole raster.

    Parameters
    ----------
    values
        int64 (N,).
    first
        int32 (N, 2): row and column of a region's first pixel in reading order.
    areas
        int64 (N,): pixels.
    polygons
        object (N,): Polygon or, where corners join, MultiPolygon. Shells run clockwise on screen.
    """

    values: np.ndarray
    first: np.ndarray
    areas: np.ndarray
    polygons: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence[RegionPolygons]) -> RegionPolygons:
        """All parts by value, then by first pixel: the same however a raster was cut."""
        none = [
            np.zeros(0, np.int64), np.zeros((0, 2), np.int32), np.zeros(0, np.int64),
            np.zeros(0, object),
        ]  # fmt: skip
        values, first, areas, polygons = (
            np.concatenate([none[k], *(getattr(part, name) for part in parts)])
            for k, name in enumerate(("values", "first", "areas", "polygons"))
        )
        order = np.lexsort((first[:, 1], first[:, 0], values))
        return cls(values[order], first[order], areas[order], polygons[order])


@dataclass
class Polygonizer:
    """Takes the blocks of a raster, row of blocks by row of blocks, each from left to right.

    Parameters
    ----------
    height, width
        Of the raster.
    connectivity
        8: regions that touch at a corner alone are one, a MultiPolygon; 4: only edges join.
    junctions
        Keep a vertex wherever three regions meet, so that neighbours share all their vertices.
    least_px
        Regions of fewer pixels are left out.
    dropped
        Values whose regions are left out.
    transform
        a, b, c, d, e, f as :class:`affine.Affine` has them: from pixel edges to the polygons' own
        coordinates; pixel edges when not given.
    """

    height: int
    width: int
    connectivity: int = 8
    junctions: bool = False
    least_px: float = 0
    dropped: tuple[int, ...] = ()
    transform: tuple[float, float, float, float, float, float] | None = None
    _count: int = 0
    _values: list[np.ndarray] = field(default_factory=list)
    _links: list[np.ndarray] = field(default_factory=list)
    _meets: list[np.ndarray] = field(default_factory=list)
    _open: list[Corners] = field(default_factory=list)
    _held: int = 0
    _sweep_at: int = _SWEEP_AT
    _done: list[RegionPolygons] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The last rows of the blocks above and of this row of blocks, with a margin of one pixel;
        # and the last column of the block on the left.
        self._above = _Line.empty(self.width + 2)
        self._below = _Line.empty(self.width + 2)
        self._left = _Line.empty(0)

    def add(self, values: np.ndarray, valid: np.ndarray, window: Window) -> None:
        """Take the next block.

        Parameters
        ----------
        values
            int32 (H, W).
        valid
            bool (H, W); pixels elsewhere belong to no region.
        window
            Where the block lies in the raster.
        """
        regions, of_region = label_regions(values, valid)
        regions[regions >= 0] += self._count
        self._count += len(of_region)
        self._values.append(of_region)
        framed_values, framed = self._frame(values, regions, window)
        corners, meets = find_corners(
            framed_values, framed, window.row, window.col, junctions=self.junctions
        )
        self._links.append(_seam(framed_values, framed))
        if self.connectivity == 8:
            self._meets.append(meets)
        self._open.append(corners)
        self._held += len(corners)
        self._advance(values, regions, window)
        if self._held >= self._sweep_at:
            self._sweep()

    def finish(self) -> RegionPolygons:
        """All regions, after the last block."""
        for line in (self._above, self._below, self._left):
            line.regions[:] = -1
        self._sweep()
        return RegionPolygons.concatenate(self._done)

    def _frame(
        self, values: np.ndarray, regions: np.ndarray, window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """The block with its neighbours' last pixels above and left; margins at the far edges."""
        bottom = int(window.row_stop == self.height)
        right = int(window.col_stop == self.width)
        shape = (window.height + 1 + bottom, window.width + 1 + right)
        framed_values, framed = np.zeros(shape, np.int32), np.full(shape, -1, np.int64)
        inner = np.s_[1 : window.height + 1, 1 : window.width + 1]
        framed_values[inner], framed[inner] = values, regions
        above = slice(window.col, window.col + shape[1])
        framed_values[0], framed[0] = self._above.values[above], self._above.regions[above]
        if window.col > 0:
            rows = slice(1, window.height + 1)
            framed_values[rows, 0], framed[rows, 0] = self._left.values, self._left.regions
        return framed_values, framed

    def _advance(self, values: np.ndarray, regions: np.ndarray, window: Window) -> None:
        below = slice(window.col + 1, window.col_stop + 1)
        self._below.values[below], self._below.regions[below] = values[-1], regions[-1]
        self._left = _Line(values[:, -1].copy(), regions[:, -1].copy())
        if window.col_stop == self.width:
            self._above, self._below = self._below, _Line.empty(self.width + 2)
            self._left = _Line.empty(0)

    def _sweep(self) -> None:
        """Trace what is complete; keep and renumber the rest."""
        links = np.concatenate([np.zeros((0, 2), np.int64), *self._links])
        region = _joined(links, self._count)
        meets = np.concatenate([np.zeros((0, 2), np.int64), *self._meets])
        total = int(region.max(initial=-1)) + 1
        group = _joined(region[meets], total)
        alive = np.zeros(int(group.max(initial=-1)) + 1, bool)
        for line in (self._above, self._below, self._left):
            alive[group[region[line.regions[line.regions >= 0]]]] = True
        open_region = alive[group]
        of_region = np.zeros(total, np.int32)
        of_region[region] = np.concatenate([np.zeros(0, np.int32), *self._values])
        corners = Corners.concatenate(self._open)
        self._open.clear()
        number = region[corners.region]
        stays = open_region[number]
        self._emit(corners.take(~stays), number[~stays], group, of_region)
        self._keep(corners.take(stays), number[stays], region, group, of_region, open_region)

    def _keep(
        self,
        corners: Corners,
        number: np.ndarray,
        region: np.ndarray,
        group: np.ndarray,
        of_region: np.ndarray,
        open_region: np.ndarray,
    ) -> None:
        fresh = np.where(open_region, np.cumsum(open_region) - 1, -1)
        self._open = [Corners(fresh[number], corners.x, corners.y, corners.kind)]
        self._held = len(corners)
        self._sweep_at = max(_SWEEP_AT, 2 * self._held)
        self._values = [of_region[open_region]]
        self._count = int(open_region.sum())
        self._links = []
        # Groups go on as a link of each region to the group's first one.
        groups, at = np.unique(group[open_region], return_inverse=True)
        lead = np.zeros(len(groups), np.int64)
        lead[at[::-1]] = np.arange(self._count)[::-1]
        self._meets = [np.stack([np.arange(self._count), lead[at]], axis=1)]
        for line in (self._above, self._below, self._left):
            held = line.regions >= 0
            line.regions[held] = fresh[region[line.regions[held]]]

    def _emit(
        self, corners: Corners, number: np.ndarray, group: np.ndarray, of_region: np.ndarray
    ) -> None:
        wanted = ~np.isin(of_region, self.dropped)[number]
        corners, number = corners.take(wanted), number[wanted]
        owner = group[number]
        part = np.cumsum(np.bincount(owner, minlength=1)) // _TRACED
        part_of_corner = part[owner]
        for k in range(int(part[-1]) + 1):
            here = part_of_corner == k
            if here.any():
                self._trace(corners.take(here), number[here], group, of_region)

    def _trace(
        self, corners: Corners, number: np.ndarray, group: np.ndarray, of_region: np.ndarray
    ) -> None:
        present = np.zeros(len(of_region), bool)
        present[number] = True
        dense = np.cumsum(present) - 1
        rings = trace(Corners(dense[number], corners.x, corners.y, corners.kind))
        chosen = np.flatnonzero(present)
        self._done.append(self._assemble(rings, of_region[chosen], group[chosen]))

    def _assemble(self, rings: Rings, of_region: np.ndarray, group: np.ndarray) -> RegionPolygons:
        """Polygons of whole groups from the rings of their regions, which count from 0."""
        shells = np.flatnonzero(np.diff(rings.region, prepend=-1))
        sizes = np.add.reduceat(rings.area, shells) if len(shells) else rings.area
        begin = rings.xy[rings.offsets[shells]]
        # Regions by group, and within a group by first pixel.
        order = np.lexsort((begin[:, 0], begin[:, 1], group))
        heads = np.flatnonzero(np.diff(group[order], prepend=-1))
        areas = np.add.reduceat(sizes[order], heads) if len(heads) else sizes
        kept = areas >= self.least_px
        members = np.diff(np.append(heads, len(order)))
        chosen = order[np.repeat(kept, members)]
        wanted = np.zeros(len(shells), bool)
        wanted[chosen] = True
        parts = _polygons(rings.of(wanted), self.transform)[(np.cumsum(wanted) - 1)[chosen]]
        members = members[kept]
        starts = np.cumsum(members) - members
        single = members == 1
        polygons = np.empty(len(members), object)
        polygons[single] = parts[starts[single]]
        owner = np.repeat(np.cumsum(~single) - 1, members)
        several = np.repeat(~single, members)
        polygons[~single] = shapely.multipolygons(parts[several], indices=owner[several])
        lead = order[heads[kept]]
        return RegionPolygons(
            of_region[lead].astype(np.int64), begin[lead][:, ::-1], areas[kept], polygons
        )


@dataclass(slots=True)
class _Line:
    """Values and regions along a seam; region -1 where there is nothing."""

    values: np.ndarray
    regions: np.ndarray

    @classmethod
    def empty(cls, length: int) -> _Line:
        return cls(np.zeros(length, np.int32), np.full(length, -1, np.int64))


def _seam(values: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """int64 (L, 2): regions that go on over the upper and the left seam of a framed block."""
    top = (values[0] == values[1]) & (regions[0] >= 0) & (regions[1] >= 0)
    left = (values[:, 0] == values[:, 1]) & (regions[:, 0] >= 0) & (regions[:, 1] >= 0)
    return np.concatenate([regions[:2, top].T, regions[left, :2]])


def _joined(links: np.ndarray, count: int) -> np.ndarray:
    """int64 (count,): nodes with one number are linked."""
    if len(links) == 0:
        return np.arange(count)
    ones = np.ones(len(links), np.int8)
    graph = sparse.coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    found = csgraph.connected_components(graph.tocsr(), directed=False)[1]
    return np.asarray(found, np.int64)


def _polygons(rings: Rings, transform: tuple[float, ...] | None) -> np.ndarray:
    shells = np.flatnonzero(np.diff(rings.region, prepend=-1))
    offsets = (rings.offsets, np.append(shells, len(rings.region)))
    xy = rings.xy.astype(np.float64)
    if transform is not None:
        a, b, c, d, e, f = transform
        xy = xy @ np.array([[a, d], [b, e]]) + (c, f)
    found: np.ndarray = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
    return found
