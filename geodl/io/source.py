"""The one way to open a raster: whatever the user has, on the grid that is asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr
from rasterio.enums import ColorInterp, Resampling

from geodl.base.errors import DataWarning, GridMismatchError, OptionError
from geodl.base.options import as_float, as_int, check_choice, nearest
from geodl.core.blocks import RasterSource
from geodl.core.grid import GeoGrid
from geodl.io.array_grid import time_axis
from geodl.io.crs import crs_label, crs_text
from geodl.io.datasets import choose_time, choose_variable, is_netcdf, is_zarr
from geodl.io.known import known_source
from geodl.io.lattice import as_resolution, place, target_lattice
from geodl.io.locations import locate
from geodl.io.raster_array import open_array
from geodl.io.raster_file import RasterFile, open_file
from geodl.io.raster_folder import listed
from geodl.io.raster_mosaic import build_mosaic
from geodl.io.raster_store import open_store
from geodl.io.raster_view import MaskedRaster, RasterView, StackedRaster, crop, select_bands
from geodl.io.stac import is_stac_item, stac_assets, stac_items

RESAMPLINGS = tuple(name for name in Resampling.__members__ if name != "gauss")

Bands = int | str | Iterable[int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How each item of a source is opened on its own grid."""

    bands: Bands | None
    nodata: float | None
    assume_crs: str | None
    variables: tuple[str, ...]
    time: Any

    @property
    def variable(self) -> str | None:
        return self.variables[0] if self.variables else None


def open_source(
    source: Any,
    *,
    bands: Bands | None = None,
    bounds: Sequence[float] | None = None,
    crs: Any = None,
    resolution: float | tuple[float, float] | None = None,
    resampling: str = "bilinear",
    masked: bool = False,
    assume_crs: Any = None,
    nodata: float | None = None,
    variable: str | Sequence[str] | None = None,
    time: Any = None,
    snap: Any = None,
) -> RasterSource:
    """Open a raster for reading by window. Only headers are read.

    Parameters
    ----------
    source
        A path, URL, fsspec location or GDAL name; a Zarr store or NetCDF file; an xarray object; a
        STAC item; another source; or a list of these: a mosaic, earlier items on top. A folder or a
        pattern is the list of its rasters.
    bands
        Numbers from 1, or names, in the order wanted; one or several. All by default but alpha,
        which makes the mask unless it is asked for by name.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the CRS of the result: the whole pixels that cover it.
    crs
        To reproject to: EPSG code, WKT or a CRS object.
    resolution
        Pixel size in units of the result's CRS; one number or ``(x, y)``.
    resampling
        ``"nearest"``, ``"bilinear"``, ``"cubic"``, ``"average"``, ``"mode"``, ...
    masked
        Float with NaN where there is no data.
    assume_crs
        The CRS of a source that states none.
    nodata
        Replaces the source's own nodata value.
    variable
        Name of the variable in a Zarr store, NetCDF file or Dataset, or of the asset of a STAC
        item; several names become bands.
    time
        Date or position of the one time to read from a series.
    snap
        A raster or grid that gives CRS, pixel size and alignment; its extent plays no part.

    Returns
    -------
    A picklable source. Without a CRS it lies in pixel space (x right, y down), with one warning.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing at the path, or no raster; names it.
    OptionError
        An option outside its domain, or a band, variable or time that does not exist.
    GridMismatchError
        Grids that cannot be brought together: a missing CRS, or bounds outside the raster.
    """
    check_choice(resampling, RESAMPLINGS, "resampling")
    target_crs = None if crs is None else crs_text(crs)
    cell = as_resolution(resolution)
    snap_grid = _snap_grid(snap)
    reading = _Reading(
        bands=_as_bands(bands),
        nodata=_as_nodata(nodata),
        assume_crs=None if assume_crs is None else crs_text(assume_crs, "assume_crs"),
        variables=_names(variable),
        time=time,
    )
    items = _items(listed(source))
    opened = [_open_item(item, reading) for item in items]
    first = opened[0]
    lattice = target_lattice(
        first.grid, first.name, crs=target_crs, resolution=cell, snap=snap_grid
    )
    if len(opened) > 1 or snap_grid is not None:
        result = build_mosaic(opened, lattice, resampling=resampling)
    else:
        result = place(first, lattice, lattice.window, resampling)
    if bounds is not None:
        result = _crop_to(result, bounds)
    return MaskedRaster.of(result) if masked else result


