"""Outlines of buildings with right angles, from features or from a class raster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float, as_int
from geodl.io.source import open_source
from geodl.io.vector import is_features, read_features
from geodl.ops.right_angles import right_angled
from geodl.tools.polygonize import polygonize

if TYPE_CHECKING:
    import geopandas as gpd

_CELLS = 2


def regularize_buildings(
    buildings: Any,
    *,
    tolerance: float | None = None,
    values: int | Iterable[int] | None = None,
    block_size: int = 2048,
) -> gpd.GeoDataFrame:
    """Give outlines right angles: each polygon follows its own main direction and that across it.

    Each polygon is worked on by itself, and a class raster is turned into polygons block by
    block, so the result is the same for any block size.

    Parameters
    ----------
    buildings
        Polygons: a GeoDataFrame or a vector file; or a class raster: what
        :func:`geodl.open_raster` takes.
    tolerance
        What is smaller is smoothed away: in units of the CRS, in metres where that is in degrees.
        None is twice the cell size of a raster; features need a number.
    values
        Class values of a raster that are buildings; None: all but 0.
    block_size
        Pixels of a raster read at once, down and across.

    Returns
    -------
    GeoDataFrame: the features with their columns and index, or ``ClassValue``; outlines that right
    angles would not resemble (IoU below 0.5) are simplified only.

    Raises
    ------
    OptionError
        No tolerance with features, or values with them.
    DataError
        Features that are no polygons.
    """
    if is_features(buildings):
        if values is not None:
            raise OptionError("values= chooses classes of a raster; filter features beforehand.")
        if tolerance is None:
            raise OptionError("Features need tolerance=, in units of their CRS: 1.0 for example.")
        features = read_features(buildings, may_be_empty=True)
    else:
        side = as_int(block_size, "block_size", minimum=1)
        source = open_source(buildings)
        features = _of_raster(source, values, side)
        if tolerance is None:
            tolerance = _CELLS * _cell(source.grid.cell_size_xy, features.crs)
    given = as_float(tolerance, "tolerance", minimum=0)
    return _regular(features, given)


def _of_raster(source: Any, values: int | Iterable[int] | None, side: int) -> gpd.GeoDataFrame:
    # Buildings that touch at a corner are two.
    found = polygonize(source, connectivity=4, block_size=side)
    if values is None:
        wanted = found["ClassValue"] != 0
    else:
        listed = [values] if isinstance(values, int) else list(values)
        wanted = found["ClassValue"].isin([as_int(value, "values") for value in listed])
    return found[wanted].reset_index(drop=True)


_METRES_PER_DEGREE = 111_320


def _cell(sides: tuple[float, float], crs: Any) -> float:
    """The larger side of a cell, in metres where the CRS is in degrees."""
    degrees = crs is not None and pyproj.CRS(crs).is_geographic
    return max(sides) * (_METRES_PER_DEGREE if degrees else 1)


def _regular(features: gpd.GeoDataFrame, tolerance: float) -> gpd.GeoDataFrame:
    kinds = set(features.geom_type.dropna()) - {"Polygon", "MultiPolygon"}
    if kinds:
        raise DataError(f"The features hold {', '.join(sorted(kinds))}; buildings are polygons.")
    # Angles are right on the ground, not in degrees.
    flat = features
    if len(features) and features.crs is not None and features.crs.is_geographic:
        flat = features.to_crs(features.estimate_utm_crs())
    shapes = [_one(shape, tolerance) for shape in flat.geometry.to_numpy()]
    result = flat.set_geometry(np.array(shapes, dtype=object), crs=flat.crs)
    return result if flat is features else result.to_crs(features.crs)


def _one(shape: shapely.Geometry | None, tolerance: float) -> shapely.Geometry | None:
    if shape is None or shape.is_empty:
        return shape
    valid = shapely.make_valid(shape)
    parts = [p for p in shapely.get_parts(valid, return_index=False) if p.geom_type == "Polygon"]
    outlines = [right_angled(part, tolerance) for part in parts if part.area > 0]
    if not outlines:
        return shape
    return outlines[0] if len(outlines) == 1 else shapely.union_all(outlines)
