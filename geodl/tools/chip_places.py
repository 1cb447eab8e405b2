"""Where chips may lie: tiles of a grid, or one around each feature."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely

from geodl.base.errors import DataWarning
from geodl.core.grid import Window
from geodl.io.ground import span_of
from geodl.ops.chip_grid import ChipGrid
from geodl.tools.chip_labels import FeatureLabels

Place = tuple[int, int]


class ChipPlaces(Protocol):
    """Chips of one image, each known by a pair of numbers whose order is that of the chips."""

    @property
    def tile_yx(self) -> tuple[int, int]: ...

    def window(self, place: Place) -> Window:
        """Pixels of a chip."""
        ...

    def own(self, place: Place) -> int | None:
        """Position of the feature that the chip is cut for; None for tiles of a grid."""
        ...

    def blocks(self, block_px: int) -> Iterator[tuple[Place, Window, np.ndarray]]:
        """Key, ground and places (N, 2) of all chips that are read together."""
        ...

    def keys(self, places: np.ndarray, block_px: int) -> np.ndarray:
        """int64 (N, 2): the key of the block that each place belongs to."""
        ...


@dataclass(frozen=True, slots=True)
class GridPlaces:
    """Tiles, known by grid row and column."""

    grid: ChipGrid

    @property
    def tile_yx(self) -> tuple[int, int]:
        return self.grid.tile_yx

    def window(self, place: Place) -> Window:
        return self.grid.window(*place)

    def own(self, place: Place) -> int | None:
        return None

    def _step(self, block_px: int) -> tuple[int, int]:
        rows, cols = next(self.grid.blocks(block_px))
        return len(rows), len(cols)

    def blocks(self, block_px: int) -> Iterator[tuple[Place, Window, np.ndarray]]:
        step_y, step_x = self._step(block_px)
        for rows, cols in self.grid.blocks(block_px):
            i, j = np.meshgrid(rows, cols, indexing="ij")
            key = rows[0] // step_y, cols[0] // step_x
            yield key, self.grid.span(rows, cols), np.stack([i.ravel(), j.ravel()], axis=1)

    def keys(self, places: np.ndarray, block_px: int) -> np.ndarray:
        return places // np.array(self._step(block_px))


@dataclass(frozen=True, eq=False, slots=True)
class FeaturePlaces:
    """A chip for each feature, known by the feature's position and 0.

    Parameters
    ----------
    windows
        int64 (N, 4): row, column, height and width of each feature's chip.
    inside
        bool (N,): chips that may be cut.
    tile_yx
        Of the chips, or the largest of them.
    """

    windows: np.ndarray
    inside: np.ndarray
    tile_yx: tuple[int, int]

    @classmethod
    def around(
        cls, features: FeatureLabels, area: Window, tile_yx: tuple[int, int], *, fixed: bool
    ) -> FeaturePlaces:
        """Tiles centred on the features, or with ``fixed=False`` on the pixels of their bounds.

        Features whose tile would leave ``area`` are left out, with a warning; bounds are clipped
        to it.
        """
        x0, y0, x1, y1 = shapely.bounds(features.geometries).reshape(-1, 4).T
        low = np.array([area.row, area.col])
        high = np.array([area.row_stop, area.col_stop])
        if fixed:
            size = np.broadcast_to(np.array(tile_yx), (len(x0), 2))
            centre = np.stack([(y0 + y1) / 2, (x0 + x1) / 2], axis=1)
            corner = np.floor(centre - size / 2 + 0.5).astype(np.int64)
        else:
            corner = np.floor(np.stack([y0, x0], axis=1)).astype(np.int64)
            stop = np.maximum(np.ceil(np.stack([y1, x1], axis=1)).astype(np.int64), corner + 1)
            corner, stop = corner.clip(low, high), stop.clip(low, high)
            size = stop - corner
        inside = ((corner >= low) & (corner + size <= high) & (size > 0)).all(axis=1)
        if not inside.all():
            warnings.warn(
                f"{int((~inside).sum())} of {len(inside)} features are left out: the tile around "
                "them would leave the raster or extent.",
                DataWarning,
                stacklevel=4,
            )
        largest = tile_yx if fixed or not len(size) else tuple(size.max(axis=0).tolist())
        return cls(np.concatenate([corner, size], axis=1), inside, largest)

    def window(self, place: Place) -> Window:
        row, col, height, width = self.windows[place[0]].tolist()
        return Window(row=row, col=col, height=height, width=width)

    def own(self, place: Place) -> int | None:
        return place[0]

    def blocks(self, block_px: int) -> Iterator[tuple[Place, Window, np.ndarray]]:
        rows = np.flatnonzero(self.inside)
        places = np.stack([rows, np.zeros_like(rows)], axis=1)
        keys = self.keys(places, block_px)
        order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
        edges = np.flatnonzero(np.diff(keys[order], axis=0).any(axis=1)) + 1
        for part in np.split(order, edges) if len(order) else ():
            key = int(keys[part[0], 0]), int(keys[part[0], 1])
            yield key, span_of([self.window((int(row), 0)) for row in rows[part]]), places[part]

    def keys(self, places: np.ndarray, block_px: int) -> np.ndarray:
        windows = self.windows[places[:, 0]]
        return (windows[:, :2] + windows[:, 2:] // 2) // block_px
