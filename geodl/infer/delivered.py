"""Blocks of pixels that another program delivers, in the place of a raster that is read.

Such a program, ArcGIS Pro for one, cuts the raster itself: into blocks of some tiles with the
model's padding around them. What lies beyond the raster it delivers without data, by which the
raster's edges are told here: rows and columns along the edge of a block that are all without data
count as beyond the raster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import DataError, ModelDataError
from geodl.core.blocks import RasterBlock
from geodl.core.contract import ModelContract
from geodl.core.grid import GeoGrid, Window
from geodl.core.plan import BlockSpec, TilePlan
from geodl.infer.tiles import clean_block


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredPlan(TilePlan):
    """Tiles of one delivered block.

    Parameters
    ----------
    origin_yx
        Row and column of the core of tile (0, 0) in ``grid``.
    """

    origin_yx: tuple[int, int]

    def tile_core(self, i: int, j: int) -> Window:
        row, col = self.origin_yx
        stride = self.stride_px
        return Window(row=row + i * stride, col=col + j * stride, height=stride, width=stride)


@dataclass(frozen=True, kw_only=True, eq=False)
class DeliveredPixels:
    """Pixels in hand, as a source.

    Parameters
    ----------
    block
        Of ``frame``.
    frame
        In ``grid``; no other window can be read.
    """

    block: RasterBlock
    frame: Window
    grid: GeoGrid
    name: str = "block of pixels"
    band_names: tuple[str, ...] = ()
    nodata: float | None = None

    @classmethod
    def alone(cls, block: RasterBlock) -> DeliveredPixels:
        """A raster of this block and no more."""
        grid = plain_grid(*block.mask.shape)
        return cls(block=block, frame=grid.window, grid=grid)

    @property
    def count(self) -> int:
        return len(self.block.data)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.block.data.dtype

    def read(self, window: Window) -> RasterBlock:
        rows, cols = window.within(self.frame)
        return RasterBlock(self.block.data[:, rows, cols], self.block.mask[rows, cols])

    def identity(self) -> dict[str, Any]:
        return {"kind": "delivered"}


def plain_grid(height: int, width: int) -> GeoGrid:
    """Pixels without a place on the ground."""
    return GeoGrid(height=height, width=width, transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Delivered:
    """One block as the engine takes it: its pixels, a plan and the plan's only block.

    The grid is that part of the raster which the block can tell of: it ends where the raster
    does, and else goes on for a tile, so that no edge of the block is taken for one of the raster.

    Parameters
    ----------
    source
        0 where there is no data.
    wanted
        The pixels that are asked for, in the grid; a part may lie beyond the raster.
    """

    source: DeliveredPixels
    wanted: Window
    plan: DeliveredPlan
    spec: BlockSpec


def delivered(block: RasterBlock, *, tile_px: int, padding_px: int) -> Delivered | None:
    """Plan the tiles of a block.

    Parameters
    ----------
    block
        (C, H, W) with ``padding_px`` more pixels on each side than are asked for.

    Returns
    -------
    None where nothing that is asked for lies on the raster.

    Raises
    ------
    DataError
        The block holds no more than its padding.
    """
    height, width = block.mask.shape
    if min(height, width) <= 2 * padding_px:
        raise DataError(
            f"The block has {height} x {width} pixels, which is no more than a padding of "
            f"{padding_px} on each side; deliver blocks of the size that getConfiguration() told."
        )
    rows, cols = (np.flatnonzero(block.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    (top, bottom), (left, right) = (
        (int(rows[0]), int(rows[-1]) + 1),
        (int(cols[0]), int(cols[-1]) + 1),
    )
    # Where of the grid the block begins, and how far the grid goes on beyond it.
    before = (tile_px if top == 0 else -top), (tile_px if left == 0 else -left)
    after = (tile_px if bottom == height else 0), (tile_px if right == width else 0)
    grid = plain_grid(before[0] + bottom + after[0], before[1] + right + after[1])
    read = Window(row=before[0], col=before[1], height=height, width=width)
    wanted = read.pad(-padding_px)
    core = wanted.intersect(grid.window)
    if core.empty:
        return None
    stride = tile_px - 2 * padding_px
    down, across = -(-wanted.height // stride), -(-wanted.width // stride)
    side = stride * max(down, across)
    plan = DeliveredPlan(
        grid=grid, extent=core, tile_px=tile_px, padding_px=padding_px, merge="crop",
        block_px=side, chunk_px=side, origin_yx=(wanted.row, wanted.col),
    )  # fmt: skip
    inside = RasterBlock(block.data[:, top:bottom, left:right], block.mask[top:bottom, left:right])
    frame = read.intersect(grid.window)
    return Delivered(
        source=DeliveredPixels(block=clean_block(inside), frame=frame, grid=grid),
        wanted=wanted,
        plan=plan,
        spec=BlockSpec(row=0, col=0, core=core, tiles=(0, down, 0, across), read=read),
    )


def delivered_block(
    pixels: Any, mask: Any, contract: ModelContract, *, images: int = 1
) -> RasterBlock:
    """Pixels with one mask, and the bands that the network takes, in its order.

    Parameters
    ----------
    pixels
        (C, H, W): the model's bands, or all bands of the raster.
    mask
        (C, H, W) or (H, W), 0 where there is no data; None where all is data.
    images
        How many images of the same ground are stacked; data is where all have some.

    Raises
    ------
    ModelDataError
        Another number of bands, or other pixels than the model was trained on.
    DataError
        Arrays of other shapes.
    """
    data = np.asarray(pixels)
    data = data[None] if data.ndim == 2 else data
    valid = np.ones(data.shape, bool) if mask is None else np.asarray(mask) != 0
    valid = np.broadcast_to(valid, data.shape) if valid.ndim == 2 else valid
    if data.ndim != 3 or valid.shape[-2:] != data.shape[-2:]:
        raise DataError(
            f"The pixels have the shape {data.shape} and the mask {valid.shape}; expected (bands, "
            "rows, columns) of both."
        )
    bands = list(contract.extract_bands)
    if len(data) == contract.source_bands and len(data) != len(bands):
        data, valid = data[bands], valid[bands] if len(valid) == contract.source_bands else valid
    if len(data) != len(bands):
        raise ModelDataError(
            f"The block has {len(data)} bands; {contract.model_name} takes {len(bands)}, the bands "
            f"{', '.join(str(band + 1) for band in bands)} of the raster."
        )
    if contract.dtype == "uint8" and data.dtype != np.uint8:
        raise ModelDataError(
            f"The block holds {data.dtype}; {contract.model_name} was trained on 8-bit pixels and "
            "would see noise. Scale the raster as the training data was."
        )
    each = np.array_split(valid, images) if len(valid) == len(data) else [valid]
    return RasterBlock(data, np.logical_and.reduce([part.any(axis=0) for part in each]))
