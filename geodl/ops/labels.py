"""Features and class rasters inside one chip: clipped parts, boxes, burnt masks."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage

from geodl.base.quiet import quiet_lock
from geodl.core.grid import Window

# The least width and height, in pixels, of a label's part in a chip; two decimals of a VOC box
# still hold it. The slack keeps rounding from deciding about parts of exactly this size.
MIN_PART_PX = 0.02
_SLACK_PX = 1e-9

# shapely's numbers of geometry types: multi-points, -lines and -polygons are 4 to 6.
_FIRST_MULTI, _COLLECTION = 4, 7

_FEW_VALUES = 2**16

_EIGHT = np.ones((3, 3), bool)


def repaired(geometries: np.ndarray) -> tuple[np.ndarray, int]:
    """Valid, two-dimensional geometries, and how many of them had to be repaired.

    Parameters
    ----------
    geometries
        object (N,) of shapely geometries. Of a collection only the parts of the highest dimension
        are kept, and of a repaired polygon only areas.
    """
    flat = shapely.force_2d(geometries)
    broken = np.flatnonzero(~shapely.is_valid(flat))
    for position in broken:
        before = flat[position]
        flat[position] = _of_dimension(
            shapely.make_valid(before), int(shapely.get_dimensions(before))
        )
    for position in np.flatnonzero(shapely.get_type_id(flat) == _COLLECTION):
        whole = flat[position]
        flat[position] = _of_dimension(whole, int(shapely.get_dimensions(whole)))
    return flat, len(broken)


def _of_dimension(geometry: shapely.Geometry, dimension: int) -> shapely.Geometry:
    """The components of one dimension; an empty collection where there are none."""
    if geometry.geom_type != "GeometryCollection" and shapely.get_dimensions(geometry) == dimension:
        return geometry
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) >= _FIRST_MULTI).any():
        parts = shapely.get_parts(parts)
    kept = parts[shapely.get_dimensions(parts) == dimension]
    return shapely.union_all(kept) if len(kept) else shapely.GeometryCollection()


def to_pixels(geometries: np.ndarray, transform: Affine) -> np.ndarray:
    """Geometries in pixels (x = column, y = row, edges whole) of the grid with ``transform``."""
    corner = np.array([transform.c, transform.f])
    # The corner goes first: map coordinates are large, and the difference is exact or nearly so.
    if transform.b == transform.d == 0:
        scale = np.array([transform.a, transform.e])
        return shapely.transform(geometries, lambda xy: (xy - corner) / scale)
    back = ~transform
    turn = np.array([[back.a, back.d], [back.b, back.e]])
    return shapely.transform(geometries, lambda xy: (xy - corner) @ turn)


def parts_inside(geometries: np.ndarray, window: Window) -> np.ndarray:
    """The part of each geometry inside a window, in the window's own pixel frame.

    Parameters
    ----------
    geometries
        object (N,) of valid geometries in pixels of the raster.

    Returns
    -------
    object (N,): parts of the same dimension (areas of areas, lines of lines); empty where nothing
    is inside.
    """
    frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
    parts = np.array(geometries, dtype=object)
    bounds = shapely.bounds(parts)
    cut = np.flatnonzero(
        (bounds[:, 0] < window.col)
        | (bounds[:, 1] < window.row)
        | (bounds[:, 2] > window.col_stop)
        | (bounds[:, 3] > window.row_stop)
    )
    if len(cut):
        dimensions = shapely.get_dimensions(parts[cut])
        inside = shapely.intersection(parts[cut], frame)
        for position, part, dimension in zip(cut, inside, dimensions, strict=True):
            parts[position] = _of_dimension(part, int(dimension))
    offset = np.array([window.col, window.row], np.float64)
    return shapely.transform(parts, lambda xy: xy - offset)


def boxes_of(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of parts, and which are large enough to be labels.

    Returns
    -------
    boxes
        float64 (N, 4): x0, y0, x1, y1 in pixels of the chip; nan for empty parts.
    kept
        bool (N,): at least :data:`MIN_PART_PX` wide and high.
    """
    boxes = shapely.bounds(parts).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes, (sides >= MIN_PART_PX - _SLACK_PX).all(axis=1)


def share_inside(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """float64 (N,), 0..1: area of part over whole; of lines their length; of points 1 or 0."""
    shares = np.where(shapely.is_empty(parts), 0.0, 1.0)
    dimensions = shapely.get_dimensions(wholes)
    for dimension, measure in ((1, shapely.length), (2, shapely.area)):
        chosen = dimensions == dimension
        whole = measure(wholes[chosen])
        shares[chosen] = np.divide(
            measure(parts[chosen]), whole, out=np.ones_like(whole), where=whole > 0
        )
    return shares


def burn(parts: np.ndarray, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Class values of the pixels whose centres lie inside parts; the last part lies on top.

    Parameters
    ----------
    parts
        object (N,) of geometries in pixels of the chip. Lines burn the pixels they cross, points
        the pixel they lie in.
    values
        int64 (N,) that fit int32.

    Returns
    -------
    int32 (height, width); 0 where there is no part.
    """
    filled = ~shapely.is_empty(parts)
    if not filled.any():
        return np.zeros((height, width), np.int32)
    # rasterio warns of the identity transform, from a thread beside others; doubling is exact.
    doubled = shapely.transform(parts[filled], lambda xy: xy * 2)
    with quiet_lock:
        return rasterize(
            list(zip(doubled, values[filled].tolist(), strict=True)),
            out_shape=(height, width),
            fill=0,
            dtype="int32",
            transform=Affine.scale(2),
        )


def outside_part(parts: np.ndarray, size_yx: tuple[int, int]) -> np.ndarray:
    """bool (H, W): pixels of a chip outside the part of a feature in it.

    Parameters
    ----------
    parts
        object (1,), in pixels of the chip. One that lies between the centres of pixels keeps those
        that its outline crosses.
    """
    one = np.ones(1, np.int64)
    inside = burn(parts, one, *size_yx) > 0
    if not inside.any():
        inside = burn(shapely.boundary(parts), one, *size_yx) > 0
    return ~inside


def boxes_of_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around the connected regions of a class mask (8 neighbours, one class each).

    Parameters
    ----------
    mask
        int (H, W); 0 is background.

    Returns
    -------
    boxes
        float64 (N, 4) at pixel edges, by class value, then upper edge, then left edge.
    values
        int64 (N,).
    """
    boxes: list[tuple[int, int, int, int]] = []
    values: list[int] = []
    for value in np.unique(mask[mask != 0]):
        regions, _ = ndimage.label(mask == value, structure=_EIGHT)
        found = [
            (cols.start, rows.start, cols.stop, rows.stop)
            for rows, cols in ndimage.find_objects(regions)
        ]
        found.sort(key=lambda box: (box[1], box[0], box[3], box[2]))
        boxes.extend(found)
        values.extend([int(value)] * len(found))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(values, np.int64)


def value_counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of whole numbers, ascending, and how often each occurs; int64 both."""
    if values.size and values.min() >= 0 and values.max() < _FEW_VALUES:
        # Counting is ten times faster than sorting.
        numbers = np.bincount(values.reshape(-1))
        found = np.flatnonzero(numbers)
        return found, numbers[found]
    found, numbers = np.unique(values, return_counts=True)
    return found.astype(np.int64), numbers.astype(np.int64)
