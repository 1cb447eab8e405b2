"""Chips turned around their centre: which pixels they hold, and where labels come to lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

from geodl.core.grid import GeoGrid, Window

# Rounding must not tip a pixel's centre over the edge that it lies on.
_SLACK_PX = 1e-9


@dataclass(frozen=True, slots=True)
class Turn:
    """The ground of a window turned counter-clockwise, as seen with rows running down.

    Parameters
    ----------
    degrees
        Angle; 0 leaves everything as it is, multiples of 90 are exact.
    """

    degrees: float

    @property
    def still(self) -> bool:
        return self.degrees == 0

    @property
    def _cosine_sine(self) -> tuple[float, float]:
        quarters, rest = divmod(self.degrees, 90)
        if rest == 0:
            return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarters) % 4]
        angle = math.radians(self.degrees)
        return math.cos(angle), math.sin(angle)

    def reach(self, window: Window) -> Window:
        """All pixels that the turned window may take; may leave the raster."""
        if self.still:
            return window
        cosine, sine = map(abs, self._cosine_sine)
        width = cosine * window.width + sine * window.height
        height = sine * window.width + cosine * window.height
        x, y = window.col + window.width / 2, window.row + window.height / 2
        row, col = math.floor(y - height / 2 - _SLACK_PX), math.floor(x - width / 2 - _SLACK_PX)
        return Window(
            row=row,
            col=col,
            height=math.ceil(y + height / 2 + _SLACK_PX) - row,
            width=math.ceil(x + width / 2 + _SLACK_PX) - col,
        )

    def pixels(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """int64 (H, W) each: row and column of the raster's pixel below each of the chip's."""
        cosine, sine = self._cosine_sine
        u = np.arange(window.width) + 0.5 - window.width / 2
        v = (np.arange(window.height) + 0.5 - window.height / 2)[:, None]
        x = window.col + window.width / 2 + (cosine * u - sine * v)
        y = window.row + window.height / 2 + (sine * u + cosine * v)
        return np.floor(y + _SLACK_PX).astype(np.int64), np.floor(x + _SLACK_PX).astype(np.int64)

    def place(self, window: Window) -> Affine:
        """From pixels of the turned chip to pixels of the raster."""
        cosine, sine = self._cosine_sine
        return (
            Affine.translation(window.col + window.width / 2, window.row + window.height / 2)
            @ Affine(cosine, -sine, 0, sine, cosine, 0)
            @ Affine.translation(-window.width / 2, -window.height / 2)
        )

    def grid(self, whole: GeoGrid, window: Window) -> GeoGrid:
        """Size, transform and CRS of the turned chip of a raster's window."""
        if self.still:
            return whole.crop(window)
        a, b, c, d, e, f = (whole.affine @ self.place(window))[:6]
        return GeoGrid(
            width=window.width, height=window.height, transform=(a, b, c, d, e, f), crs=whole.crs
        )

    def frame(self, window: Window) -> shapely.Geometry:
        """Outline of the turned chip in pixels of the raster."""
        place = self.place(window)
        corners = ((0, 0), (window.width, 0), (window.width, window.height), (0, window.height))
        return shapely.Polygon([place @ corner for corner in corners])

    def geometries(self, geometries: np.ndarray, window: Window) -> np.ndarray:
        """Geometries in pixels of the raster, turned with the window around its centre."""
        if self.still or not len(geometries):
            return geometries
        cosine, sine = self._cosine_sine
        centre = np.array([window.col + window.width / 2, window.row + window.height / 2])
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return shapely.transform(geometries, lambda xy: (xy - centre) @ turn + centre)


def turns(step_deg: float) -> tuple[Turn, ...]:
    """The chip itself and its copies, one step apart, below 360 degrees; 0 makes none."""
    if step_deg == 0:
        return (Turn(0.0),)
    # A step such as 360 / 7 must not give an eighth copy at 360 degrees less a rounding error.
    count = math.ceil(360 / step_deg - 1e-9)
    return tuple(Turn(number * step_deg) for number in range(count))
