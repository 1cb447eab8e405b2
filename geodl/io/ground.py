"""What is read of a raster for many small windows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geodl.core.blocks import RasterBlock
from geodl.core.grid import Window

# Where windows cover less than this share of the ground around them, each is read by itself.
SPARSE = 0.3


@dataclass(frozen=True, eq=False)
class Ground:
    """What was read of some raster for the windows of a block.

    Parameters
    ----------
    windows
        What was read, whole, or window by window.
    blocks
        One for each of ``windows``.
    """

    windows: list[Window]
    blocks: list[RasterBlock]

    def cut(self, position: int, window: Window) -> RasterBlock:
        """The pixels of a window that belongs to the one wanted at ``position``."""
        index = position if len(self.windows) > 1 else 0
        rows, cols = window.within(self.windows[index])
        block = self.blocks[index]
        return RasterBlock(block.data[:, rows, cols], block.mask[rows, cols])


def read_ground(read: Callable[[Window], RasterBlock], wanted: Sequence[Window]) -> Ground:
    """Read the ground of windows (not none): once around all of them, unless they are few in it."""
    around = span_of(wanted)
    dense = sum(window.pixels for window in wanted) >= SPARSE * around.pixels
    windows = [around] if dense else list(wanted)
    return Ground(windows, [read(window) for window in windows])


def span_of(windows: Sequence[Window]) -> Window:
    """The window around several (not none)."""
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    return Window(
        row=row,
        col=col,
        height=max(w.row_stop for w in windows) - row,
        width=max(w.col_stop for w in windows) - col,
    )
