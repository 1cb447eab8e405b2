"""Writers of products, by suffix: one file and one row each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from geodl.base.errors import NotSupportedError, OptionError
from geodl.base.options import check_choice
from geodl.base.places import place
from geodl.base.registry import Registry

if TYPE_CHECKING:
    import geopandas as gpd

    from geodl.core.classes import ClassTable
    from geodl.io.regions import RegionStore

WRITERS = Registry(
    "product format",
    {
        ".parquet": "geodl.io.writers.geoparquet:GeoParquetWriter",
        ".gpkg": "geodl.io.writers.geopackage:GeoPackageWriter",
        ".fgb": "geodl.io.writers.flatgeobuf:FlatGeobufWriter",
        ".geojson": "geodl.io.writers.geojson:GeoJsonWriter",
        ".shp": "geodl.io.writers.shapefile:ShapefileWriter",
        ".tif": "geodl.io.writers.cog:CogWriter",
        ".tiff": "geodl.io.writers.cog:CogWriter",
        ".zarr": "geodl.io.writers.zarr_store:ZarrWriter",
    },
    group="geodl.writers",
)
# The first is the default of the tools.
FEATURE_SUFFIXES = (".parquet", ".gpkg", ".fgb", ".geojson", ".shp")
RASTER_SUFFIXES = (".tif", ".tiff", ".zarr")


class VectorWriter(Protocol):
    """Writes features to one file (and its side files)."""

    kind: Literal["vector"]

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        """Write ``path``, which does not exist yet, in a folder that exists."""
        ...


class RasterWriter(Protocol):
    """Turns a finished region store into a product."""

    kind: Literal["raster"]

    def write(
        self, regions: RegionStore, path: Path, *, classes: ClassTable | None, overviews: str | None
    ) -> None:
        """Write ``path`` whole or not at all."""
        ...


def vector_writer(suffix: str) -> VectorWriter:
    """The writer of features for a suffix such as ``".gpkg"``.

    Raises
    ------
    NotSupportedError
        There is none; lists those that there are.
    """
    writer: VectorWriter = _writer(suffix, "vector")
    return writer


def raster_writer(suffix: str) -> RasterWriter:
    """The writer of rasters for a suffix such as ``".tif"``.

    Raises
    ------
    NotSupportedError
        There is none; lists those that there are.
    """
    writer: RasterWriter = _writer(suffix, "raster")
    return writer


def check_zarr_format(path: Path, zarr_format: int) -> None:
    """Refuse a format that Zarr does not have, or that is asked of a file that is no Zarr store.

    Raises
    ------
    OptionError
        Says what there is.
    """
    check_choice(zarr_format, (2, 3), "zarr_format")
    if zarr_format != 3 and path.suffix.lower() != ".zarr":
        raise OptionError(
            f"{path.name} is no Zarr store; zarr_format={zarr_format} is for names that end in "
            ".zarr"
        )


def _zarr_writer(path: Path, zarr_format: int) -> RasterWriter:
    from geodl.io.writers.zarr_store import ZarrWriter

    check_zarr_format(path, zarr_format)
    return ZarrWriter(zarr_format=2)


def _writer(suffix: str, kind: str) -> Any:
    name = suffix.lower()
    found = WRITERS[name]() if name in WRITERS else None
    if found is None or found.kind != kind:
        what, known = (
            ("Features", FEATURE_SUFFIXES) if kind == "vector" else ("Rasters", RASTER_SUFFIXES)
        )
        raise NotSupportedError(
            f"{what} cannot be written as {suffix!r}; choose one of: {', '.join(known)}."
        )
    return found


def write_features(frame: gpd.GeoDataFrame, path: str | os.PathLike[str]) -> Path:
    """Write features in the format of the path's suffix, whole or not at all.

    Parameters
    ----------
    frame
        May be empty; its columns are written all the same. GeoJSON is brought to EPSG:4326.
    path
        ``.parquet``, ``.gpkg``, ``.fgb``, ``.geojson`` or ``.shp``, here or in an object store
        (``s3://bucket/name.parquet``); an older file is replaced.

    Returns
    -------
    The path.

    Raises
    ------
    NotSupportedError
        A suffix that has no writer.
    OutputError
        The folder cannot be written, the disk is full, or the format refuses the columns.
    """
    from geodl.io.staging import staged

    target = place(path)
    writer = vector_writer(target.suffix)
    with staged(target) as made:
        writer.write(frame, made)
    return target


def write_raster(
    regions: RegionStore,
    path: str | os.PathLike[str],
    *,
    classes: ClassTable | None = None,
    overviews: str | None = None,
    zarr_format: int = 3,
) -> Path:
    """Turn a finished region store into a product, whole or not at all.

    Parameters
    ----------
    regions
        All blocks written. A ``.zarr`` product takes the store's place: it is moved.
    path
        ``.tif`` (a COG) or ``.zarr``, here or in an object store; an older product is replaced.
    classes
        Of a class raster: colours and names go with it, overviews take the nearest pixel.
    overviews
        Resampling of the overviews; by default ``nearest`` with classes, else ``average``.
    zarr_format
        Of a ``.zarr`` product: 3, or 2 for readers such as GDAL before 3.12.

    Returns
    -------
    The path.

    Raises
    ------
    NotSupportedError
        A suffix that has no writer.
    OutputError
        The folder cannot be written or the disk is full; the region store is kept.
    OptionError
        ``zarr_format`` is neither 2 nor 3, or 2 is asked of a COG.
    """
    target = place(path)
    writer = raster_writer(target.suffix)
    if zarr_format != 3:
        writer = _zarr_writer(target, zarr_format)
    writer.write(regions, target, classes=classes, overviews=overviews)
    return target
