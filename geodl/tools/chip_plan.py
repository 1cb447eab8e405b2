"""Blocks of chips over one or more images: what is read together, with the labels it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from geodl.core.blocks import RasterSource
from geodl.core.grid import Window
from geodl.io.ground import span_of
from geodl.ops.chip_turns import Turn
from geodl.tools.chip_labels import FeatureLabels
from geodl.tools.chip_places import ChipPlaces

# A block's pixels; three blocks are in memory at once: one read, one counted, one written.
_BLOCK_BYTES = 32 * 2**20
# Of each pixel, beside the image's own: a class mask and whether there is data.
_LABEL_BYTES = 5
_BLOCK_MOST_PX = 4096
# Rounding of reprojected mask polygons must not lose the chip that ends at their edge.
_MASK_SLACK_PX = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip.

    Parameters
    ----------
    number
        -1 while chips are still being selected.
    place
        Of the chip among those of its image.
    turn
        Which of the copies, 0 for the chip itself.
    window
        Pixels of the image; those of a copy are turned around its centre.
    own
        Position among the block's features of the one that the chip is cut for.
    """

    number: int
    place: tuple[int, int]
    turn: int
    window: Window
    own: int | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipBlock:
    """Some neighbouring chips with the features that may reach into them.

    Parameters
    ----------
    key
        Image, and position among its blocks.
    features, values
        In pixels of the image, in the layer's order; None for a class raster or no labels.
    things, thing_values
        Objects of panoptic labels, in the same way.
    """

    key: tuple[int, int, int]
    chips: tuple[Chip, ...]
    features: np.ndarray | None
    values: np.ndarray | None
    things: np.ndarray | None = None
    thing_values: np.ndarray | None = None

    @property
    def name(self) -> str:
        image = f" of raster {self.key[0] + 1}" if self.key[0] else ""
        return f"chip block {self.key[1]},{self.key[2]}{image}"


