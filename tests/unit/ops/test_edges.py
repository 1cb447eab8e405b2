"""Thinning and matching of edges, on masks whose answer is known."""

import numpy as np
import pytest
from scipy import ndimage

from geodl.ops.edges import EdgeCounts, match_edges, thin


def line(row, side=20):
    mask = np.zeros((side, side), bool)
    mask[row] = True
    return mask


def test_a_bar_thins_to_its_middle_row_and_keeps_its_ends_at_the_border():
    mask = np.zeros((20, 20), bool)
    mask[7:12] = True
    assert np.array_equal(thin(mask), line(9))


def test_a_thinned_ring_stays_one_closed_piece():
    rows, cols = np.ogrid[-16:17, -16:17]
    radius = np.hypot(rows, cols)
    ring = thin((radius > 8) & (radius < 13))
    assert ndimage.label(ring, np.ones((3, 3)))[1] == 1
    assert ndimage.label(~ring)[1] == 2


def test_nothing_thins_to_nothing():
    assert not thin(np.zeros((5, 5), bool)).any()


@pytest.mark.parametrize(("tolerance", "right"), [(1, 0), (2, 20), (3, 20)])
def test_a_line_two_pixels_off_counts_from_a_tolerance_of_two(tolerance, right):
    counts = match_edges(line(5), line(7), tolerance)
    assert counts == EdgeCounts(20, right, 20, right)


def test_scores_of_a_half_found_line_beside_a_wrong_one():
    true, found = line(5), line(5) | line(15)
    found[5, 10:] = False
    counts = match_edges(found, true, 0)
    assert counts.precision == pytest.approx(10 / 30)
    assert counts.recall == pytest.approx(10 / 20)
    assert counts.f1 == pytest.approx(0.4)
    assert (counts + counts).f1 == pytest.approx(0.4)


def test_without_edges_scores_are_nought():
    none = np.zeros((4, 4), bool)
    assert match_edges(none, none, 3).f1 == 0
    assert match_edges(none, line(1, 4), 3).recall == 0
