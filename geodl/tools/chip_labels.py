"""Labels of an export, brought onto the pixels of the image: features, or a class raster."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import shapely
from affine import Affine
from rasterio.features import shapes

from geodl.base.errors import DataError, DataWarning, GridMismatchError
from geodl.base.quiet import quiet_lock
from geodl.core.blocks import RasterSource
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.io.categories import category_names
from geodl.io.crs import crs_label, same_crs
from geodl.io.raster_warp import WarpedRaster
from geodl.io.source import open_source
from geodl.io.vector import features_on_grid
from geodl.ops.labels import repaired, to_pixels
from geodl.tools.chip_classes import classes_of, classes_of_values, has_class

_VECTOR_SUFFIXES = frozenset(
    {".parquet", ".geoparquet", ".gpkg", ".fgb", ".geojson", ".json", ".shp", ".gdb", ".gml",
     ".kml", ".kmz", ".csv", ".dxf", ".sqlite", ".geojsonl", ".geojsons", ".gpx", ".feather"}
)  # fmt: skip
# Two grids whose pixels lie closer than this share of a pixel are the same grid.
_ALIGNED_PX = 1e-3
# Some 1.5 GB while the outlines of regions are found.
_MOST_REGION_PX = 2**28


class NoOverlapError(DataError):
    """Labels that lie nowhere on an image; of several images, it has none of the chips."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureLabels:
    """Features in pixels of the image, those outside it left out.

    Parameters
    ----------
    geometries
        object (N,) of valid geometries, in the order of the layer.
    values
        int64 (N,), class values.
    """

    geometries: np.ndarray
    values: np.ndarray
    classes: ClassTable

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometries)

    def positions(self, window: Window) -> np.ndarray:
        """int64 (N,), ascending: features that may reach into a window."""
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        return np.sort(self._tree.query(frame))

    def within(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Geometries and values of features that may reach into a window, in the layer's order."""
        found = self.positions(window)
        return self.geometries[found], self.values[found]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.values.tobytes())
        for geometry in shapely.to_wkb(self.geometries):
            digest.update(geometry)
        return {"features": digest.hexdigest(), "classes": self.classes.to_json()}


@dataclass(frozen=True, kw_only=True)
class RasterLabels:
    """A class raster whose pixels lie on those of the image.

    Parameters
    ----------
    source
        One band of whole numbers.
    row_px, col_px
        Of the raster's upper left pixel in the image.
    names
        Class value to name, where the raster's side files tell some.
    """

    source: RasterSource
    row_px: int
    col_px: int
    names: Mapping[int, str] = field(default_factory=dict)

    def read(self, window: Window) -> np.ndarray:
        """int32 (H, W): class values in a window of the image; 0 where there are none.

        Raises
        ------
        SourceError
            The raster cannot be read there.
        DataError
            A value beyond 32 bits.
        """
        wanted = window.shift(-self.row_px, -self.col_px)
        inside = wanted.intersect(self.source.grid.window)
        values = np.zeros((window.height, window.width), np.int32)
        if inside.empty:
            return values
        block = self.source.read(inside)
        found = np.where(block.mask, block.data[0], 0)
        if found.dtype.itemsize >= 4 and np.abs(found.astype(np.int64)).max() >= 2**31:
            raise DataError(f"{self.source.name} holds class values beyond 32 bits; renumber them.")
        values[inside.within(wanted)] = found
        return values

    def identity(self) -> dict[str, Any]:
        return {
            "raster": self.source.identity(),
            "corner": [self.row_px, self.col_px],
            "names": sorted(self.names.items()),
        }


Labels = FeatureLabels | RasterLabels


def is_raster(labels: Any) -> bool:
    """Whether labels are a class raster rather than features."""
    if isinstance(labels, RasterSource):
        return True
    if isinstance(labels, pd.DataFrame) or hasattr(labels, "__geo_interface__"):
        return False
    if isinstance(labels, str | os.PathLike):
        text = os.fspath(labels)
        path = urlsplit(text).path if "://" in text else text
        suffix = Path(path.rstrip("/")).suffix.lower()
        return bool(suffix) and suffix not in _VECTOR_SUFFIXES
    return not hasattr(labels, "geometry")


