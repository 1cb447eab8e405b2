"""Regions of a class raster as polygons, read block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodl.base.errors import DataError
from geodl.base.options import as_int, check_choice
from geodl.core.grid import Window
from geodl.io.source import open_source
from geodl.ops.polygons import join_pieces, piece_polygons

if TYPE_CHECKING:
    import geopandas as gpd


def polygonize(raster: Any, *, connectivity: int = 8, block_size: int = 2048) -> gpd.GeoDataFrame:
    """Polygons of the connected regions of equal value in a class raster.

    The raster is read block by block; the result is that of the whole raster, whatever the
    block size.

    Parameters
    ----------
    raster
        What :func:`geodl.open_raster` takes, with one band of whole numbers.
    connectivity
        8: regions that meet at a corner are one, a MultiPolygon; 4: only common edges join.
    block_size
        Pixels read at once, down and across.

    Returns
    -------
    GeoDataFrame in the raster's CRS with the columns ``ClassValue`` and ``geometry``, by value,
    then from top to bottom. Ground without data is left out, and a hole where it is surrounded.

    Raises
    ------
    DataError
        Several bands, or values that are no whole numbers of 32 bits.
    """
    import geopandas

    check_choice(connectivity, (4, 8), "connectivity")
    side = as_int(block_size, "block_size", minimum=1)
    source = open_source(raster)
    if source.count != 1:
        raise DataError(f"{source.name} has {source.count} bands; a class raster has one.")
    height, width = source.grid.shape
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for row in range(0, height, side):
        for col in range(0, width, side):
            square = Window(row=row, col=col, height=side, width=side)
            block = source.read(square.intersect(source.grid.window))
            values = _whole(block.data[0], block.mask, source.name)
            found.append(piece_polygons(values, block.mask, row, col))
    values, polygons = join_pieces(
        np.concatenate([part[0] for part in found]),
        np.concatenate([part[1] for part in found]),
        connectivity,
    )
    transform = source.grid.affine

    turn = np.array([[transform.a, transform.b], [transform.d, transform.e]])

    def to_map(points: np.ndarray) -> np.ndarray:
        return points @ turn.T + (transform.c, transform.f)

    return geopandas.GeoDataFrame(
        {"ClassValue": values},
        geometry=shapely.transform(polygons, to_map),
        crs=source.grid.crs,
    )


def _whole(values: np.ndarray, valid: np.ndarray, name: str) -> np.ndarray:
    """int32 (H, W), 0 where there is no data."""
    clean = np.where(valid, values, 0)
    whole = clean.astype(np.int32)
    if not (whole == clean).all():
        raise DataError(
            f"{name} holds values that are no whole numbers of 32 bits; class values are."
        )
    return whole
