"""Regions of equal value as polygons, piece by piece, and joined to what the whole gives."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from rasterio import features
from scipy import sparse
from scipy.sparse import csgraph


def piece_polygons(
    values: np.ndarray, valid: np.ndarray, row: int, col: int
) -> tuple[np.ndarray, np.ndarray]:
    """Edge-connected regions of one part of a raster.

    Parameters
    ----------
    values
        int32 (H, W).
    valid
        bool (H, W); pixels elsewhere belong to no region.
    row, col
        Of the part's first pixel.

    Returns
    -------
    Values int64 (N,), and polygons (N,) in pixel edges (x right, y down) of the whole raster.
    """
    found = features.shapes(
        values, mask=valid, connectivity=4, transform=Affine.translation(col, row)
    )
    numbers, shapes = [], []
    for shape, value in found:
        rings = [np.asarray(ring) for ring in shape["coordinates"]]
        numbers.append(int(value))
        shapes.append(shapely.Polygon(rings[0], rings[1:]))
    # Holes that meet at a corner come as one ring that touches itself.
    pieces = shapely.make_valid(np.asarray(shapes, object))
    return np.asarray(numbers, np.int64), np.asarray(pieces, object)


def join_pieces(
    values: np.ndarray, pieces: np.ndarray, connectivity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of equal value that touch, as one polygon each; the same however a raster was cut.

    Parameters
    ----------
    values, pieces
        Of :func:`piece_polygons`, of all parts.
    connectivity
        8: touching at a corner joins too, to a MultiPolygon; 4: only a common edge.

    Returns
    -------
    Values int64 (M,), and polygons (M,) without needless vertices, by value, then first row and
    column.
    """
    numbers, joined = [], []
    for value in np.unique(values):
        own = pieces[values == value]
        group = _groups(own, connectivity)
        order = np.argsort(group, kind="stable")
        parts = np.split(own[order], np.flatnonzero(np.diff(group[order])) + 1)
        merged = [_clean(part) for part in parts]
        merged.sort(key=lambda polygon: (polygon.bounds[1], polygon.bounds[0], polygon.wkb))
        numbers += [value] * len(merged)
        joined += merged
    return np.asarray(numbers, np.int64), np.asarray(joined, object)


def _groups(pieces: np.ndarray, connectivity: int) -> np.ndarray:
    """int (N,): pieces with one number belong together."""
    one, two = shapely.STRtree(pieces).query(pieces, predicate="intersects")
    later = one < two
    one, two = one[later], two[later]
    if connectivity == 4:
        along = shapely.length(shapely.intersection(pieces[one], pieces[two])) > 0
        one, two = one[along], two[along]
    links = sparse.coo_matrix((np.ones(len(one), bool), (one, two)), (len(pieces),) * 2)
    return np.asarray(csgraph.connected_components(links, directed=False)[1])


def _clean(pieces: np.ndarray) -> shapely.Geometry:
    whole = pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)
    # A normalised ring begins at a corner, so that every vertex on a straight edge can go.
    return shapely.normalize(shapely.simplify(shapely.normalize(whole), 0))
