"""A source on another grid: reprojected and resampled in blocks that no window can shift.

GDAL's ``WarpedVRT`` warps whatever window is asked for, so that pixels depend on the window: the
projection is approximated along the window's own rows, and kernels scale with the window's own
ratio. Here the target grid is divided once into fixed blocks; each is always warped by the same
call, and a window is cut from its blocks. Any window thus holds the very pixels of the full read.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geodl.base.errors import SourceError
from geodl.base.files import sha256_json
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import same_crs
from geodl.io.handles import gdal_environment, read_error
from geodl.io.masks import check_inside
from geodl.io.warp_geometry import scale_xy, source_window

BLOCK_PX = 512
MIN_BLOCK_PX = 32
# Side of the source window that one block may need, so that strong reductions stay in memory.
SOURCE_SIDE_PX = 4096
# Blocks kept for the next window: neighbouring windows share the blocks of their halo.
CACHE_BYTES = 96 * 2**20
# Error of GDAL's linear approximation of the projection along a row, in source pixels. GDAL's own
# default of 0.125 picks another neighbour for 1.5 % of the pixels, this one for 0.1 %.
_TOLERANCE_PX = 0.01
# Stands for one CRS or none on both sides, when only the two transforms differ.
_PLANE = "EPSG:3857"

_cache: OrderedDict[tuple[str, int, int], RasterBlock] = OrderedDict()
_cache_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpedRaster:
    """Another source on a part of a lattice.

    Parameters
    ----------
    source
        What is read.
    lattice
        The whole target grid; blocks are counted from its origin.
    window
        The part of the lattice that this source covers; may leave the lattice's own size.
    resampling
        A name of :class:`rasterio.enums.Resampling`.
    block_px
        Side of a block.
    scale
        Target pixels per source pixel along columns and rows.
    token
        Tells this warp from others in the process's block cache.
    """

    source: RasterSource
    lattice: GeoGrid
    window: Window
    resampling: str
    block_px: int
    scale: tuple[float, float]
    token: str
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None

    @classmethod
    def of(
        cls, source: RasterSource, lattice: GeoGrid, window: Window, resampling: str
    ) -> WarpedRaster:
        """``source`` on the part ``window`` of ``lattice``."""
        scale = scale_xy(source.grid, lattice)
        return cls(
            source=source,
            lattice=lattice,
            window=window,
            resampling=resampling,
            block_px=_block_side(scale),
            scale=scale,
            token=sha256_json([source.identity(), source.name, lattice.to_json(), resampling]),
            name=source.name,
            grid=lattice.crop(window),
            count=source.count,
            dtype=source.dtype,
            band_names=source.band_names,
            nodata=source.nodata,
        )

    @property
    def block_shape(self) -> tuple[int, int]:
        return self.block_px, self.block_px

    def crop(self, window: Window) -> WarpedRaster:
        """The window alone, on the same blocks."""
        part = window.shift(self.window.row, self.window.col)
        return WarpedRaster.of(self.source, self.lattice, part, self.resampling)

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window; where the source does not reach, the mask is False.

        Raises
        ------
        SourceError
            The source cannot be read or warped there.
        """
        check_inside(self.name, self.grid, window)
        wanted = window.shift(self.window.row, self.window.col)
        data = np.empty((self.count, window.height, window.width), self.dtype)
        mask = np.empty((window.height, window.width), dtype=bool)
        side = self.block_px
        for i in range(wanted.row // side, -(-wanted.row_stop // side)):
            for j in range(wanted.col // side, -(-wanted.col_stop // side)):
                block_window = Window(row=i * side, col=j * side, height=side, width=side)
                block = self._block(i, j, block_window)
                part = block_window.intersect(wanted)
                target, origin = part.within(wanted), part.within(block_window)
                data[:, *target] = block.data[:, *origin]
                mask[target] = block.mask[origin]
        return RasterBlock(data, mask)

    def _block(self, i: int, j: int, window: Window) -> RasterBlock:
        key = (self.token, i, j)
        with _cache_lock:
            if key in _cache:
                _cache.move_to_end(key)
                return _cache[key]
        try:
            block = self._warp(window)
        except SourceError:
            raise
        except (RasterioError, CPLE_BaseError) as error:
            raise read_error(self.name, window, error) from error
        with _cache_lock:
            _cache[key] = block
            size = block.data.nbytes + block.mask.nbytes
            while len(_cache) > max(1, CACHE_BYTES // size):
                _cache.popitem(last=False)
        return block

    def _warp(self, window: Window) -> RasterBlock:
        fill = _fill_value(self.dtype, self.nodata)
        target = self.lattice.crop(window)
        needed = source_window(self.source.grid, target, self.resampling, self.scale)
        if needed.empty:
            shape = (window.height, window.width)
            return RasterBlock(
                np.full((self.count, *shape), fill, self.dtype), np.zeros(shape, dtype=bool)
            )
        block = self.source.read(needed)
        # NaN must never enter a kernel, also where no nodata value is declared.
        nodata = fill if self.nodata is not None or self.dtype.kind == "f" else None
        warped = _warp_layers(
            _with_alpha(block, self.dtype, fill),
            self.source.grid.crop(needed),
            target,
            nodata=nodata,
            fill=fill,
            resampling=self.resampling,
            scale=self.scale,
        )
        mask = warped[-1] > 0
        data = warped[:-1]
        data[:, ~mask] = fill
        return RasterBlock(data.astype(self.dtype, copy=False), mask)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "warp",
            "source": self.source.identity(),
            "grid": self.grid.to_json(),
            "resampling": self.resampling,
        }


def _block_side(scale: tuple[float, float]) -> int:
    """The largest power of two whose source window stays within bounds."""
    side = BLOCK_PX
    while side > MIN_BLOCK_PX and side / min(scale) > SOURCE_SIDE_PX:
        side //= 2
    return side


def _fill_value(dtype: np.dtype[Any], nodata: float | None) -> float:
    if nodata is not None:
        return nodata
    return math.nan if dtype.kind == "f" else 0.0


def _opaque(fill: float) -> int:
    # GDAL holds the nodata value against the alpha band too, so the two must differ.
    return 254 if fill == 255 else 255


def _with_alpha(block: RasterBlock, dtype: np.dtype[Any], fill: float) -> np.ndarray:
    """(C + 1, H, W): the bands, then alpha; what GDAL or alpha cannot have is widened."""
    widened = {"int8": "int16", "bool": "int16", "float16": "float32"}
    work = np.dtype(widened.get(dtype.name, dtype.name))
    layers = np.empty((block.data.shape[0] + 1, *block.mask.shape), work)
    layers[:-1] = block.data
    if dtype.kind == "f" and not math.isnan(fill):
        layers[:-1][np.isnan(block.data)] = fill
    np.multiply(block.mask, _opaque(fill), out=layers[-1], casting="unsafe")
    return layers


def _warp_layers(
    layers: np.ndarray,
    source: GeoGrid,
    target: GeoGrid,
    *,
    nodata: float | None,
    fill: float,
    resampling: str,
    scale: tuple[float, float],
) -> np.ndarray:
    """Warp (C + 1, H, W) from ``source`` to ``target`` with GDAL; the last layer is alpha."""
    count, height, width = layers.shape
    planar = same_crs(source.crs, target.crs)
    # Away from the identity, which GDAL takes for "not georeferenced".
    shift = Affine.translation(1.0, 1.0) if source.crs is None else Affine.identity()
    source_crs, target_crs = (_PLANE, _PLANE) if planar else (source.crs, target.crs)
    opaque = _opaque(fill)
    with gdal_environment(), MemoryFile() as file:
        with file.open(
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=layers.dtype.name,
            transform=shift @ source.affine,
            crs=source_crs,
            interleave="band",
        ) as dataset:
            dataset.write(layers)
        with (
            file.open() as dataset,
            WarpedVRT(
                dataset,
                src_alpha=count,
                src_nodata=nodata,
                crs=target_crs,
                transform=shift @ target.affine,
                height=target.height,
                width=target.width,
                resampling=Resampling[resampling],
                tolerance=_TOLERANCE_PX,
                init_dest_nodata=False,
                SRC_ALPHA_MAX=str(opaque),
                DST_ALPHA_MAX=str(opaque),
                UNIFIED_SRC_NODATA="NO",
                # Alpha begins at 0; with INIT_DEST=NO_DATA it would begin at the nodata value.
                INIT_DEST=",".join([repr(float(fill))] * (count - 1) + ["0"]),
                XSCALE=repr(scale[0]),
                YSCALE=repr(scale[1]),
            ) as view,
        ):
            warped: np.ndarray = view.read()
            return warped