def raster_labels(labels: Any, grid: GeoGrid) -> RasterLabels:
    """A class raster on the pixels of ``grid``; warped by nearest neighbour where it must be.

    Raises
    ------
    DataError
        Not one band of whole numbers, or nowhere on the image.
    GridMismatchError
        One of the two has a CRS and the other has none.
    """
    source = open_source(labels)
    names = category_names(source.name)
    if source.count != 1 or source.dtype.kind not in "iu":
        raise DataError(
            f"The class raster {source.name} has {source.count} bands of {source.dtype}; labels "
            "are one band of whole numbers. Select it with geodl.open_raster(path, bands=[n])."
        )
    if (source.grid.crs is None) != (grid.crs is None):
        raise GridMismatchError(
            f"The class raster {source.name} lies in {crs_label(source.grid.crs)} and the image in "
            f"{crs_label(grid.crs)}; state the missing CRS with "
            'geodl.open_raster(path, assume_crs="EPSG:...").'
        )
    corner = _corner(source.grid, grid)
    if corner is None:
        if same_crs(source.grid.crs, grid.crs):
            warnings.warn(
                f"The class raster {source.name} lies on another grid than the image; each pixel "
                "of a chip takes the class of the nearest label pixel.",
                DataWarning,
                stacklevel=4,
            )
        source, corner = WarpedRaster.of(source, grid, grid.window, "nearest"), (0, 0)
    row, col = corner
    if source.grid.window.shift(row, col).intersect(grid.window).empty:
        raise NoOverlapError(_no_overlap(source.name, source.grid.bounds, grid))
    return RasterLabels(source=source, row_px=row, col_px=col, names=names)


def regions(raster: RasterLabels, grid: GeoGrid, known: ClassTable | None) -> FeatureLabels:
    """Each connected region of one class (8 neighbours) of a class raster as a feature.

    Raises
    ------
    DataError
        The raster is too large to be taken as a whole, or holds no class.
    """
    if grid.window.pixels > _MOST_REGION_PX:
        raise DataError(
            f"{raster.source.name} has {grid.window.pixels:,} pixels on the image; one chip per "
            f"region takes at most {_MOST_REGION_PX:,}. Turn it into polygons and give those."
        )
    values = raster.read(grid.window)
    # Doubled, for rasterio warns of the identity transform from a thread beside others.
    with quiet_lock:
        found = list(shapes(values, mask=values != 0, connectivity=8, transform=Affine.scale(2)))
    if not found:
        raise DataError(f"{raster.source.name} holds no class on the image, only 0 or no data.")
    outlines = np.array([shapely.geometry.shape(outline) for outline, _ in found], object)
    halved = shapely.transform(outlines, lambda xy: xy / 2)
    numbers = np.array([value for _, value in found]).astype(np.int64)
    geometries, _ = repaired(halved)
    return FeatureLabels(
        geometries=geometries,
        values=numbers,
        classes=classes_of_values(numbers.tolist(), known, raster.names),
    )


def _corner(grid: GeoGrid, image: GeoGrid) -> tuple[int, int] | None:
    """Row and column of a grid's corner in the image; None where pixels do not coincide."""
    if not same_crs(grid.crs, image.crs):
        return None
    inverse = ~image.affine
    corners = ((0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height))
    col, row = (round(number) for number in inverse @ (grid.affine @ (0, 0)))
    for x, y in corners:
        there = inverse @ (grid.affine @ (x, y))
        if max(abs(there[0] - col - x), abs(there[1] - row - y)) > _ALIGNED_PX:
            return None
    return row, col


def feature_labels(
    labels: Any,
    grid: GeoGrid,
    *,
    class_field: str | None,
    buffer_radius: float | None,
    needs_area: bool,
    known: ClassTable | None,
    assume_crs: Any = None,
    one_of_several: bool = False,
) -> FeatureLabels:
    """Features in pixels of ``grid``, buffered and repaired, with their classes.

    Rows whose class is null or blank are left out, with a warning that counts them.

    Parameters
    ----------
    labels
        A GeoDataFrame, or anything that geopandas reads.
    buffer_radius
        In units of the image's CRS; points and lines become areas.
    needs_area
        Whether points without a radius are of no use.
    one_of_several
        Whether features outside the image may lie on another one, and need no warning.
    known
        Classes of the export that is appended to.

    Raises
    ------
    DataError
        An empty layer, no overlap with the image, a class field that is missing, mixed or without
        a single value, points without a radius where boxes are wanted.
    GridMismatchError
        One side has a CRS and the other has none.
    """
    frame = features_on_grid(labels, grid, assume_crs=assume_crs)
    table = pd.DataFrame(frame.drop(columns=frame.geometry.name)).reset_index(drop=True)
    named = has_class(table, class_field)
    if named.any() and not named.all():
        frame, table = frame[named], table[named].reset_index(drop=True)
    values, classes = classes_of(table, class_field, known)
    geometries, rows = _single_points(frame.geometry.to_numpy())
    geometries = _buffered(geometries, buffer_radius, needs_area)
    geometries, mended = repaired(to_pixels(geometries, grid.affine))
    inside = _on_image(geometries, grid)
    if not inside.any():
        raise NoOverlapError(_no_overlap("The labels", tuple(frame.total_bounds), grid))
    _report(mended, 0 if one_of_several else int((~inside).sum()), len(named) - len(table))
    return FeatureLabels(
        geometries=geometries[inside], values=values[rows][inside], classes=classes
    )