def open_product(path: str) -> RasterSource:
    """A raster that this package has written; that it has no CRS was told with its source."""
    reading = _Reading(bands=None, nodata=None, assume_crs=None, variables=(), time=None)
    return _open_new(path, reading)


def _items(source: Any) -> list[Any]:
    single = (str, os.PathLike, xr.DataArray, xr.Dataset, RasterSource)
    if isinstance(source, single) or is_stac_item(source):
        return [source]
    if found := stac_items(source):
        return found
    if isinstance(source, (list, tuple)):
        if not source:
            raise OptionError("The source is an empty list; give at least one raster.")
        return list(source)
    raise OptionError(
        f"A raster cannot be opened from {type(source).__name__}; give a path, a URL, a list of "
        "them, or an xarray object."
    )


def _open_item(item: Any, reading: _Reading) -> RasterSource:
    """One item on its own grid with the wanted bands; one warning where it states no CRS."""
    if reading.assume_crs is None and isinstance(item, xr.DataArray):
        # An array that open_raster made stands for its source, and its warning was given then.
        item = known_source(item) or item
    if isinstance(item, RasterSource):
        source = _again(item, reading)
    else:
        source = _open_new(item, reading)
        if source.grid.crs is None:
            warnings.warn(
                f"{source.name} states no CRS: it is used in pixel space (x right, y down). State "
                "its CRS with assume_crs.",
                DataWarning,
                stacklevel=4,
            )
    if reading.bands is None:
        return source
    source = _alpha_as_asked(source, reading.bands)
    return select_bands(source, band_positions(source, reading.bands))


def _as_bands(bands: Any) -> Bands | None:
    """As given, but an iterable as a list: every item of a mosaic is asked for the same bands."""
    if bands is None or isinstance(bands, (int, str)):
        return bands
    return list(bands) if isinstance(bands, Iterable) else as_int(bands, "bands")


def _alpha_as_asked(source: RasterSource, bands: Bands) -> RasterSource:
    """A file whose alpha band is asked for by name has it as a band of data."""
    if not isinstance(source, RasterFile) or source.alpha is None:
        return source
    names = {"alpha", source.alpha_name.lower()}
    wanted = [bands] if isinstance(bands, (int, str)) else bands
    return source.with_alpha() if any(str(band).lower() in names for band in wanted) else source


def bands_note(source: RasterSource) -> str:
    """What may be the matter where a raster lacks bands: an alpha band or a colour table."""
    if not isinstance(source, RasterFile):
        return ""
    if ColorInterp.palette.name in source.color_names:
        return (
            " Its values are places in a table of colours; where colours are wanted, expand them "
            "first (gdal_translate -expand rgb)."
        )
    if source.alpha is None:
        return ""
    bands = ", ".join(map(str, (*range(1, source.count + 1), '"alpha"')))
    return (
        f" Its band {source.alpha} is marked as alpha and taken for the mask; where it is data "
        f"(infrared often is marked so), choose it too: bands=[{bands}]."
    )


def _again(source: RasterSource, reading: _Reading) -> RasterSource:
    if reading.nodata is None:
        return source
    return RasterView.of(
        source, source.grid.window, tuple(range(source.count)), nodata=reading.nodata
    )


def _names(variable: str | Sequence[str] | None) -> tuple[str, ...]:
    if variable is None or isinstance(variable, str):
        return () if variable is None else (variable,)
    return tuple(map(str, variable))


