"""Outlines get right angles, keep their place, size and corners, and smooth what is small."""

import numpy as np
import pytest
import shapely
from rasterio import features
from shapely import affinity

from geodl.ops.right_angles import right_angled


def square(polygon):
    """Whether every corner of all rings has a right angle."""
    for ring in [polygon.exterior, *polygon.interiors]:
        steps = np.diff(np.array(ring.coords), axis=0)
        angle = np.arctan2(steps[:, 1], steps[:, 0])
        if not np.allclose(np.cos(np.roll(angle, -1) - angle), 0, atol=1e-6):
            return False
    return True


def burnt(shape, size=120):
    """The shape as pixels make it."""
    mask = features.rasterize([shape], (size, size), dtype="uint8").astype(np.uint8)
    (found,) = [
        shapely.geometry.shape(g) for g, v in features.shapes(mask, mask=mask > 0) if v == 1
    ]
    return found


ELL = shapely.Polygon([(0, 0), (50, 0), (50, 20), (25, 20), (25, 60), (0, 60)])


@pytest.mark.parametrize("angle", [0, 7, 30, 45, 83])
def test_a_building_of_pixels_becomes_its_plan(angle):
    plan = affinity.translate(affinity.rotate(ELL, angle, origin=(25, 30)), 35, 30)
    found = right_angled(burnt(plan), 2.0)
    assert square(found)
    assert len(found.exterior.coords) - 1 == 6
    assert found.intersection(plan).area / found.union(plan).area > 0.93


def test_a_courtyard_stays_and_jags_go():
    ring = shapely.Polygon(
        [(0, 0), (60, 0), (60, 60), (0, 60)], [[(20, 20), (40, 20), (40, 40), (20, 40)]]
    )
    rough = ring.union(shapely.box(60, 10, 61, 12)).difference(shapely.box(29, 58.9, 31, 60))
    found = right_angled(rough, 2.0)
    assert len(found.exterior.coords) == 5
    assert len(found.interiors) == 1
    assert square(found)
    assert found.area == pytest.approx(ring.area, rel=0.01)


def test_a_polygon_that_has_right_angles_is_left_alone():
    found = right_angled(ELL, 1.0)
    assert found.equals(ELL)


def test_a_round_silo_becomes_a_square_and_a_star_is_only_simplified():
    silo = shapely.Point(0, 0).buffer(10)
    found = right_angled(silo, 1.0)
    assert square(found)
    assert found.intersection(silo).area / found.union(silo).area > 0.75
    sliver = shapely.Polygon([(0, 0), (100, 1), (0, 2), (1, 100), (-1, 1)])
    assert right_angled(sliver, 0.5).is_valid


def test_small_things_still_give_a_polygon():
    for shape in (shapely.box(0, 0, 1, 1), shapely.Polygon([(0, 0), (1, 0), (0, 1)])):
        found = right_angled(shape, 5.0)
        assert found.geom_type == "Polygon"
        assert found.is_valid
        assert found.area > 0
