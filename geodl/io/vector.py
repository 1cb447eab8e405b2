"""Features from anything that geopandas reads, with their CRS stated and brought to a raster's."""

from __future__ import annotations

import hashlib
import os
import warnings
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pyogrio.errors
import shapely

from geodl.base.errors import (
    DataError,
    DataWarning,
    GridMismatchError,
    OptionError,
    SourceError,
    SourceNotFoundError,
)
from geodl.base.options import nearest
from geodl.core.grid import GeoGrid
from geodl.io.crs import crs_label, crs_text
from geodl.io.locations import Location, locate

_PARQUET = (".parquet", ".geoparquet", ".pq")
_GEOJSON = (".geojson", ".json", ".geojsonl", ".geojsons")
# A GeoJSON file with another CRS names it near its beginning (GeoJSON 2008).
_HEAD_BYTES = 65536
# Of files that hold features and never a raster; a GeoPackage is taken for features.
_FEATURE_SUFFIXES = (*_PARQUET, *_GEOJSON, ".gpkg", ".fgb", ".shp")
_HOW_TO_STATE = (
    "state it with assume_crs, or write it into the file with GeoDataFrame.set_crs('EPSG:...')"
)


def is_features(source: Any) -> bool:
    """Whether a source is features rather than a raster: by its suffix, or by what it has."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source).lower().endswith(_FEATURE_SUFFIXES)
    return hasattr(source, "geometry")


def read_features(
    source: Any,
    *,
    crs: Any = None,
    assume_crs: Any = None,
    layer: str | int | None = None,
    may_be_empty: bool = False,
    keep_missing: bool = False,
) -> gpd.GeoDataFrame:
    """Features with valid geometries, in the CRS that is asked for.

    Parameters
    ----------
    source
        A GeoDataFrame or GeoSeries, or a path, URL or fsspec location of a vector file.
    crs
        To reproject to: WKT, EPSG code or CRS object. None leaves the features where they are.
    assume_crs
        The CRS of features that state none.
    layer
        Name or position of the layer in a file with several.
    may_be_empty
        Take a layer without features, such as detections where nothing was found.
    keep_missing
        Keep rows without geometry.

    Returns
    -------
    A GeoDataFrame of its own; rows without geometry are dropped with a warning unless kept.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing at the path, or no features; names it.
    DataError
        The layer has no features or no geometry.
    GridMismatchError
        The features state no CRS though ``crs`` is given, or cannot be brought there.
    """
    frame, label, stated = _read(source, layer)
    frame = _with_geometry(frame, label, may_be_empty, keep_missing)
    assumed = None if assume_crs is None else crs_text(assume_crs, "assume_crs")
    if not stated:
        frame = frame.set_crs(assumed, allow_override=True)
    if crs is None:
        return frame
    return _reproject(frame, crs_text(crs), label)


def features_on_grid(
    source: Any, grid: GeoGrid, *, assume_crs: Any = None, layer: str | int | None = None
) -> gpd.GeoDataFrame:
    """Features in the CRS of a raster; in pixel space where the raster has none.

    Parameters
    ----------
    source, assume_crs, layer
        As :func:`read_features` takes them.
    grid
        The raster's grid.

    Raises
    ------
    GridMismatchError
        Georeferenced features over a raster in pixel space, or features that state no CRS over a
        georeferenced raster.
    """
    if grid.crs is not None:
        return read_features(source, crs=grid.crs, assume_crs=assume_crs, layer=layer)
    frame = read_features(source, assume_crs=assume_crs, layer=layer)
    if frame.crs is not None:
        raise GridMismatchError(
            f"{_label(source)} lies in {crs_label(crs_text(frame.crs))}, but the raster has no CRS "
            "and is used in pixel space; state the raster's CRS with assume_crs, or give features "
            "in pixels (x right, y down) without a CRS."
        )
    return frame


def _label(source: Any) -> str:
    return "the GeoDataFrame" if hasattr(source, "geometry") else os.fspath(source)


def _read(source: Any, layer: str | int | None) -> tuple[Any, str, bool]:
    """The features, a name for messages, and whether they state their CRS."""
    if isinstance(source, gpd.GeoSeries):
        source = gpd.GeoDataFrame(geometry=source)
    if isinstance(source, gpd.GeoDataFrame):
        try:
            crs = source.crs
        except AttributeError:
            crs = None
        return source.copy(), "the GeoDataFrame", crs is not None
    if not isinstance(source, (str, os.PathLike)):
        raise OptionError(
            f"Features cannot be read from {type(source).__name__}; give a GeoDataFrame, or the "
            "path or URL of a vector file."
        )
    location = locate(source)
    frame = _read_parquet(location) if _is_parquet(location) else _read_ogr(location, layer)
    stated = getattr(frame, "crs", None) is not None
    if stated and location.suffix in _GEOJSON and not _geojson_states_crs(location, frame):
        return frame, location.text, False
    return frame, location.text, stated


def _is_parquet(location: Location) -> bool:
    local = location.local
    if local is not None and local.is_dir():
        return any(local.glob("*.parquet"))
    return location.suffix in _PARQUET


def _read_parquet(location: Location) -> gpd.GeoDataFrame:
    try:
        return gpd.read_parquet(location.text)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is nothing at {location.text}.") from error
    except (OSError, ValueError, pa.ArrowException, ImportError) as error:
        raise SourceError(f"{location.text} cannot be read as GeoParquet: {error}") from error


def _read_ogr(location: Location, layer: str | int | None) -> Any:
    if layer is not None:
        options: dict[str, Any] = {"layer": _layer(location, layer)}
    else:
        options = {} if location.kind == "fsspec" else _only_layer(location)
    try:
        if location.kind == "fsspec":
            with location.filesystem().open(location.text) as file:
                return pyogrio.read_dataframe(file, **options)
        return pyogrio.read_dataframe(location.text, **options)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is nothing at {location.text}.") from error
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise SourceError(
            f"{location.text} is not a vector file that GDAL can read: {error}"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"The features of {location.text} cannot be read: {error}") from error


def _layers(location: Location) -> list[str]:
    try:
        return [str(name) for name, _ in pyogrio.list_layers(location.text)]
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise SourceError(
            f"{location.text} is not a vector file that GDAL can read: {error}"
        ) from error


def _layer(location: Location, layer: str | int) -> str | int:
    names = _layers(location)
    known = layer in names if isinstance(layer, str) else 0 <= layer < len(names)
    if known:
        return layer
    raise OptionError(
        f"{location.text} has no layer {layer!r}.{nearest(str(layer), names)} "
        f"Its layers: {', '.join(names) or 'none'}."
    )


def _only_layer(location: Location) -> dict[str, Any]:
    """The one layer with geometries, where a file has several."""
    try:
        found = pyogrio.list_layers(location.text)
    except (pyogrio.errors.DataSourceError, OSError, ValueError):
        return {}
    spatial = [str(name) for name, kind in found if kind is not None]
    if len(found) < 2 or len(spatial) == 0:
        return {}
    if len(spatial) > 1:
        raise DataError(
            f"{location.text} has several layers; choose one with layer=: {', '.join(spatial)}."
        )
    return {"layer": spatial[0]}


def _geojson_states_crs(location: Location, frame: gpd.GeoDataFrame) -> bool:
    """Whether a GeoJSON file's CRS can be believed.

    RFC 7946 says longitude and latitude when nothing is said, and GDAL follows it. Files in metres
    that say nothing are common; their coordinates leave the range of degrees.
    """
    if location.local is not None:
        with open(location.local, "rb") as file:
            if b'"crs"' in file.read(_HEAD_BYTES):
                return True
    xmin, ymin, xmax, ymax = frame.total_bounds
    if np.isnan(xmin):
        return True
    return bool(xmin >= -360 and xmax <= 360 and ymin >= -90.001 and ymax <= 90.001)


def _with_geometry(
    frame: Any, label: str, may_be_empty: bool, keep_missing: bool
) -> gpd.GeoDataFrame:
    try:
        geometry = frame.geometry
    except AttributeError:
        geometry = None
    if not isinstance(frame, gpd.GeoDataFrame) or geometry is None:
        raise DataError(f"{label} has no geometry; expected points, lines or polygons.")
    if len(frame) == 0:
        if may_be_empty:
            return frame
        raise DataError(f"{label} has no features; expected at least one.")
    shapes = geometry.to_numpy()
    usable = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    lost = int((~usable).sum())
    if lost == len(frame):
        raise DataError(
            f"None of the {lost} features of {label} has a geometry; give a layer of points, lines "
            "or polygons."
        )
    if lost and not keep_missing:
        warnings.warn(
            f"{lost} of {len(frame)} features of {label} have no geometry and are left out.",
            DataWarning,
            stacklevel=3,
        )
        frame = frame[usable]
    return frame


def _reproject(frame: gpd.GeoDataFrame, crs: str, label: str) -> gpd.GeoDataFrame:
    if frame.crs is None:
        raise GridMismatchError(
            f"{label} states no CRS, so its features cannot be placed in {crs_label(crs)}; "
            f"{_HOW_TO_STATE}."
        )
    moved = frame.to_crs(crs)
    if len(moved) and not np.isfinite(moved.total_bounds).all():
        raise GridMismatchError(
            f"Some features of {label} in {crs_label(crs_text(frame.crs))} have no place in "
            f"{crs_label(crs)}; check that their CRS is stated rightly."
        )
    return moved


def features_identity(frame: gpd.GeoDataFrame) -> dict[str, Any]:
    """JSON that changes when the features change: a digest of geometries, columns and CRS."""
    digest = hashlib.sha256()
    for shape in frame.geometry.to_wkb():
        digest.update(shape or b"missing")
    for name in sorted(map(str, frame.columns.drop(frame.geometry.name))):
        digest.update(name.encode("utf-8"))
        hashes = pd.util.hash_pandas_object(frame[name].astype(str), index=False)
        digest.update(hashes.to_numpy().tobytes())
    return {
        "features": len(frame),
        "sha256": digest.hexdigest(),
        "crs": None if frame.crs is None else crs_text(frame.crs),
    }
