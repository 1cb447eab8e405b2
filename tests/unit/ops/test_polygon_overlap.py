"""Overlaps of polygons against shapely's overlay, and the shortcut for boxes."""

import numpy as np
import shapely

from geodl.ops.boxes import paired_iou
from geodl.ops.polygon_overlap import Polygons, polygon_iou, share_of_smaller, touching_pairs


def turned(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 60, (2, count))
    boxes = shapely.box(x, y, x + rng.uniform(2, 9, count), y + rng.uniform(2, 9, count))
    turns = [
        shapely.affinity.rotate(b, a) for b, a in zip(boxes, rng.uniform(0, 90, count), strict=True)
    ]
    return np.where(rng.random(count) < 0.5, boxes, np.array(turns))


def test_ratios_are_those_of_the_overlay_and_no_pair_is_missed():
    one, two = turned(80, 0), turned(90, 1)
    first, second = Polygons(one), Polygons(two)
    assert 0 < first.are_boxes.sum() < 80
    every = [np.array(k) for k in np.meshgrid(range(80), range(90), indexing="ij")]
    i, j = (k.ravel() for k in every)
    common = shapely.area(shapely.intersection(one[i], two[j]))
    areas = shapely.area(one)[i], shapely.area(two)[j]
    expected = common / (areas[0] + areas[1] - common)
    assert np.allclose(polygon_iou(first, i, second, j), expected, atol=1e-12)
    smaller = common / np.minimum(*areas)
    assert np.allclose(share_of_smaller(first, i, second, j), smaller, atol=1e-12)
    pairs = {(a, b) for part in touching_pairs(first, second) for a, b in zip(*part, strict=True)}
    assert {(a, b) for a, b in zip(i[common > 0], j[common > 0], strict=True)} <= pairs


def test_boxes_give_exactly_what_the_ops_of_boxes_give():
    rng = np.random.default_rng(2)
    low = rng.uniform(5e6, 5e6 + 50, (60, 2))
    boxes = np.hstack([low, low + rng.uniform(1, 20, (60, 2))])
    polygons = Polygons(shapely.box(*boxes.T))
    i, j = np.triu_indices(60, 1)
    assert polygons.are_boxes.all()
    assert np.array_equal(polygon_iou(polygons, i, polygons, j), paired_iou(boxes[i], boxes[j]))


def test_rings_that_cross_themselves_are_repaired_and_empty_sets_meet_nothing():
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    polygons = Polygons(np.array([bow, shapely.box(0, 0, 2, 2)]))
    ratio = polygon_iou(polygons, np.array([0]), polygons, np.array([1]))
    assert np.allclose(ratio, 0.5)
    none = Polygons(np.zeros(0, object))
    assert list(touching_pairs(none, polygons)) == list(touching_pairs(polygons, none)) == []