@dataclass(frozen=True, eq=False, kw_only=True)
class PartPlan:
    """Chips of one image.

    Parameters
    ----------
    features, things
        Labels and panoptic objects; None for rasters and where there are none.
    mask
        Polygons in pixels that chips must lie wholly inside; None is everywhere.
    """

    places: ChipPlaces
    features: FeatureLabels | None
    things: FeatureLabels | None
    mask: shapely.Geometry | None

    def reaches(self, ground: Window, *, every_chip: bool) -> bool:
        """Whether mask and labels leave anything to do on some ground."""
        frame = shapely.box(ground.col, ground.row, ground.col_stop, ground.row_stop)
        if self.mask is not None and not shapely.intersects(self.mask, frame):
            return False
        if every_chip or self.features is None:
            return True
        return any(
            labels is not None and len(labels.within(ground)[1]) > 0
            for labels in (self.features, self.things)
        )

    def allowed(self, windows: list[Window], turn: Turn) -> np.ndarray:
        """bool (N,): chips wholly inside the mask polygons."""
        if self.mask is None:
            return np.ones(len(windows), bool)
        if turn.still:
            corners = [[w.col, w.row, w.col_stop, w.row_stop] for w in windows]
            slack = np.array([1, 1, -1, -1]) * _MASK_SLACK_PX
            frames = shapely.box(*(np.array(corners, np.float64).reshape(-1, 4) + slack).T)
        else:
            outlines = np.array([turn.frame(window) for window in windows], object)
            frames = shapely.buffer(outlines, -_MASK_SLACK_PX)
        return np.asarray(shapely.covers(self.mask, frames))


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipPlan:
    """Blocks of chips over the images.

    Parameters
    ----------
    every_chip
        Whether chips without labels are written.
    turns
        The chip itself and its turned copies.
    """

    parts: tuple[PartPlan, ...]
    block_px: int
    every_chip: bool
    turns: tuple[Turn, ...]

    @cached_property
    def _reached(self) -> list[tuple[tuple[int, int, int], np.ndarray]]:
        """Blocks that labels and mask polygons reach."""
        return [
            ((number, *key), places)
            for number, part in enumerate(self.parts)
            for key, ground, places in part.places.blocks(self.block_px)
            if part.reaches(ground, every_chip=self.every_chip)
        ]

    @property
    def candidate_count(self) -> int:
        return len(self._reached)

    def candidates(self) -> Iterator[ChipBlock]:
        """Blocks of all chips that may be written, not yet numbered."""
        for key, places in self._reached:
            part = self.parts[key[0]]
            windows = [part.places.window((i, j)) for i, j in places.tolist()]
            rows = [
                np.column_stack([np.full(int(kept.sum()), -1), np.full(int(kept.sum()), number),
                                 places[kept]])
                for number, turn in enumerate(self.turns)
                for kept in [part.allowed(windows, turn)]
            ]  # fmt: skip
            yield self._block(key, np.concatenate(rows))

    def every(self) -> np.ndarray:
        """int64 (N, 4), ordered: copy, image and place of all chips, where all are written."""
        rows = [np.zeros((0, 4), np.int64)]
        for key, places in self._reached:
            part = self.parts[key[0]]
            inside = np.ones((len(self.turns), len(places)), bool)
            if part.mask is not None:
                windows = [part.places.window((i, j)) for i, j in places.tolist()]
                inside = np.array([part.allowed(windows, turn) for turn in self.turns])
                # There are copies of such chips only that are written themselves.
                inside &= inside[0]
            turns, positions = np.nonzero(inside)
            image = np.full(len(turns), key[0])
            rows.append(np.column_stack([turns, image, places[positions]]))
        chips = np.concatenate(rows)
        return chips[np.lexsort(chips.T[::-1])]

    def numbered(self, chips: np.ndarray, first: int) -> tuple[int, Iterator[ChipBlock]]:
        """Blocks of the selected chips, and how many there are.

        Parameters
        ----------
        chips
            int64 (N, 4): copy, image and place of each chip, ordered by them.
        first
            Number of the first chip; the others follow row by row, copies after all chips.
        """
        keys = np.zeros((len(chips), 3), np.int64)
        keys[:, 0] = chips[:, 1]
        for number, part in enumerate(self.parts):
            mine = chips[:, 1] == number
            keys[mine, 1:] = part.places.keys(chips[mine, 2:], self.block_px)
        numbers = np.arange(first, first + len(chips))
        rows = np.column_stack([numbers, chips[:, 0], chips[:, 2:]])
        order = np.lexsort((numbers, keys[:, 2], keys[:, 1], keys[:, 0]))
        edges = np.flatnonzero(np.diff(keys[order], axis=0).any(axis=1)) + 1
        groups = np.split(order, edges) if len(order) else []
        return len(groups), (
            self._block(tuple(keys[group[0]].tolist()), rows[group]) for group in groups
        )

    def _block(self, key: tuple[int, int, int], rows: np.ndarray) -> ChipBlock:
        """The block of chips (N, 4): number, copy and place."""
        part = self.parts[key[0]]
        windows = [part.places.window((i, j)) for _, _, i, j in rows.tolist()]
        features = values = things = thing_values = None
        kept = np.zeros(0, np.int64)
        if windows:
            reaches = [
                self.turns[turn].reach(window)
                for turn, window in zip(rows[:, 1].tolist(), windows, strict=True)
            ]
            ground = span_of(reaches)
            if part.features is not None:
                kept = part.features.positions(ground)
                features, values = part.features.geometries[kept], part.features.values[kept]
            if part.things is not None:
                things, thing_values = part.things.within(ground)
        found = {position: place for place, position in enumerate(kept.tolist())}
        chips = []
        for (number, turn, i, j), window in zip(rows.tolist(), windows, strict=True):
            own = part.places.own((i, j))
            chips.append(
                Chip(number=number, place=(i, j), turn=turn, window=window,
                     own=None if own is None else found[own])
            )  # fmt: skip
        return ChipBlock(
            key=key,
            chips=tuple(chips),
            features=features,
            values=values,
            things=things,
            thing_values=thing_values,
        )


def default_block_px(source: RasterSource, tile_yx: tuple[int, int]) -> int:
    """Side of a block that keeps its pixels within memory, at least one tile."""
    side = math.isqrt(_BLOCK_BYTES // (source.count * source.dtype.itemsize + _LABEL_BYTES))
    return max(*tile_yx, min(side, _BLOCK_MOST_PX))
