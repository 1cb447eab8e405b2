"""Outlines of buildings with right angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import affinity

# Below this overlap with what was given an outline is no likeness of it any more.
LEAST_IOU = 0.5


def right_angled(polygon: shapely.Polygon, tolerance: float) -> shapely.Polygon:
    """A polygon whose edges all follow one direction or the one across it.

    The edges of the simplified outline are turned to the nearer of the two directions, edges of
    one direction that follow each other become one at their weighted mean, and edges shorter than
    the tolerance are taken out, shortest first. Of the outline's mean direction and that of its
    smallest rectangle, and of that rectangle itself, the one with most overlap is taken.

    Parameters
    ----------
    polygon
        Valid, in coordinates that keep angles.
    tolerance
        In units of the coordinates: how much smaller things are smoothed away.

    Returns
    -------
    Valid and without needless vertices; the simplified polygon where right angles would leave an
    overlap (IoU) below 0.5.
    """
    simple = shapely.simplify(polygon, tolerance)
    if simple.is_empty or simple.geom_type != "Polygon":
        simple = polygon
    box = shapely.oriented_envelope(polygon)
    found = [] if box.geom_type != "Polygon" else [box]
    for angle in dict.fromkeys((_direction(simple), _direction(box))):
        outline = _along(simple, angle, tolerance)
        if outline is not None:
            found.append(outline)
    if not found:
        return simple
    # The first of equals: the shape of the outline goes before its rectangle.
    best = max(reversed(found), key=lambda one: _overlap(one, polygon))
    return best if _overlap(best, polygon) >= LEAST_IOU else simple


def _overlap(one: shapely.Polygon, two: shapely.Polygon) -> float:
    common = shapely.area(shapely.intersection(one, two))
    return float(common / (one.area + two.area - common))


def _direction(shape: shapely.Geometry) -> float:
    """Radians: mean of the edges' directions by length, a quarter turn being all the same."""
    ring = shape.exterior if shape.geom_type == "Polygon" else shape
    steps = np.diff(shapely.get_coordinates(ring), axis=0)
    turned = (steps[:, 0] + 1j * steps[:, 1]) ** 4
    size = np.abs(turned)
    # Of length 1 each before they are weighted, so a long edge does not count by its fourth power.
    total = np.sum(np.divide(turned, size, where=size > 0, out=np.zeros_like(turned)) * size**0.25)
    return float(np.angle(total) / 4)


def _along(polygon: shapely.Polygon, angle: float, tolerance: float) -> shapely.Polygon | None:
    """The polygon by edges along and across an angle; None where nothing valid is left."""
    centre = polygon.centroid
    upright = affinity.rotate(polygon, -angle, origin=centre, use_radians=True)
    shell = _squared(upright.exterior, tolerance)
    if shell is None:
        return None
    holes = [_squared(ring, tolerance) for ring in upright.interiors]
    found = shapely.Polygon(shell, [h for h in holes if h is not None])
    if not found.is_valid:
        return None
    return affinity.rotate(found, angle, origin=centre, use_radians=True)


@dataclass
class _Side:
    """Edges of one direction that follow each other.

    Parameters
    ----------
    upright
        Along y; else along x.
    place
        The coordinate across it.
    weight
        The length of the edges that it stands for.
    """

    upright: bool
    place: float
    weight: float


def _squared(ring: shapely.LinearRing, tolerance: float) -> np.ndarray | None:
    """Corners (N, 2) of a ring by edges along x and y; None where it is too small."""
    sides = _joined(_sides(shapely.get_coordinates(ring)))
    while len(sides) > 4:
        lengths = _lengths(sides)
        k = int(np.argmin(lengths))
        if lengths[k] >= tolerance:
            break
        sides = _joined(sides[k + 1 :] + sides[:k])
    if len(sides) < 4 or min(_lengths(sides)) < tolerance:
        return None
    return np.array([_corner(sides[k - 1], side) for k, side in enumerate(sides)])


def _sides(points: np.ndarray) -> list[_Side]:
    found = []
    for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        upright = abs(y1 - y0) > abs(x1 - x0)
        middle = (x0 + x1) / 2 if upright else (y0 + y1) / 2
        found.append(_Side(upright, middle, math.hypot(x1 - x0, y1 - y0)))
    return found


def _joined(sides: list[_Side]) -> list[_Side]:
    """Sides of the same direction that follow each other, also over the end, as one."""
    found: list[_Side] = []
    for side in sides:
        if found and found[-1].upright == side.upright:
            found[-1] = _mean(found[-1], side)
        else:
            found.append(side)
    if len(found) > 1 and found[0].upright == found[-1].upright:
        found[0] = _mean(found.pop(), found[0])
    return found


def _mean(one: _Side, two: _Side) -> _Side:
    weight = one.weight + two.weight
    place = (one.place * one.weight + two.place * two.weight) / weight if weight else one.place
    return _Side(one.upright, place, weight)


def _lengths(sides: list[_Side]) -> np.ndarray:
    """Each side reaches from the one before it to the one after it."""
    places = np.array([side.place for side in sides])
    return np.abs(np.roll(places, -1) - np.roll(places, 1))


def _corner(one: _Side, two: _Side) -> tuple[float, float]:
    return (one.place, two.place) if one.upright else (two.place, one.place)
