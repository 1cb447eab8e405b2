"""Rasters in files that GDAL reads: header once, then windows through per-thread handles."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyproj
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps
from rasterio.windows import Window as FileWindow

from geodl.base.errors import DataWarning, SourceError
from geodl.base.files import sha256_json
from geodl.core.blocks import RasterBlock
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_label, crs_text, same_crs
from geodl.io.handles import open_quietly, opened, read_error
from geodl.io.locations import Location, stamp_files, stamp_remote
from geodl.io.masks import any_band_valid, check_inside, nodata_for

MaskKind = Literal["values", "alpha", "dataset", "bands"]
# Side files that hold statistics and reduced copies; a viewer may write them at any time.
_SIDE_SUFFIXES = (".aux.xml", ".ovr", ".rrd")
# Ground control points further than this from the best affine fit get a warning.
_GCP_TOLERANCE_PX = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFile:
    """A raster that GDAL reads; a :class:`~geodl.core.blocks.RasterSource`.

    Parameters
    ----------
    location, stamp
        What is opened, and a text that changes when the file does.
    name
        For messages: the path or URL as opened.
    grid
        The part of the file that this source covers.
    count, dtype, band_names, nodata
        Of the selected bands. ``dtype`` is the file's own; scale and offset are not applied.
    band_numbers
        Selected bands in the file's own numbering from 1, alpha included in the count.
    band_nodata
        Nodata per selected band, as pixels hold it.
    mask_kind
        ``values``: nodata and NaN alone; ``alpha``, ``dataset`` or ``bands``: also that mask.
    alpha, alpha_name
        Number of the alpha band in the file, and its name.
    row_px, col_px
        Where this source begins in the file.
    block_shape
        Rows and columns of a tile in the file, for chunks that fit.
    scales, offsets
        As the file states them per selected band.
    content
        JSON text for :meth:`identity`.
    """

    location: Location
    stamp: str
    name: str
    grid: GeoGrid
    count: int
    dtype: np.dtype[Any]
    band_names: tuple[str, ...]
    nodata: float | None
    band_numbers: tuple[int, ...]
    band_nodata: tuple[float | None, ...]
    mask_kind: MaskKind
    alpha: int | None
    alpha_name: str
    row_px: int
    col_px: int
    block_shape: tuple[int, int]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    color_names: tuple[str, ...]
    content: str

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window in this source's own frame.

        Raises
        ------
        PlanError
            The window leaves the grid.
        SourceError
            The file cannot be read there; names file and window.
        """
        check_inside(self.name, self.grid, window)
        region = FileWindow(
            window.col + self.col_px, window.row + self.row_px, window.width, window.height
        )
        try:
            with opened(self.location, self.stamp) as dataset:
                return self._read(dataset, region)
        except SourceError:
            raise
        except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
            raise read_error(self.name, window, error) from error

    def _read(self, dataset: DatasetReader, region: FileWindow) -> RasterBlock:
        bands = list(self.band_numbers)
        if self.mask_kind == "alpha":
            bands.append(self.alpha or 0)
        # One call for all bands: GDAL decodes a pixel-interleaved tile once.
        data = dataset.read(bands, window=region, out_dtype=self.dtype)
        mask = any_band_valid(data[: self.count], self.band_nodata)
        if self.mask_kind == "alpha":
            mask &= data[-1] > 0
            data = data[:-1]
        elif self.mask_kind == "dataset":
            mask &= dataset.read_masks(bands[0], window=region) > 0
        elif self.mask_kind == "bands":
            mask &= dataset.read_masks(bands, window=region).any(axis=0)
        return RasterBlock(data, mask)

    def select_bands(self, positions: tuple[int, ...]) -> RasterFile:
        """These bands alone, by position from 0 among the present ones."""

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[position] for position in positions)

        return replace(
            self,
            count=len(positions),
            band_names=pick(self.band_names),
            band_numbers=pick(self.band_numbers),
            band_nodata=pick(self.band_nodata),
            nodata=self.band_nodata[positions[0]],
            scales=pick(self.scales),
            offsets=pick(self.offsets),
            color_names=pick(self.color_names),
        )

    def with_alpha(self) -> RasterFile:
        """The alpha band as a last band of data, and no longer the mask.

        GDAL marks the fourth band of 8-bit rasters as alpha unless it is told otherwise, so that
        infrared often is.
        """
        if self.alpha is None:
            return self
        return replace(
            self,
            count=self.count + 1,
            band_names=(*self.band_names, self.alpha_name),
            band_numbers=(*self.band_numbers, self.alpha),
            band_nodata=(*self.band_nodata, self.band_nodata[-1]),
            scales=(*self.scales, 1.0),
            offsets=(*self.offsets, 0.0),
            color_names=(*self.color_names, ColorInterp.alpha.name),
            mask_kind="values",
            alpha=None,
        )

    def crop(self, window: Window) -> RasterFile:
        """The window alone, as a source of its own."""
        return replace(
            self,
            grid=self.grid.crop(window),
            row_px=self.row_px + window.row,
            col_px=self.col_px + window.col,
        )

    def identity(self) -> dict[str, Any]:
        """Size and time of the files, bands, grid and nodata; no path."""
        return {
            "kind": "file",
            "content": json.loads(self.content),
            "bands": list(self.band_numbers),
            "dtype": self.dtype.name,
            "nodata": [repr(value) for value in self.band_nodata],
            "grid": self.grid.to_json(),
        }


