"""Sources made of other sources: bands and windows of one, bands of several, floats with NaN."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import GridMismatchError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.masks import any_band_valid, check_inside, nodata_for

UNNAMED = re.compile(r"Band_\d+")
"""The name of a band that its source does not name."""


def select_bands(source: RasterSource, positions: tuple[int, ...]) -> RasterSource:
    """Bands of a source by position from 0; read alone where the source can do so."""
    if positions == tuple(range(source.count)):
        return source
    native = getattr(source, "select_bands", None)
    if native is not None:
        selected: RasterSource = native(positions)
        return selected
    return RasterView.of(source, source.grid.window, positions)


def crop(source: RasterSource, window: Window) -> RasterSource:
    """A window of a source as a source of its own."""
    if window == source.grid.window:
        return source
    native = getattr(source, "crop", None)
    if native is not None:
        cropped: RasterSource = native(window)
        return cropped
    return RasterView.of(source, window, tuple(range(source.count)))


def read_padded(source: RasterSource, window: Window) -> RasterBlock:
    """Pixels of a window that may leave the raster: nodata there, or 0, and masked."""
    inside = window.intersect(source.grid.window)
    if inside == window:
        return source.read(window)
    fill = 0 if source.nodata is None else source.nodata
    data = np.full((source.count, window.height, window.width), fill, source.dtype)
    mask = np.zeros((window.height, window.width), bool)
    if not inside.empty:
        block = source.read(inside)
        cut = inside.within(window)
        data[:, *cut], mask[cut] = block.data, block.mask
    return RasterBlock(data, mask)


def block_shape(source: RasterSource) -> tuple[int, int] | None:
    """Rows and columns that are cheap to read together; None where it does not matter."""
    shape: tuple[int, int] | None = getattr(source, "block_shape", None)
    return shape


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterView:
    """A window and some bands of another source.

    Parameters
    ----------
    source
        What is read.
    window
        The part of ``source.grid`` that is seen.
    positions
        Bands of ``source`` from 0.
    band_nodata
        Replaces the source's nodata when given: one value per seen band.
    """

    source: RasterSource
    window: Window
    positions: tuple[int, ...]
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    override: float | None = None

    @classmethod
    def of(
        cls,
        source: RasterSource,
        window: Window,
        positions: tuple[int, ...],
        nodata: float | None = None,
    ) -> RasterView:
        override = nodata_for(source.dtype, nodata)
        return cls(
            source=source,
            window=window,
            positions=positions,
            name=source.name,
            grid=source.grid.crop(window),
            count=len(positions),
            dtype=source.dtype,
            band_names=tuple(source.band_names[p] for p in positions),
            nodata=source.nodata if override is None else override,
            override=override,
        )

    def read(self, window: Window) -> RasterBlock:
        check_inside(self.name, self.grid, window)
        block = self.source.read(window.shift(self.window.row, self.window.col))
        everything = self.positions == tuple(range(self.source.count))
        data = block.data if everything else block.data[list(self.positions)]
        mask = block.mask
        nodata = self.nodata if self.override is None else self.override
        if not everything or self.override is not None:
            # The mask counts the bands that are seen: those left out may alone have data.
            mask = mask & any_band_valid(data, (nodata,) * self.count)
        return RasterBlock(data, mask)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "view",
            "source": self.source.identity(),
            "window": self.window.to_json(),
            "bands": list(self.positions),
            "nodata": repr(self.override),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRaster:
    """Another source as float with NaN where there is no data, band by band.

    float32 for integers up to 16 bits and float32, else float64, so that every value is exact.
    """

    source: RasterSource
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None

    @classmethod
    def of(cls, source: RasterSource) -> MaskedRaster:
        return cls(
            source=source,
            name=source.name,
            grid=source.grid,
            count=source.count,
            dtype=np.result_type(source.dtype, np.float32),
            band_names=source.band_names,
            nodata=float("nan"),
        )

    @property
    def block_shape(self) -> tuple[int, int] | None:
        return block_shape(self.source)

    def read(self, window: Window) -> RasterBlock:
        block = self.source.read(window)
        data = block.data.astype(self.dtype)
        data[:, ~block.mask] = np.nan
        nodata = nodata_for(self.source.dtype, self.source.nodata)
        if nodata is not None:
            data[block.data == self.source.dtype.type(nodata)] = np.nan
        return RasterBlock(data, block.mask)

    def identity(self) -> dict[str, Any]:
        return {"kind": "masked", "source": self.source.identity()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedRaster:
    """The bands of several sources on one grid, one after the other."""

    sources: tuple[RasterSource, ...]
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None

    @classmethod
    def of(cls, parts: Sequence[tuple[str, RasterSource]]) -> StackedRaster:
        """Stack sources, each with the name that its band takes if it has one band.

        Raises
        ------
        GridMismatchError
            A source lies on another grid than the first; names it.
        """
        sources = tuple(source for _, source in parts)
        first = sources[0]
        for source in sources[1:]:
            if source.grid != first.grid:
                raise GridMismatchError(
                    f"{source.name} lies on another grid than {first.name}; bands that are stacked "
                    "need one CRS, size and transform. Open them apart with snap=."
                )
        return cls(
            sources=sources,
            name=first.name,
            grid=first.grid,
            count=sum(source.count for source in sources),
            dtype=np.result_type(*(source.dtype for source in sources)),
            band_names=tuple(
                n for name, s in parts for n in ((name,) if s.count == 1 else s.band_names)
            ),
            nodata=first.nodata,
        )

    @property
    def block_shape(self) -> tuple[int, int] | None:
        return block_shape(self.sources[0])

    def read(self, window: Window) -> RasterBlock:
        blocks = [source.read(window) for source in self.sources]
        data = np.concatenate([block.data.astype(self.dtype, copy=False) for block in blocks])
        return RasterBlock(data, np.logical_or.reduce([block.mask for block in blocks]))

    def identity(self) -> dict[str, Any]:
        return {"kind": "stack", "sources": [source.identity() for source in self.sources]}
