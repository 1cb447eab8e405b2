"""Targets of roads: widths and orientations of lines whose answer is known."""

import numpy as np
import pytest

from geodl.ops.line_targets import line_targets, orientation_bins


def bar(width=9, side=41, value=2):
    target = np.zeros((side, side), np.int64)
    first = (side - width) // 2
    target[first : first + width] = value
    return target


def targets(target, thresh=0.76, bin_deg=20, theta_px=8):
    return line_targets(target, gaussian_thresh=thresh, bin_deg=bin_deg, theta_px=theta_px)


def test_the_default_threshold_keeps_the_mask():
    for width in (1, 2, 5, 9):
        assert np.array_equal(targets(bar(width))[0], bar(width))


def test_smaller_thresholds_widen_and_larger_ones_narrow():
    widths = [int((targets(bar(), thresh)[0][:, 20] == 2).sum()) for thresh in (0.95, 0.76, 0.33)]
    # The Gaussian of a half width of 5: 5 * sqrt(ln t / ln 0.76) = 2.2, 5 and 10.05.
    assert widths == [5, 9, 21]


@pytest.mark.parametrize(("angle", "place"), [(0, 1), (25, 2), (45, 3), (90, 5), (142, 8)])
def test_orientations_of_straight_lines_fall_in_their_bins(angle, place):
    side = 61
    rows, cols = np.mgrid[:side, :side] - side // 2
    turn = np.deg2rad(angle)
    # Counter-clockwise from east, with rows growing downwards.
    away = np.abs(cols * np.sin(turn) + rows * np.cos(turn))
    target = (away < 2).astype(np.int64)
    found = targets(target)[1][20:41, 20:41]
    assert set(np.unique(found[found > 0])) == {place}


def test_orientation_lies_in_a_band_as_wide_as_theta():
    turned = targets(bar(3), theta_px=6)[1]
    assert (turned[:, 20] > 0).sum() == 7
    assert orientation_bins(20) == 9
    assert orientation_bins(50) == 4


def test_nothing_and_everything_have_no_orientation():
    nothing = np.zeros((8, 8), np.int64)
    for target in (nothing, nothing + 1):
        lines, turned = targets(target)
        assert np.array_equal(lines, target)
        assert not turned.any()


def test_what_does_not_count_stays_so():
    target = bar()
    target[:, :5] = -100
    lines, turned = targets(target, thresh=0.2)
    assert (lines[:, :5] == -100).all()
    assert (turned[:, :5] == -100).all()
    assert (lines[:, 5:] >= 0).all()
