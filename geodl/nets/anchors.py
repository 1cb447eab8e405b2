"""Anchor boxes on grids: where they lie, which suit the data, and boxes relative to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geodl.base.errors import OptionError

# Sides of the cells that an automatic layout chooses among: the strides of the backbones.
CELLS_PX = (4, 8, 16, 32)
# Anchors of an automatic layout are this many cells wide, so that neighbours overlap well and
# objects side by side fall into cells of their own.
_ZOOMS = tuple(np.geomspace(1.5, 4.0, 15).round(2).tolist())
_BEST_ZOOM = 2.3
# Sizes of this share of the objects decide; the rest are outliers.
_CORE_SHARE = (0.05, 0.95)
# Side ratio beyond which half of the objects count as long, and then get long anchors.
_LONG = 2.0
_LONG_RATIOS = ((1.0, 1.0), (1.5, 0.65), (0.65, 1.5))
# Variances of the encoding, as in 1512.02325.
_CENTRE_SCALE, _SIZE_SCALE = 0.1, 0.2
# Largest change of a side, as a factor: exp stays finite whatever the network says.
_LARGEST_FACTOR = math.log(16.0)


@dataclass(frozen=True, slots=True)
class AnchorLayout:
    """Anchors of a detector; sizes are in pixels of the training tile.

    Parameters
    ----------
    grids
        Cells along each side of the tile, one number per grid.
    zooms
        Sizes of anchors, in cells.
    ratios
        Factors of width and height; each goes with each zoom.
    """

    grids: tuple[int, ...]
    zooms: tuple[float, ...]
    ratios: tuple[tuple[float, float], ...]

    @property
    def per_cell(self) -> int:
        return len(self.zooms) * len(self.ratios)

    def shape(self, grid: int, height: int, width: int, tile_px: int) -> tuple[int, int]:
        """Rows and columns of a grid on an image: the cells keep their size in pixels."""
        rows, cols = (max(1, round(grid * side / tile_px)) for side in (height, width))
        return rows, cols

    def anchors(self, height: int, width: int, tile_px: int) -> list[Tensor]:
        """float32 (rows * cols * per_cell, 4) for each grid: x0, y0, x1, y1 in pixels."""
        return [self._on_grid(grid, height, width, tile_px) for grid in self.grids]

    def _on_grid(self, grid: int, height: int, width: int, tile_px: int) -> Tensor:
        rows, cols = self.shape(grid, height, width, tile_px)
        y = (torch.arange(rows) + 0.5) * (height / rows)
        x = (torch.arange(cols) + 0.5) * (width / cols)
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 1, 2)
        cell = tile_px / grid
        sizes = [(cell * z * w, cell * z * h) for z in self.zooms for w, h in self.ratios]
        half = torch.tensor(sizes).reshape(1, -1, 2) / 2
        return torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4)


def choose_layout(sizes: np.ndarray, tile_px: int) -> AnchorLayout:
    """Grids, zoom and ratios that suit the objects of a data set.

    The grids have cells of 4 to 32 pixels, each twice the one before; their range and the zoom
    are those that cover the sizes of nearly all objects, finest first.

    Parameters
    ----------
    sizes
        (N, 2) width and height of objects in pixels of the tile, above 0; N may be 0.
    tile_px
        Side of the tile.
    """
    if not len(sizes):
        sizes = np.full((1, 2), tile_px / 8)
    side = np.sqrt(sizes.prod(axis=1))
    low, high = np.quantile(side, _CORE_SHARE)
    core = side.clip(low, high)
    first, last, zoom = min(
        (
            (first, last, zoom)
            for zoom in _ZOOMS
            for first in range(len(CELLS_PX))
            for last in range(first, len(CELLS_PX))
        ),
        key=lambda choice: _misfit(core, *choice),
    )
    long = np.maximum(sizes[:, 0], sizes[:, 1]) / np.minimum(sizes[:, 0], sizes[:, 1])
    ratios = _LONG_RATIOS if np.median(long) > _LONG else _LONG_RATIOS[:1]
    grids = dict.fromkeys(max(1, math.ceil(tile_px / cell)) for cell in CELLS_PX[first : last + 1])
    return AnchorLayout(tuple(grids), (zoom,), ratios)


def _misfit(side: np.ndarray, first: int, last: int, zoom: float) -> float:
    """Mean distance of the sizes to the nearest anchor in octaves, and a price for the grids."""
    anchors = np.log2(np.array(CELLS_PX[first : last + 1]) * zoom)
    distance = np.abs(np.log2(side)[:, None] - anchors).min(axis=1)
    # Fine grids are dear in time, coarse ones poor where objects lie close together.
    return float(distance.mean()) + 0.05 * (last - first) + 0.1 * abs(math.log2(zoom / _BEST_ZOOM))


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes relative to anchors: centre offset over size, logarithm of the size, scaled.

    Parameters
    ----------
    boxes, anchors
        float32 (N, 4), x0, y0, x1, y1.
    """
    size = anchors[:, 2:] - anchors[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / (2 * size)
    factor = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3) / size
    return torch.cat([shift / _CENTRE_SCALE, factor.log() / _SIZE_SCALE], dim=1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Inverse of :func:`encode`: float32 (..., N, 4) boxes."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[..., :2] * _CENTRE_SCALE * size
    factor = (offsets[..., 2:] * _SIZE_SCALE).clamp(-_LARGEST_FACTOR, _LARGEST_FACTOR).exp()
    half = size * factor / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def check_layout(grids: object, zooms: object, ratios: object, tile_px: int) -> AnchorLayout:
    """A layout from the documented arguments.

    Raises
    ------
    OptionError
        Something that is no list, is empty, or has numbers that are not above 0; a grid finer
        than the pixels.
    """
    sides = positive_numbers(grids, "grids")
    if any(side != int(side) or not 1 <= side <= tile_px for side in sides):
        raise OptionError(
            f"grids={grids!r}: each is a whole number of cells, 1 to {tile_px} (the chip's pixels)."
        )
    if not isinstance(ratios, list | tuple) or not ratios:
        raise OptionError(f"ratios={ratios!r}: give a list of pairs such as [[1.0, 1.0]].")
    pairs = [positive_numbers(pair, "ratios") for pair in ratios]
    if any(len(pair) != 2 for pair in pairs):
        raise OptionError(f"ratios={ratios!r}: each is a pair (factor of width, of height).")
    return AnchorLayout(
        tuple(int(side) for side in sides),
        tuple(positive_numbers(zooms, "zooms")),
        tuple((w, h) for w, h in pairs),
    )


def positive_numbers(values: object, name: str) -> list[float]:
    items = list(values) if isinstance(values, list | tuple | np.ndarray) else []
    good = [
        float(v)
        for v in items
        if isinstance(v, int | float | np.number) and math.isfinite(v) and v > 0
    ]
    if not items or len(good) != len(items):
        raise OptionError(f"{name}={values!r}: give a list of numbers above 0.")
    return good
