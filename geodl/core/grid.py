"""Pixel windows and the georeferenced grids they lie on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from affine import Affine

from geodl.base.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of pixels: rows ``[row, row + height)``, columns ``[col, col + width)``."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise PlanError(f"a window cannot be {self.height} x {self.width} pixels")

    @property
    def row_stop(self) -> int:
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        return self.col + self.width

    @property
    def empty(self) -> bool:
        return self.height == 0 or self.width == 0

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def intersect(self, other: Window) -> Window:
        """The common part; height or width 0 where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        return Window(
            row=row,
            col=col,
            height=max(0, min(self.row_stop, other.row_stop) - row),
            width=max(0, min(self.col_stop, other.col_stop) - col),
        )

    def pad(self, margin_px: int) -> Window:
        """Grown by ``margin_px`` on all four sides; may leave the grid."""
        return Window(
            row=self.row - margin_px,
            col=self.col - margin_px,
            height=self.height + 2 * margin_px,
            width=self.width + 2 * margin_px,
        )

    def shift(self, rows: int, cols: int) -> Window:
        return Window(
            row=self.row + rows, col=self.col + cols, height=self.height, width=self.width
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Row and column slices of this window in an array that holds ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def contains(self, other: Window) -> bool:
        return self.intersect(other) == other

    def to_json(self) -> list[int]:
        return [self.row, self.col, self.height, self.width]

    @classmethod
    def from_json(cls, value: list[int]) -> Window:
        row, col, height, width = value
        return cls(row=row, col=col, height=height, width=width)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoGrid:
    """A raster's grid: size, affine transform from (col, row) pixel edges to (x, y), and CRS.

    Parameters
    ----------
    width, height
        Pixels.
    transform
        ``(a, b, c, d, e, f)``: x = a*col + b*row + c, y = d*col + e*row + f (rasterio's order).
    crs
        WKT, or None for pixel space (x right, y down).
    """

    width: int
    height: int
    transform: tuple[float, float, float, float, float, float]
    crs: str | None = None

    def __post_init__(self) -> None:
        a, b, _, d, e, _ = self.transform
        if not all(map(math.isfinite, self.transform)) or a * e - b * d == 0:
            raise PlanError(f"the transform {self.transform} cannot be inverted")

    @property
    def affine(self) -> Affine:
        return Affine(*self.transform)

    @property
    def window(self) -> Window:
        return Window(row=0, col=0, height=self.height, width=self.width)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def cell_size_xy(self) -> tuple[float, float]:
        """Length of a pixel's sides in units of the CRS, both positive."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """``(xmin, ymin, xmax, ymax)`` around all four corners, in the CRS."""
        return self.window_bounds(self.window)

    def window_bounds(self, window: Window) -> tuple[float, float, float, float]:
        corners = [
            self.affine @ (col, row)
            for col in (window.col, window.col_stop)
            for row in (window.row, window.row_stop)
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def window_for_bounds(
        self, xmin: float, ymin: float, xmax: float, ymax: float, *, clip: bool = True
    ) -> Window:
        """The smallest window of whole pixels that covers the bounds.

        Edges within a thousandth of a pixel of a pixel edge count as lying on it.
        """
        inverse = ~self.affine
        corners = [inverse @ (x, y) for x in (xmin, xmax) for y in (ymin, ymax)]
        cols, rows = zip(*corners, strict=True)
        row, col = math.floor(min(rows) + 1e-3), math.floor(min(cols) + 1e-3)
        row_stop, col_stop = math.ceil(max(rows) - 1e-3), math.ceil(max(cols) - 1e-3)
        window = Window(
            row=row, col=col, height=max(0, row_stop - row), width=max(0, col_stop - col)
        )
        return window.intersect(self.window) if clip else window

    def crop(self, window: Window) -> GeoGrid:
        """The grid of ``window`` alone; the window may leave this grid."""
        x, y = self.affine @ (window.col, window.row)
        a, b, _, d, e, _ = self.transform
        return GeoGrid(
            width=window.width, height=window.height, transform=(a, b, x, d, e, y), crs=self.crs
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "height": self.height,
            "transform": list(self.transform),
            "crs": self.crs,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GeoGrid:
        a, b, c, d, e, f = map(float, value["transform"])
        return cls(
            width=int(value["width"]),
            height=int(value["height"]),
            transform=(a, b, c, d, e, f),
            crs=value["crs"],
        )
