"""Regions without labels: objects on even ground come up among the proposals."""

import numpy as np

from geodl.ops.boxes import iou_matrix
from geodl.ops.region_proposals import propose_regions


def scene(bands=3):
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.1, (bands, 96, 128))
    boxes = [(10, 12, 40, 44), (60, 20, 84, 70), (100, 50, 120, 84), (20, 60, 48, 88)]
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        image[:, y0:y1, x0:x1] += 2 + number
    return image, np.array(boxes, float)


def test_every_object_is_among_few_proposals():
    for bands in (1, 3, 13):
        image, boxes = scene(bands)
        found = propose_regions(image, 30)
        assert found.dtype == np.float32
        assert len(found) <= 30
        assert (iou_matrix(boxes, found).max(axis=1) > 0.7).all(), f"{bands} bands"


def test_proposals_lie_inside_differ_and_come_the_same_again():
    image, _ = scene()
    found = propose_regions(image, 20)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= [128, 96]).all()
    assert len(np.unique(found, axis=0)) == len(found)
    assert np.array_equal(found, propose_regions(image, 20))
    assert np.array_equal(found[:5], propose_regions(image, 5))


def test_small_and_even_images_do_no_harm():
    assert len(propose_regions(np.zeros((3, 2, 2)), 5)) == 0
    assert propose_regions(np.zeros((1, 64, 64)), 5).shape[1] == 4