def _single_points(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of multi-points one by one, and the row that each geometry comes from."""
    rows = np.arange(len(geometries))
    several = shapely.get_type_id(geometries) == 4
    if not several.any():
        return geometries, rows
    repeats = np.where(several, shapely.get_num_geometries(geometries), 1)
    out = np.empty(int(repeats.sum()), object)
    start = np.concatenate([[0], np.cumsum(repeats)[:-1]])
    out[start[~several]] = geometries[~several]
    for row in np.flatnonzero(several):
        out[start[row] : start[row] + repeats[row]] = shapely.get_parts(geometries[row])
    return out, np.repeat(rows, repeats)


def _buffered(geometries: np.ndarray, radius: float | None, needs_area: bool) -> np.ndarray:
    """Points and lines as areas of a radius around them; polygons stay as they are."""
    dimensions = shapely.get_dimensions(geometries)
    if radius is None:
        if needs_area and (dimensions == 0).any():
            raise DataError(
                f"{int((dimensions == 0).sum())} labels are points, which have no extent; give "
                "buffer_radius, the radius in map units of the area that each one stands for."
            )
        return geometries
    thin = dimensions < 2
    if not thin.any():
        warnings.warn(
            "buffer_radius widens points and lines; the labels are polygons and stay as they are.",
            DataWarning,
            stacklevel=5,
        )
    out = geometries.copy()
    # 16 segments to a quarter circle; the outermost points lie exactly one radius away.
    out[thin] = shapely.buffer(geometries[thin], radius, quad_segs=16)
    return out


def _on_image(geometries: np.ndarray, grid: GeoGrid) -> np.ndarray:
    """bool (N,): bounds that are finite and reach into the image."""
    x0, y0, x1, y1 = shapely.bounds(geometries).reshape(-1, 4).T
    with np.errstate(invalid="ignore"):
        return (x1 >= 0) & (y1 >= 0) & (x0 <= grid.width) & (y0 <= grid.height)


def _report(mended: int, outside: int, unnamed: int) -> None:
    parts = [
        (unnamed, "have no class and are left out"),
        (mended, "had invalid geometries, which were repaired"),
        (outside, "lie outside the raster and are left out"),
    ]
    said = [f"{count} {text}" for count, text in parts if count]
    if said:
        warnings.warn(f"Labels: {'; '.join(said)}.", DataWarning, stacklevel=4)


def _no_overlap(name: str, bounds: tuple[float, ...], grid: GeoGrid) -> str:
    def shown(numbers: tuple[float, ...]) -> str:
        return ", ".join(f"{number:.6g}" for number in numbers)

    return (
        f"{name} ({shown(bounds)}) nowhere overlap the raster ({shown(grid.bounds)}; "
        f"{crs_label(grid.crs)}); check their CRS."
    )


def polygons_in_pixels(source: Any, grid: GeoGrid, assume_crs: Any) -> shapely.Geometry:
    """The union of mask polygons in pixels of the image.

    Raises
    ------
    DataError
        No polygon.
    """
    frame = features_on_grid(source, grid, assume_crs=assume_crs)
    geometries = frame.geometry.to_numpy()
    areas = geometries[shapely.get_dimensions(geometries) == 2]
    if not len(areas):
        raise DataError("input_mask_polygons has no polygons; give the areas to cut chips from.")
    mended, _ = repaired(to_pixels(areas, grid.affine))
    return shapely.union_all(mended)


def open_labels(
    labels: Any,
    grid: GeoGrid,
    *,
    class_field: str | None,
    buffer_radius: float | None,
    needs_area: bool,
    known: ClassTable | None,
    assume_crs: Any,
    one_of_several: bool = False,
) -> Labels:
    """Labels of either kind on the pixels of the image; see the two functions above."""
    if not is_raster(labels):
        return feature_labels(
            labels,
            grid,
            class_field=class_field,
            buffer_radius=buffer_radius,
            needs_area=needs_area,
            known=known,
            assume_crs=assume_crs,
            one_of_several=one_of_several,
        )
    for name, value in (("classvalue_field", class_field), ("buffer_radius", buffer_radius)):
        if value is not None:
            raise DataError(f"{name} is for features; the labels are a class raster. Leave it out.")
    return raster_labels(labels, grid)
