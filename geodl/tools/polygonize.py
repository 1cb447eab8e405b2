"""Regions of a class raster as polygons, read block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float, as_int, check_choice
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_label
from geodl.io.source import open_source
from geodl.ops.polygons import Polygonizer, RegionPolygons
from geodl.tools.class_values import class_values

if TYPE_CHECKING:
    import geopandas as gpd

# A window's values, int32 (H, W), and where they are valid, bool (H, W).
ReadClasses = Callable[[Window], tuple[np.ndarray, np.ndarray]]


def polygonize(
    raster: Any,
    *,
    connectivity: int = 8,
    block_size: int = 2048,
    min_area: float = 0,
    simplify: float = 0,
) -> gpd.GeoDataFrame:
    """Polygons of the connected regions of equal value in a class raster.

    The raster is read block by block; the result is that of the whole raster, whatever the
    block size. Memory holds a block, the regions that are still open, and the result.

    Parameters
    ----------
    raster
        What :func:`geodl.open_raster` takes, with one band of whole numbers.
    connectivity
        8: regions that meet at a corner are one, a MultiPolygon; 4: only common edges join.
    block_size
        Pixels read at once, down and across.
    min_area
        Smaller regions are left out, in square units of the CRS; their ground is then in no
        polygon.
    simplify
        0 keeps the edges of pixels. A length in units of the CRS removes vertices whose triangle
        with their neighbours is smaller than its square (Visvalingam and Whyatt). Borders that two
        polygons share stay shared: no gaps, no overlaps.

    Returns
    -------
    GeoDataFrame in the raster's CRS with the columns ``ClassValue`` and ``geometry``, by value,
    then by a region's first pixel in reading order. Ground without data is left out, and a hole
    where it is surrounded.

    Raises
    ------
    DataError
        Several bands, or values that are no whole numbers of 32 bits.
    OptionError
        An option outside its domain.
    """
    import geopandas

    check_choice(connectivity, (4, 8), "connectivity")
    side = as_int(block_size, "block_size", minimum=1)
    source = open_source(raster)
    if source.count != 1:
        raise DataError(f"{source.name} has {source.count} bands; a class raster has one.")

    check_units(source.grid, min_area, simplify)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        block = source.read(window)
        return class_values(block.data[0], source.name, valid=block.mask), block.mask

    found = region_polygons(
        read, source.grid, side, connectivity=connectivity, min_area=min_area, simplify=simplify
    )
    return geopandas.GeoDataFrame(
        {"ClassValue": found.values}, geometry=found.polygons, crs=source.grid.crs
    )


def check_units(grid: GeoGrid, min_area: float, simplify: float) -> None:
    """Refuse sizes that no polygon of a raster has: metres, for example, where it has degrees.

    Raises
    ------
    OptionError
        ``min_area`` or ``simplify`` is larger than the whole raster.
    """
    x, y = grid.cell_size_xy
    area = grid.width * x * grid.height * y
    given = (("min_area", min_area, area), ("simplify", simplify, area**0.5))
    for name, value, most in given:
        if as_float(value, name, minimum=0) > most:
            raise OptionError(
                f"{name}={value:g} is more than the whole raster has ({most:g}): it is in "
                f"{'square ' if name == 'min_area' else ''}units of {crs_label(grid.crs)}, of "
                f"which a pixel measures {x:g} x {y:g}."
            )


def region_polygons(
    read: ReadClasses,
    grid: GeoGrid,
    block_px: int,
    *,
    connectivity: int = 8,
    min_area: float = 0,
    simplify: float = 0,
    dropped: tuple[int, ...] = (),
) -> RegionPolygons:
    """Polygons, in the CRS of ``grid``, of all regions that ``read`` tells of.

    Parameters
    ----------
    read
        Called once for each block of ``block_px``.
    min_area, simplify
        As of :func:`polygonize`.
    dropped
        Values that get no polygons.
    """
    min_area = as_float(min_area, "min_area", minimum=0)
    simplify = as_float(simplify, "simplify", minimum=0)
    work = Polygonizer(
        grid.height,
        grid.width,
        connectivity,
        junctions=simplify > 0,
        least_px=min_area / abs(grid.affine.determinant),
        dropped=dropped,
        transform=grid.transform,
    )
    for row in range(0, grid.height, block_px):
        for col in range(0, grid.width, block_px):
            square = Window(row=row, col=col, height=block_px, width=block_px)
            window = square.intersect(grid.window)
            work.add(*read(window), window)
    found = work.finish()
    if simplify > 0 and len(found.polygons):
        coarse = shapely.coverage_simplify(found.polygons, simplify)
        found = replace(found, polygons=coarse)
    return found
