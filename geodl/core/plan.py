"""The plan of a wall-to-wall run: which tile computes which pixel, and which block which tiles.

Tiles lie on one grid anchored at the raster's origin. Tile ``(i, j)`` owns the core
``[i * stride, (i + 1) * stride) x [j * stride, (j + 1) * stride)`` and sees ``padding`` pixels more
on each side. A block is a square of whole cores, so no tile is computed twice when tiles are
cropped to their cores; blended tiles that straddle two blocks are computed for both. Nothing here
depends on the extent or the block size but which tiles are run: results are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from geodl.base.errors import PlanError
from geodl.core.grid import GeoGrid, Window

Merge = Literal["crop", "blend"]

DEFAULT_BLOCK_PX = 2048
_CHUNK_AIM_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One unit of work.

    Parameters
    ----------
    row, col
        Position in the lattice of blocks that is anchored at the raster's origin.
    core
        Pixels of the product that this block alone computes.
    tiles
        ``(i0, i1, j0, j1)``: tile rows ``i0 <= i < i1`` and columns ``j0 <= j < j1`` are run.
    read
        Union of the tiles' windows; may leave the raster, where pixels are mirrored.
    """

    row: int
    col: int
    core: Window
    tiles: tuple[int, int, int, int]
    read: Window

    @property
    def key(self) -> tuple[int, int]:
        return self.row, self.col

    @property
    def name(self) -> str:
        return f"block {self.row},{self.col}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """Tiles and blocks over one raster.

    Parameters
    ----------
    grid
        The whole raster; its origin anchors the tiles.
    extent
        Pixels of ``grid`` that the product covers.
    tile_px, padding_px
        Side of the square tile, and what is seen but not owned on each side.
    merge
        ``crop``: each pixel from the tile that owns it. ``blend``: weighted mean of all tiles.
    block_px
        Side of a block, a whole number of strides.
    chunk_px
        Side of an output chunk; divides ``block_px``.

    Raises
    ------
    PlanError
        Sizes that do not fit each other, or an extent that leaves the raster or is empty.
    """

    grid: GeoGrid
    extent: Window
    tile_px: int
    padding_px: int
    merge: Merge
    block_px: int
    chunk_px: int

    def __post_init__(self) -> None:
        if self.padding_px < 0 or 2 * self.padding_px >= self.tile_px:
            raise PlanError(
                f"padding {self.padding_px} leaves nothing of a tile of {self.tile_px} px; "
                f"choose a padding from 0 to {(self.tile_px - 1) // 2}"
            )
        if self.block_px % self.stride_px or self.block_px <= 0:
            raise PlanError(
                f"a block of {self.block_px} px is no whole number of strides of {self.stride_px}"
            )
        if self.block_px % self.chunk_px:
            raise PlanError(f"a chunk of {self.chunk_px} px does not divide {self.block_px} px")
        if self.extent.empty or not self.grid.window.contains(self.extent):
            raise PlanError(
                f"the extent {self.extent.to_json()} (row, column, height, width) is empty or "
                f"leaves the raster of {self.grid.height} x {self.grid.width} pixels"
            )

    @classmethod
    def make(
        cls,
        grid: GeoGrid,
        *,
        tile_px: int,
        padding_px: int,
        merge: Merge = "crop",
        extent: Window | None = None,
        block_px: int | None = None,
    ) -> TilePlan:
        """A plan whose block is ``block_px`` rounded up to whole strides (default about 2048)."""
        stride = tile_px - 2 * padding_px
        if stride <= 0:
            # Let the check above word it.
            stride = 1
        wanted = DEFAULT_BLOCK_PX if block_px is None else block_px
        if wanted <= 0:
            raise PlanError(f"block_size={wanted} is not a positive number of pixels")
        block = math.ceil(wanted / stride) * stride
        return cls(
            grid=grid,
            extent=grid.window if extent is None else extent,
            tile_px=tile_px,
            padding_px=padding_px,
            merge=merge,
            block_px=block,
            chunk_px=_chunk_for(block),
        )

    def with_layout(self, block_px: int, chunk_px: int) -> TilePlan:
        """The same tiles in other blocks: what a resumed run takes from its ledger."""
        return TilePlan(
            grid=self.grid,
            extent=self.extent,
            tile_px=self.tile_px,
            padding_px=self.padding_px,
            merge=self.merge,
            block_px=block_px,
            chunk_px=chunk_px,
        )

    @property
    def stride_px(self) -> int:
        return self.tile_px - 2 * self.padding_px

    @property
    def store_window(self) -> Window:
        """``extent`` grown up and left to whole chunks: what a region store holds."""
        row = self.extent.row // self.chunk_px * self.chunk_px
        col = self.extent.col // self.chunk_px * self.chunk_px
        return Window(
            row=row, col=col, height=self.extent.row_stop - row, width=self.extent.col_stop - col
        )

    def _lattice(self) -> tuple[int, int, int, int]:
        size = self.block_px
        return (
            self.extent.row // size,
            -(-self.extent.row_stop // size),
            self.extent.col // size,
            -(-self.extent.col_stop // size),
        )

    @property
    def block_count(self) -> int:
        row, row_stop, col, col_stop = self._lattice()
        return (row_stop - row) * (col_stop - col)

    def blocks(self) -> Iterator[BlockSpec]:
        """All blocks, row by row; made one by one, so a million cost no memory."""
        row, row_stop, col, col_stop = self._lattice()
        for i in range(row, row_stop):
            for j in range(col, col_stop):
                yield self.block(i, j)

    def block(self, row: int, col: int) -> BlockSpec:
        # A plan may have a million blocks: plain numbers, and no window but the two that are kept.
        size, extent = self.block_px, self.extent
        top, left = max(row * size, extent.row), max(col * size, extent.col)
        bottom = min((row + 1) * size, extent.row_stop)
        right = min((col + 1) * size, extent.col_stop)
        if top >= bottom or left >= right:
            raise PlanError(f"block {row},{col} lies outside the extent")
        i0, i1 = self._tile_range(top, bottom, self.grid.height)
        j0, j1 = self._tile_range(left, right, self.grid.width)
        stride, pad = self.stride_px, self.padding_px
        return BlockSpec(
            row=row,
            col=col,
            core=Window(row=top, col=left, height=bottom - top, width=right - left),
            tiles=(i0, i1, j0, j1),
            read=Window(
                row=i0 * stride - pad,
                col=j0 * stride - pad,
                height=(i1 - i0) * stride + 2 * pad,
                width=(j1 - j0) * stride + 2 * pad,
            ),
        )

    def block_window(self, spec: BlockSpec) -> Window:
        """The block's whole square of the lattice; its core is what the extent leaves of it."""
        size = self.block_px
        return Window(row=spec.row * size, col=spec.col * size, height=size, width=size)

    def _tile_range(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Tiles along one axis that reach into ``[start, stop)``."""
        stride = self.stride_px
        last = -(-size // stride)
        if self.merge == "crop":
            return start // stride, min(last, -(-stop // stride))
        reach = self.tile_px - self.padding_px
        return max(0, (start - reach) // stride + 1), min(
            last, -(-(stop + self.padding_px) // stride)
        )

    def tile_core(self, i: int, j: int) -> Window:
        stride = self.stride_px
        return Window(row=i * stride, col=j * stride, height=stride, width=stride)

    def tile_window(self, i: int, j: int) -> Window:
        return self.tile_core(i, j).pad(self.padding_px)

    @property
    def tile_count(self) -> int:
        """Tiles of the whole extent, each counted once."""
        i0, i1 = self._tile_range(self.extent.row, self.extent.row_stop, self.grid.height)
        j0, j1 = self._tile_range(self.extent.col, self.extent.col_stop, self.grid.width)
        return (i1 - i0) * (j1 - j0)

    def answer(self) -> dict[str, Any]:
        """What of the plan changes the result: part of a run's fingerprint."""
        return {
            "grid": self.grid.to_json(),
            "extent": self.extent.to_json(),
            "tile_px": self.tile_px,
            "padding_px": self.padding_px,
            "merge": self.merge,
        }

    def layout(self) -> dict[str, int]:
        """What does not change the result: written to the ledger and taken from it on resume."""
        return {"block_px": self.block_px, "chunk_px": self.chunk_px}

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.extent.width} x {self.extent.height} px in {self.block_count} blocks of "
            f"{self.block_px} px, {self.tile_count} tiles of {self.tile_px} px "
            f"(padding {self.padding_px}, {self.merge})"
        )


def _chunk_for(block_px: int) -> int:
    """The divisor of ``block_px`` whose size is nearest to 512 px, by ratio."""
    divisors = [block_px // n for n in range(1, block_px + 1) if block_px % n == 0]
    return min(divisors, key=lambda d: abs(math.log(d / _CHUNK_AIM_PX)))