def _open_new(item: Any, reading: _Reading) -> RasterSource:
    if is_stac_item(item):
        assets = stac_assets(item, reading.variables)
        alone = replace(reading, variables=())
        return _stacked([(name, _open_new(place, alone)) for name, place in assets])
    if len(reading.variables) > 1:
        parts = [(v, replace(reading, variables=(v,))) for v in reading.variables]
        return _stacked([(v, _open_new(item, part)) for v, part in parts])
    if isinstance(item, xr.DataArray):
        return _open_array(item, reading)
    if isinstance(item, xr.Dataset):
        return _open_array(choose_variable(item, reading.variable, "the Dataset"), reading)
    if not isinstance(item, (str, os.PathLike)):
        raise OptionError(
            f"A raster cannot be opened from {type(item).__name__}; give a path, a URL or an "
            "xarray object."
        )
    location = locate(item)
    if is_zarr(location) or is_netcdf(location):
        return open_store(
            location,
            variable=reading.variable,
            time=reading.time,
            nodata=reading.nodata,
            assume_crs=reading.assume_crs,
        )
    for name in ("variable", "time"):
        if getattr(reading, name) is not None:
            raise OptionError(
                f"{location.text} has no {name}s to choose from; {name}= is for Zarr stores, "
                "NetCDF files and xarray objects."
            )
    return open_file(location, nodata=reading.nodata, assume_crs=reading.assume_crs)


def _stacked(parts: list[tuple[str, RasterSource]]) -> RasterSource:
    """Sources of one band each as bands that bear their names."""
    if len(parts) == 1:
        return parts[0][1]
    return StackedRaster.of(parts)


def _open_array(array: xr.DataArray, reading: _Reading) -> RasterSource:
    label = f"the array {array.name!r}" if array.name else "the array"
    position = choose_time(array, reading.time, label)
    if position is not None:
        array = array.isel({time_axis(array): position})
    return open_array(array, name=label, nodata=reading.nodata, assume_crs=reading.assume_crs)


def band_positions(source: RasterSource, bands: Bands) -> tuple[int, ...]:
    """Positions from 0 of bands given by number from 1 or by name.

    Raises
    ------
    OptionError
        No bands at all, or one that the source does not have; lists those that it has.
    """
    wanted = [bands] if isinstance(bands, (int, str)) else list(bands)
    if not wanted:
        raise OptionError("bands= is empty; leave it out to take all bands.")
    return tuple(_band_position(source, band) for band in wanted)


def _band_position(source: RasterSource, band: int | str) -> int:
    if isinstance(band, str):
        colors: tuple[str, ...] = getattr(source, "color_names", ())
        for names in (source.band_names, colors):
            lowered = [name.lower() for name in names]
            if lowered.count(band.lower()) == 1:
                return lowered.index(band.lower())
        if not band.strip().isdigit():
            raise OptionError(
                f"{source.name} has no band {band!r}.{nearest(band, source.band_names)} "
                f"Its bands: {', '.join(source.band_names)}.{bands_note(source)}"
            )
    number = as_int(band, "bands")
    if not 1 <= number <= source.count:
        raise OptionError(
            f"{source.name} has no band {number}; its {source.count} bands count from 1."
            f"{bands_note(source)}"
        )
    return number - 1


def _snap_grid(snap: Any) -> GeoGrid | None:
    if snap is None or isinstance(snap, GeoGrid):
        return snap
    return open_source(snap).grid


def _as_nodata(nodata: Any) -> float | None:
    if nodata is None:
        return None
    try:
        value = float(nodata)
    except (TypeError, ValueError):
        value = as_float(nodata, "nodata")
    return value


def _crop_to(source: RasterSource, bounds: Sequence[float]) -> RasterSource:
    try:
        xmin, ymin, xmax, ymax = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise OptionError(
            f"bounds={bounds!r} are not four numbers (xmin, ymin, xmax, ymax)."
        ) from None
    if not (xmin < xmax and ymin < ymax):
        raise OptionError(f"bounds={bounds!r} are empty; they are (xmin, ymin, xmax, ymax).")
    window = source.grid.window_for_bounds(xmin, ymin, xmax, ymax)
    if window.empty:
        raise GridMismatchError(
            f"bounds={tuple(bounds)} do not meet {source.name}, which covers {source.grid.bounds} "
            f"in {crs_label(source.grid.crs)}; give them in that CRS."
        )
    return crop(source, window)