def open_file(
    location: Location, *, nodata: float | None = None, assume_crs: str | None = None
) -> RasterFile:
    """Read the header of a raster file.

    Parameters
    ----------
    location
        What to open.
    nodata
        Replaces the file's own nodata value.
    assume_crs
        WKT that stands where the file states no CRS.

    Returns
    -------
    All bands except alpha. Without a CRS the grid is pixel space: x right, y down, in pixels.

    Raises
    ------
    SourceError
        Not a raster, without bands, or a container of several rasters (which are listed).
    """
    with open_quietly(location) as dataset:
        if dataset.count == 0:
            raise _no_bands(location, dataset)
        return _describe(dataset, location, nodata, assume_crs)


def _no_bands(location: Location, dataset: DatasetReader) -> SourceError:
    parts = dataset.subdatasets
    if not parts:
        return SourceError(f"{location.text} has no bands; expected a raster with pixels.")
    return SourceError(
        f"{location.text} holds several rasters; give one of them as the source: "
        f"{', '.join(parts[:20])}."
    )


def _describe(
    dataset: DatasetReader, location: Location, nodata: float | None, assume_crs: str | None
) -> RasterFile:
    colors = dataset.colorinterp
    alphas = [n for n, color in enumerate(colors, start=1) if color == ColorInterp.alpha]
    numbers = tuple(n for n in dataset.indexes if n not in alphas) or dataset.indexes
    alpha = alphas[0] if alphas and len(numbers) < dataset.count else None
    dtype = np.result_type(*(_numpy_dtype(dataset.dtypes[n - 1]) for n in numbers))
    stated = [dataset.nodatavals[n - 1] if nodata is None else nodata for n in numbers]
    values = tuple(nodata_for(dtype, value) for value in stated)
    if nodata is not None and values[0] is None:
        raise SourceError(
            f"{location.text} holds {dtype.name} pixels, which cannot have the value "
            f"nodata={nodata:g}; give a value of that type."
        )
    content = _content(dataset, location)
    return RasterFile(
        location=location,
        stamp=sha256_json(content)[:16],
        name=location.text,
        grid=_grid(dataset, location, assume_crs),
        count=len(numbers),
        dtype=dtype,
        band_names=tuple(dataset.descriptions[n - 1] or f"Band_{n}" for n in numbers),
        nodata=values[0],
        band_numbers=numbers,
        band_nodata=values,
        mask_kind=_mask_kind(dataset, numbers, alpha),
        alpha=alpha,
        alpha_name="" if alpha is None else dataset.descriptions[alpha - 1] or f"Band_{alpha}",
        row_px=0,
        col_px=0,
        block_shape=dataset.block_shapes[numbers[0] - 1],
        scales=tuple(dataset.scales[n - 1] for n in numbers),
        offsets=tuple(dataset.offsets[n - 1] for n in numbers),
        color_names=tuple(colors[n - 1].name for n in numbers),
        content=json.dumps(content),
    )


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype("complex64" if name == "complex_int16" else name)


def _mask_kind(dataset: DatasetReader, numbers: tuple[int, ...], alpha: int | None) -> MaskKind:
    if alpha is not None:
        return "alpha"
    flags = [dataset.mask_flag_enums[n - 1] for n in numbers]
    if all(MaskFlags.all_valid in f or MaskFlags.nodata in f for f in flags):
        return "values"
    return "dataset" if all(MaskFlags.per_dataset in f for f in flags) else "bands"


def _content(dataset: DatasetReader, location: Location) -> dict[str, Any]:
    if location.kind in ("url", "fsspec"):
        return {"remote": stamp_remote(location), "shape": [*dataset.shape, dataset.count]}
    files = [name for name in dataset.files if not name.lower().endswith(_SIDE_SUFFIXES)]
    return {"files": stamp_files(files), "shape": [*dataset.shape, dataset.count]}


def _grid(dataset: DatasetReader, location: Location, assume_crs: str | None) -> GeoGrid:
    transform, crs = _georeference(dataset, location)
    if crs is None:
        crs = assume_crs
    elif assume_crs is not None and not same_crs(crs, assume_crs):
        warnings.warn(
            f"{location.text} states its CRS, {crs_label(crs)}; assume_crs={crs_label(assume_crs)} "
            "is not used. It only fills in for a missing CRS.",
            DataWarning,
            stacklevel=2,
        )
    if crs is None:
        # In pixel space a transform of unknown meaning would put y upwards and mix up the units.
        transform = Affine.identity()
    a, b, c, d, e, f = transform[:6]
    return GeoGrid(
        width=dataset.width, height=dataset.height, transform=(a, b, c, d, e, f), crs=crs
    )


def _georeference(dataset: DatasetReader, location: Location) -> tuple[Affine, str | None]:
    placed = not dataset.transform.is_identity
    if dataset.crs and placed:
        crs = crs_text(dataset.crs, location.text)
        # A local engineering CRS ("unknown") ties the raster to no place on Earth.
        local = pyproj.CRS(crs).is_engineering
        return dataset.transform, None if local else crs
    points, crs = dataset.gcps
    if len(points) >= 3 and crs and not placed:
        transform = from_gcps(points)
        inverse = ~transform
        residuals = [np.hypot(*np.subtract(inverse @ (p.x, p.y), (p.col, p.row))) for p in points]
        if max(residuals) > _GCP_TOLERANCE_PX:
            warnings.warn(
                f"{location.text} is placed by {len(points)} ground control points, which lie up "
                f"to {max(residuals):.1f} pixels off the best affine fit that is used; warp the "
                "raster first (gdalwarp) where that is too much.",
                DataWarning,
                stacklevel=2,
            )
        return transform, crs_text(crs, location.text)
    return dataset.transform, None
