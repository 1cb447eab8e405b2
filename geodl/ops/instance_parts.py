"""Objects that tiles saw in part, made whole."""

from __future__ import annotations

import numpy as np
import shapely
from scipy import sparse
from scipy.sparse import csgraph

# Two sights are of one object if they agree so far where both tiles look.
_AGREE = 0.5
# A part so far inside another object's outline is that object again.
_INSIDE = 0.5


def join_parts(
    outlines: np.ndarray, labels: np.ndarray, tiles: np.ndarray, cut: np.ndarray
) -> list[np.ndarray]:
    """Which outlines belong to one object.

    Parameters
    ----------
    outlines
        object (N,): polygons.
    labels
        int (N,): classes; only parts of one class are joined.
    tiles
        float64 (N, 4): x0, y0, x1, y1 of what each was seen in.
    cut
        bool (N,): only these may be parts.

    Returns
    -------
    Positions of the outlines of each object. A cut outline that lies in a whole one of its class
    is left out: it is the same object, seen again.
    """
    whole, parts = np.flatnonzero(~cut), np.flatnonzero(cut)
    parts = parts[~_seen_whole(outlines, labels, whole, parts)]
    groups = _linked(outlines[parts], labels[parts], tiles[parts])
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    joined = np.split(parts[order], starts) if len(parts) else []
    return [*(whole[i : i + 1] for i in range(len(whole))), *joined]


def _seen_whole(
    outlines: np.ndarray, labels: np.ndarray, whole: np.ndarray, parts: np.ndarray
) -> np.ndarray:
    """bool: parts that lie in a whole outline of their class."""
    seen: np.ndarray = np.zeros(len(parts), bool)
    if not len(whole) or not len(parts):
        return seen
    one, two = shapely.STRtree(outlines[whole]).query(outlines[parts], predicate="intersects")
    same = labels[parts[one]] == labels[whole[two]]
    one, two = one[same], two[same]
    common = shapely.area(shapely.intersection(outlines[parts[one]], outlines[whole[two]]))
    seen[one[common >= _INSIDE * shapely.area(outlines[parts[one]])]] = True
    return seen


def _linked(outlines: np.ndarray, labels: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """int (N,): parts with one number belong together."""
    count = len(outlines)
    if not count:
        return np.zeros(0, np.int64)
    one, two = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    later = (one < two) & (labels[one] == labels[two])
    one, two = one[later], two[later]
    low = np.maximum(tiles[one, :2], tiles[two, :2])
    high = np.maximum(np.minimum(tiles[one, 2:], tiles[two, 2:]), low)
    # What both tiles see; parts agree or not only there.
    shared = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    first = shapely.intersection(outlines[one], shared)
    second = shapely.intersection(outlines[two], shared)
    common = shapely.area(shapely.intersection(first, second))
    union = shapely.area(first) + shapely.area(second) - common
    agree = (common > 0) & (common >= _AGREE * union)
    # Two objects that one tile tells apart stay two.
    agree &= (tiles[one] != tiles[two]).any(axis=1)
    one, two = one[agree], two[agree]
    links = sparse.coo_matrix((np.ones(len(one), bool), (one, two)), (count, count))
    numbers: np.ndarray = csgraph.connected_components(links, directed=False)[1]
    return numbers
