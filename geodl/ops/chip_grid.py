"""Where chips lie: tiles of one size, row by row, one stride apart, wholly inside a window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geodl.base.errors import PlanError
from geodl.core.grid import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipGrid:
    """Chips of ``tile_yx`` pixels, ``stride_yx`` apart, from the upper left corner of ``area``.

    Only chips that lie wholly inside ``area`` exist; what is left at the right and lower edge is
    narrower than one stride and belongs to no chip of its own.

    Parameters
    ----------
    area
        Pixels of the raster that may be cut.
    tile_yx, stride_yx
        Rows and columns, at least 1.

    Raises
    ------
    PlanError
        A size below 1, or a tile larger than the area.
    """

    area: Window
    tile_yx: tuple[int, int]
    stride_yx: tuple[int, int]

    def __post_init__(self) -> None:
        if min(*self.tile_yx, *self.stride_yx) < 1:
            raise PlanError(
                f"tile {self.tile_yx} and stride {self.stride_yx} (rows, columns) must be at "
                "least 1 pixel"
            )
        height, width = self.tile_yx
        if height > self.area.height or width > self.area.width:
            raise PlanError(
                f"The tile of {width} x {height} pixels (x, y) is larger than the raster or extent "
                f"of {self.area.width} x {self.area.height}; choose a smaller tile_size."
            )

    @property
    def rows(self) -> int:
        return (self.area.height - self.tile_yx[0]) // self.stride_yx[0] + 1

    @property
    def cols(self) -> int:
        return (self.area.width - self.tile_yx[1]) // self.stride_yx[1] + 1

    def __len__(self) -> int:
        return self.rows * self.cols

    def window(self, row: int, col: int) -> Window:
        """Pixels of the chip in grid row ``row`` and grid column ``col``."""
        return Window(
            row=self.area.row + row * self.stride_yx[0],
            col=self.area.col + col * self.stride_yx[1],
            height=self.tile_yx[0],
            width=self.tile_yx[1],
        )

    def span(self, rows: range, cols: range) -> Window:
        """The window around a rectangle of chips (neither range empty)."""
        first, last = self.window(rows[0], cols[0]), self.window(rows[-1], cols[-1])
        return Window(
            row=first.row,
            col=first.col,
            height=last.row_stop - first.row,
            width=last.col_stop - first.col,
        )

    def blocks(self, block_px: int) -> Iterator[tuple[range, range]]:
        """Rectangles of chips, row by row, each at least one chip and about ``block_px`` wide."""
        step_y, step_x = (max(1, block_px // stride) for stride in self.stride_yx)
        for row in range(0, self.rows, step_y):
            for col in range(0, self.cols, step_x):
                yield (
                    range(row, min(row + step_y, self.rows)),
                    range(col, min(col + step_x, self.cols)),
                )
