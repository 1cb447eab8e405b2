"""Which pixels a chip around each feature takes, and how features are grouped into blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely

from geodl.core.contract import ChipCut
from geodl.core.grid import GeoGrid, Window
from geodl.io.ground import SPARSE
from geodl.ops.labels import repaired, to_pixels

# A block of 8-bit RGB is 12 MB; three of them live at once.
DEFAULT_BLOCK_PX = 2048
# Chips of so many tiles' sides are averaged while they are read.
_LARGE = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChipSpec:
    """The features of a block, in the order of their place.

    Parameters
    ----------
    key
        Row and column of the block.
    rows
        int64 (N,): position of each feature in the layer.
    windows
        int64 (N, 4): row, column, height and width of its chip, which may leave the raster.
    shapes
        object (N,) of geometries in pixels of the raster, where pixels around them become 0.
    """

    key: tuple[int, ...]
    rows: np.ndarray
    windows: np.ndarray
    shapes: np.ndarray | None

    @property
    def name(self) -> str:
        return f"block row {self.key[0]}, column {self.key[1]}"

    def window(self, position: int) -> Window:
        row, col, height, width = self.windows[position].tolist()
        return Window(row=row, col=col, height=height, width=width)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipPlan:
    """A chip for each feature of a layer, grouped by place.

    The answer depends on no block: ``block_px`` only says which chips are read together.

    Parameters
    ----------
    grid
        Of the raster.
    extent
        Features whose chip's centre lies outside it have no chip.
    cut
        How the model's chips were cut.
    windows
        int64 (N, 4): row, column, height and width of each feature's chip.
    shapes
        object (N,) in pixels of the raster, or None where nothing is blackened.
    inside
        bool (N,): features that have a chip.
    """

    grid: GeoGrid
    extent: Window
    cut: ChipCut
    windows: np.ndarray
    shapes: np.ndarray | None
    inside: np.ndarray
    block_px: int = DEFAULT_BLOCK_PX

    @classmethod
    def make(
        cls,
        geometries: np.ndarray,
        grid: GeoGrid,
        cut: ChipCut,
        *,
        extent: Window | None = None,
        block_px: int | None = None,
    ) -> ChipPlan:
        """Plan chips around geometries (N,) in the grid's CRS; missing ones have no chip."""
        area = grid.window if extent is None else extent
        known = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
        shapes = np.full(len(geometries), shapely.GeometryCollection(), object)
        shapes[known] = repaired(to_pixels(_widened(geometries[known], cut), grid.affine))[0]
        windows, fits = chip_windows(shapes, cut)
        centre = windows[:, :2] + windows[:, 2:] // 2
        low = np.array([area.row, area.col])
        high = np.array([area.row_stop, area.col_stop])
        return cls(
            grid=grid,
            extent=area,
            cut=cut,
            windows=windows,
            shapes=shapes if cut.blacken else None,
            inside=fits & ((centre >= low) & (centre < high)).all(axis=1),
            block_px=block_px or DEFAULT_BLOCK_PX,
        )

    @cached_property
    def _groups(self) -> dict[tuple[int, int], np.ndarray]:
        """Positions of the features of each block; blocks by row, features by row and column."""
        rows = np.flatnonzero(self.inside)
        place = self.windows[rows]
        keys = (place[:, :2] + place[:, 2:] // 2) // self.block_px
        order = np.lexsort((rows, place[:, 1], place[:, 0], keys[:, 1], keys[:, 0]))
        edges = np.flatnonzero(np.diff(keys[order], axis=0).any(axis=1)) + 1
        parts = np.split(order, edges) if len(order) else []
        return {(int(keys[p[0], 0]), int(keys[p[0], 1])): rows[p] for p in parts}

    def most_pixels(self, tile_px: int) -> int:
        """Pixels that are held for the block that needs most of them.

        Parameters
        ----------
        tile_px
            Side of the network's tile, by which large chips are reduced while they are read.
        """
        most = 0
        for rows in self._groups.values():
            place = self.windows[rows]
            areas = place[:, 2] * place[:, 3]
            large = place[:, 2:].min(axis=1) > _LARGE * tile_px
            # Of a large one a few strips in all.
            held = int((areas[large] // (place[large, 2:].min(axis=1) // (4 * tile_px)) ** 2).sum())
            if not large.all():
                small = place[~large]
                span = (small[:, :2] + small[:, 2:]).max(axis=0) - small[:, :2].min(axis=0)
                around, own = int(span[0] * span[1]), int(areas[~large].sum())
                held += around if own >= SPARSE * around else own
            most = max(most, held)
        return most

    @property
    def block_count(self) -> int:
        return len(self._groups)

    @cached_property
    def chips_together(self) -> int:
        """Chips of a block of the default size, on average: the same for every layout."""
        place = self.windows[self.inside]
        keys = (place[:, :2] + place[:, 2:] // 2) // DEFAULT_BLOCK_PX
        return math.ceil(len(keys) / max(1, len(np.unique(keys, axis=0))))

    @property
    def tile_count(self) -> int:
        return int(self.inside.sum())

    def blocks(self) -> Iterator[ChipSpec]:
        """All blocks, neighbours after one another."""
        for key, rows in self._groups.items():
            yield ChipSpec(
                key=key,
                rows=rows,
                windows=self.windows[rows],
                shapes=None if self.shapes is None else self.shapes[rows],
            )

    def layout(self) -> dict[str, Any]:
        return {"block_px": self.block_px}

    def with_layout(self, block_px: int) -> ChipPlan:
        return replace(self, block_px=int(block_px))

    def answer(self) -> dict[str, Any]:
        """JSON of all that changes the result."""
        digest = hashlib.sha256(self.windows.tobytes() + self.inside.tobytes())
        if self.shapes is not None:
            for shape in shapely.to_wkb(self.shapes):
                digest.update(shape)
        return {
            "grid": self.grid.to_json(),
            "chips": digest.hexdigest(),
            "blacken": self.cut.blacken,
        }


def _widened(geometries: np.ndarray, cut: ChipCut) -> np.ndarray:
    """Points and lines buffered as they were for training."""
    if cut.buffer_radius is None:
        return geometries
    thin = shapely.get_dimensions(geometries) < 2
    out = geometries.copy()
    out[thin] = shapely.buffer(geometries[thin], cut.buffer_radius, quad_segs=16)
    return out


def chip_windows(shapes: np.ndarray, cut: ChipCut) -> tuple[np.ndarray, np.ndarray]:
    """Row, column, height and width of the chip of each shape, and which have one.

    Parameters
    ----------
    shapes
        object (N,) in pixels of the raster; empty ones have no chip.
    cut
        Fixed chips are centred on the middle of the bounds; others are the pixels of the bounds,
        or fixed ones where a shape has no extent.

    Returns
    -------
    int64 (N, 4) and bool (N,)
    """
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    # Beyond that the difference of two pixel numbers is no longer exact.
    fits = np.isfinite(bounds).all(axis=1) & (np.abs(np.nan_to_num(bounds)) < 2**50).all(axis=1)
    x0, y0, x1, y1 = np.where(fits[:, None], bounds, 0.0).T
    size = np.broadcast_to(np.array(cut.size_yx, np.int64), (len(x0), 2))
    centre = np.stack([(y0 + y1) / 2, (x0 + x1) / 2], axis=1)
    corner = np.floor(centre - size / 2 + 0.5).astype(np.int64)
    if not cut.fixed:
        wide = (x1 > x0) & (y1 > y0)
        start = np.floor(np.stack([y0, x0], axis=1)).astype(np.int64)
        stop = np.ceil(np.stack([y1, x1], axis=1)).astype(np.int64)
        corner = np.where(wide[:, None], start, corner)
        size = np.where(wide[:, None], np.maximum(stop - start, 1), size)
    return np.concatenate([corner, size], axis=1), fits


def reduction(window: Window, tile_px: int) -> int:
    """By which whole factor a chip is averaged while it is read; 1 but for very large ones.

    Four times the network's tile are left at least, from which it is resized as in training.
    """
    shorter = min(window.height, window.width)
    return max(1, math.floor(shorter / (4 * tile_px))) if shorter > _LARGE * tile_px else 1
