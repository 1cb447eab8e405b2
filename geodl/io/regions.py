"""The growing raster of a run: a plain Zarr v3 store that block tasks write region by region."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import zarr
import zarr.errors
from zarr.codecs import ZstdCodec

from geodl.base.errors import OutputError, PlanError, SourceError
from geodl.core.grid import GeoGrid, Window

# The variable that holds the pixels, and the one that holds CRS and transform.
VARIABLE = "raster"
GRID_MAPPING = "spatial_ref"
# Level 1 packs class maps and scores nearly as well as higher ones, at several times the speed.
_ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionStore:
    """A raster in a Zarr v3 store, unsharded, with its CRS where xarray and GDAL look for it.

    A region is whole chunks, so that no two tasks ever write one chunk: that would lose pixels
    without an error.

    Parameters
    ----------
    path
        The store's folder.
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

        Raises
        ------
        PlanError
            Shape, chunk, fill value and grid do not fit together.
        OutputError
            The folder cannot be written.
        """
        rows, cols = (chunk, chunk) if isinstance(chunk, int) else chunk
        store = cls(
            path=os.fspath(path),
            grid=grid,
            count=shape[0],
            chunk=(min(rows, shape[1]), min(cols, shape[2])),
            dtype=np.dtype(dtype),
            fill=fill,
        )
        store._check(shape)
        try:
            store._lay_out(band_names, attributes or {})
        except OSError as error:
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

    def _lay_out(self, band_names: tuple[str, ...] | None, attributes: dict[str, Any]) -> None:
        group = zarr.create_group(self.path, zarr_format=3, overwrite=True)
        fill = self._fill_scalar()
        array = group.create_array(
            VARIABLE,
            shape=(self.count, *self.grid.shape),
            chunks=(self.count, *self.chunk),
            dtype=self.dtype,
            fill_value=fill,
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
            dimension_names=("band", "y", "x"),
        )
        stated = {"grid_mapping": GRID_MAPPING, "_FillValue": _fill_attribute(fill)}
        array.attrs.update(stated | attributes)
        _write_axes(group, self.grid, self.count, band_names)

    def _fill_scalar(self) -> Any:
        return self.dtype.type(self.fill).item()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RegionStore:
        """An existing store.

        Raises
        ------
        SourceError
            It is not a store that :meth:`create` made.
        """
        location = os.fspath(path)
        try:
            group = zarr.open_group(location, mode="r")
            array: Any = group[VARIABLE]
            mapping: Any = group[GRID_MAPPING].attrs
            rows, cols = array.shape[1:]
            c, a, b, f, d, e = map(float, str(mapping["GeoTransform"]).split())
            crs = mapping.get("crs_wkt")
        except (OSError, KeyError, ValueError, AttributeError, zarr.errors.BaseZarrError) as error:
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
        except (OSError, zarr.errors.BaseZarrError) as error:
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
        except OSError as error:
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
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(
                f"The window {window} of {self.path} cannot be read: {error}"
            ) from error
        return pixels

    def cropped(self, path: str | os.PathLike[str], window: Window) -> RegionStore:
        """A new store that holds ``window`` alone, copied by rows of chunks.

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
        )
        for row in range(0, window.height, part.chunk[0]):
            height = min(part.chunk[0], window.height - row)
            strip = Window(row=row, col=0, height=height, width=window.width)
            part.write(strip, self.read(strip.shift(window.row, window.col)))
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
        except OSError as error:
            raise OutputError(f"The store {self.path} cannot be written: {error}") from error

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names that :meth:`create` was given, else ``Band_1``, ..."""
        names = self._array().attrs.get("long_name")
        if isinstance(names, list) and len(names) == self.count:
            return tuple(map(str, names))
        return tuple(f"Band_{n}" for n in range(1, self.count + 1))


def _write_axes(
    group: zarr.Group, grid: GeoGrid, count: int, band_names: tuple[str, ...] | None
) -> None:
    """Coordinates and grid mapping as CF has them; xarray, rioxarray and GDAL see the CRS there."""
    a, b, c, d, e, f = grid.transform
    mapping = group.create_array(GRID_MAPPING, shape=(), dtype="int64", dimension_names=())
    facts: dict[str, Any] = {"GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"}
    if grid.crs is not None:
        # CF's own parameters besides the WKT, where the projection has a name in CF.
        named = pyproj.CRS(grid.crs).to_cf()
        facts |= {key: value for key, value in named.items() if value is not None}
        facts |= {"crs_wkt": grid.crs, "spatial_ref": grid.crs}
    mapping.attrs.update(facts)
    mapping[...] = 0
    geographic = grid.crs is not None and pyproj.CRS(grid.crs).is_geographic
    if b == 0 and d == 0:
        _axis(group, "x", c + a * (np.arange(grid.width) + 0.5), geographic)
        _axis(group, "y", f + e * (np.arange(grid.height) + 0.5), geographic)
    band = group.create_array("band", shape=(count,), dtype="int64", dimension_names=("band",))
    band[:] = np.arange(1, count + 1)
    if band_names is not None:
        band.attrs["long_name"] = list(band_names)
        group[VARIABLE].attrs["long_name"] = list(band_names)


def _axis(group: zarr.Group, name: str, values: np.ndarray, geographic: bool) -> None:
    # One chunk per axis: zarr would cut it into many small files.
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype="float64", dimension_names=(name,)
    )
    array[:] = values
    kind = {"x": ("longitude", "degrees_east"), "y": ("latitude", "degrees_north")}[name]
    standard = kind[0] if geographic else f"projection_{name}_coordinate"
    array.attrs.update({"axis": name.upper(), "standard_name": standard})
    if geographic:
        array.attrs["units"] = kind[1]


def _fill_attribute(fill: Any) -> Any:
    """A nodata value as xarray keeps it in Zarr v3: floats as base64 of their eight bytes."""
    if isinstance(fill, float):
        return base64.standard_b64encode(struct.pack("<d", fill)).decode("ascii")
    return fill


def is_region_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a store that :meth:`RegionStore.create` made."""
    folder = Path(path)
    return all((folder / part / "zarr.json").is_file() for part in (VARIABLE, GRID_MAPPING))
