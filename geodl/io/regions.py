"""The growing raster of a run: a plain Zarr v3 store that block tasks write region by region."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
import zarr.errors

from geodl.base.errors import OutputError, PlanError, SourceError
from geodl.base.places import remote_errors
from geodl.core.grid import GeoGrid, Window
from geodl.io.store_layout import GRID_MAPPING, VARIABLE, ZarrFormat, is_complete, lay_out

# About as much as is copied from one store to another at a time.
_COPIED_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStore:
    """A raster in a Zarr v3 store, unsharded, with its CRS where xarray and GDAL look for it.

    A region is whole chunks, so that no two tasks ever write one chunk: that would lose pixels
    without an error.

    Parameters
    ----------
    path
        The store's folder, or its URL in an object store.
    grid
        Of the whole raster.
    count
        Bands.
    chunk
        Rows and columns of a chunk; all bands lie in one chunk.
    dtype, fill
        Of the pixels; ``fill`` stands where nothing was written, and is the nodata value.
    """

    path: str
    grid: GeoGrid
    count: int
    chunk: tuple[int, int]
    dtype: np.dtype[Any]
    fill: float

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        chunk: int | tuple[int, int],
        dtype: Any,
        fill: float,
        grid: GeoGrid,
        *,
        band_names: tuple[str, ...] | None = None,
        attributes: dict[str, Any] | None = None,
        zarr_format: ZarrFormat = 3,
    ) -> RegionStore:
        """Make an empty store.

        Parameters
        ----------
        path
            A folder that does not exist or is an older store to be replaced.
        shape
            Bands, rows, columns.
        chunk
            Rows and columns of a chunk.
        dtype, fill
            Of the pixels; the fill value is also the nodata value.
        grid
            As many rows and columns as ``shape``.
        band_names
            Names of the bands.
        attributes
            Further attributes of the variable, for example flag values and meanings.
        zarr_format
            3, or 2 for readers such as GDAL before 3.12.

        Raises
        ------
        PlanError
            Shape, chunk, fill value and grid do not fit together.
        OutputError
            The folder cannot be written.
        """
        rows, cols = (chunk, chunk) if isinstance(chunk, int) else chunk
        store = cls(
            path=str(path),
            grid=grid,
            count=shape[0],
            chunk=(min(rows, shape[1]), min(cols, shape[2])),
            dtype=np.dtype(dtype),
            fill=fill,
        )
        store._check(shape)
        try:
            lay_out(
                store.path,
                grid,
                store.count,
                store.chunk,
                store.dtype,
                fill,
                band_names=band_names,
                attributes=attributes or {},
                zarr_format=zarr_format,
            )
        except remote_errors() as error:
            raise OutputError(f"The store {store.path} cannot be made: {error}") from error
        return store

    def _check(self, shape: tuple[int, int, int]) -> None:
        if shape[1:] != self.grid.shape or min(shape) < 1 or min(self.chunk) < 1:
            raise PlanError(
                f"a store of {shape} (bands, rows, columns) in chunks of {self.chunk} does not fit "
                f"a grid of {self.grid.shape}"
            )
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            if not limits.min <= self.fill <= limits.max:
                raise PlanError(f"the fill value {self.fill} does not fit {self.dtype.name}")

    @classmethod
    def exists(cls, path: str | os.PathLike[str]) -> bool:
        """Whether :meth:`create` has made a store there, to the end.

        Raises
        ------
        OutputError
            The place cannot be reached.
        """
        try:
            return is_complete(str(path))
        except remote_errors() as error:
            raise OutputError(f"The store {path} cannot be opened: {error}") from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RegionStore:
        """An existing store.

        Raises
        ------
        SourceError
            It is not a store that :meth:`create` made.
        """
        location = str(path)
        try:
            group = zarr.open_group(location, mode="r")
            array: Any = group[VARIABLE]
            mapping: Any = group[GRID_MAPPING].attrs
            rows, cols = array.shape[1:]
            c, a, b, f, d, e = map(float, str(mapping["GeoTransform"]).split())
            crs = mapping.get("crs_wkt")
        except remote_errors(
            KeyError, ValueError, AttributeError, zarr.errors.BaseZarrError
        ) as error:
            raise SourceError(f"{location} is not a region store of geodl: {error}") from error
        return cls(
            path=location,
            grid=GeoGrid(width=cols, height=rows, transform=(a, b, c, d, e, f), crs=crs),
            count=array.shape[0],
            chunk=(array.chunks[1], array.chunks[2]),
            dtype=np.dtype(array.dtype),
            fill=float(array.fill_value),
        )

    def _array(self) -> Any:
        try:
            return zarr.open_array(f"{self.path}/{VARIABLE}", mode="r+")
        except remote_errors(zarr.errors.BaseZarrError) as error:
            raise OutputError(f"The store {self.path} cannot be opened: {error}") from error

    def write(self, window: Window, data: np.ndarray) -> None:
        """Write one region; safe to repeat.

        Parameters
        ----------
        window
            In the store's pixel frame: begins at a chunk, ends at a chunk or at the raster's edge.
        data
            (bands, H, W) of the store's dtype.

        Raises
        ------
        PlanError
            The window cuts a chunk or leaves the raster, or the array does not fit it.
        OutputError
            The disk refuses, for example because it is full; finished regions are kept.
        """
        self._check_region(window, data)
        try:
            self._array()[:, window.row : window.row_stop, window.col : window.col_stop] = data
        except remote_errors() as error:
            raise OutputError(
                f"A region of {self.path} cannot be written: {error}. What is finished is kept; "
                "make room and run the same call again."
            ) from error

    def _check_region(self, window: Window, data: np.ndarray) -> None:
        rows, cols = self.chunk
        whole = window.row % rows == 0 and window.col % cols == 0
        whole &= window.row_stop % rows == 0 or window.row_stop == self.grid.height
        whole &= window.col_stop % cols == 0 or window.col_stop == self.grid.width
        if window.empty or not whole or not self.grid.window.contains(window):
            raise PlanError(
                f"the region {window} is not whole chunks of {self.chunk} in a raster of "
                f"{self.grid.shape}; two tasks would share a chunk"
            )
        expected = (self.count, window.height, window.width)
        if data.shape != expected or data.dtype != self.dtype:
            raise PlanError(
                f"a region of {expected} {self.dtype.name} was given as {data.shape} {data.dtype}"
            )

    def read(self, window: Window) -> np.ndarray:
        """(bands, H, W) of a window inside the raster; ``fill`` where nothing was written.

        Raises
        ------
        PlanError
            The window leaves the raster.
        SourceError
            A chunk cannot be read.
        """
        if not self.grid.window.contains(window):
            raise PlanError(f"the window {window} leaves the raster of {self.grid.shape}")
        try:
            pixels: np.ndarray = self._array()[
                :, window.row : window.row_stop, window.col : window.col_stop
            ]
        except remote_errors(ValueError, RuntimeError) as error:
            raise SourceError(
                f"The window {window} of {self.path} cannot be read: {error}"
            ) from error
        return pixels

    def cropped(
        self, path: str | os.PathLike[str], window: Window, *, zarr_format: ZarrFormat = 3
    ) -> RegionStore:
        """A new store that holds ``window`` alone, copied a few chunks at a time.

        Raises
        ------
        PlanError
            The window leaves the raster.
        OutputError, SourceError
            See :meth:`create`, :meth:`write` and :meth:`read`.
        """
        part = RegionStore.create(
            path,
            (self.count, window.height, window.width),
            self.chunk,
            self.dtype,
            self.fill,
            self.grid.crop(window),
            band_names=self.band_names,
            zarr_format=zarr_format,
        )
        rows, cols = part.chunk
        pixels = rows * self.count * self.dtype.itemsize
        cols *= max(1, _COPIED_BYTES // (pixels * cols))
        for row in range(0, window.height, rows):
            for col in range(0, window.width, cols):
                square = Window(row=row, col=col, height=rows, width=cols)
                square = square.intersect(part.grid.window)
                part.write(square, self.read(square.shift(window.row, window.col)))
        return part

    def describe(self, attributes: dict[str, Any]) -> None:
        """Add attributes to the raster, for example class names.

        Raises
        ------
        OutputError
            The store cannot be written.
        """
        try:
            self._array().attrs.update(attributes)
        except remote_errors() as error:
            raise OutputError(f"The store {self.path} cannot be written: {error}") from error

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names that :meth:`create` was given, else ``Band_1``, ..."""
        names = self._array().attrs.get("long_name")
        if isinstance(names, list) and len(names) == self.count:
            return tuple(map(str, names))
        return tuple(f"Band_{n}" for n in range(1, self.count + 1))
