"""What a network of roads learns besides the mask: lines of another width, and orientations."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from geodl.ops.edges import thin

OWN_WIDTH_THRESH = 0.76
"""The Gaussian threshold that keeps every line's own width."""
_HALF_TURN_DEG = 180
# Blurs the staircase of a thinned line before its gradient is taken.
_BLUR_PX = 1.5


def orientation_bins(bin_deg: int) -> int:
    """How many bins hold the orientations of lines without a sense, 0 to 180 degrees."""
    return math.ceil(_HALF_TURN_DEG / bin_deg)


def line_targets(
    target: np.ndarray, *, gaussian_thresh: float, bin_deg: int, theta_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lines and their orientations from a mask (after Batra et al. 2019,
    10.1109/CVPR.2019.01063, whose road centre lines are vectors).

    Parameters
    ----------
    target
        int (H, W): 0 background, above: lines by class, below: does not count.
    gaussian_thresh
        0..1. Around each centre line a Gaussian falls to 0.76 at the line's own border; pixels
        above the threshold are line. Smaller is wider.
    bin_deg
        Width of an orientation bin; the first one begins a quarter of it before east-west, so that
        neither rows nor columns lie on a border.
    theta_px
        Width of the band around the centre lines where there is an orientation.

    Returns
    -------
    Two arrays like ``target``: the line's class, and 1 + the bin of the line's orientation,
    counter-clockwise from east; 0 elsewhere. What does not count stays as it is.

    Raises
    ------
    MissingPackageError
        scikit-image is not installed.
    """
    mask = target > 0
    lines, turned = np.where(mask, target, 0), np.zeros_like(target)
    centre = thin(mask)
    if centre.any() and not mask.all():
        distance, nearest = ndimage.distance_transform_edt(~centre, return_indices=True)
        half = ndimage.distance_transform_edt(mask)[tuple(nearest)]
        lines = _widened(lines, distance, half, target[tuple(nearest)], gaussian_thresh)
        angle = _orientation_deg(centre, theta_px)
        place = ((angle + bin_deg / 4) % _HALF_TURN_DEG) // bin_deg
        turned = np.where(distance <= theta_px / 2, place + 1, 0).astype(target.dtype)
    uncounted = target < 0
    lines[uncounted] = target[uncounted]
    turned[uncounted] = target[uncounted]
    return lines, turned


def _widened(
    lines: np.ndarray, distance: np.ndarray, half: np.ndarray, near: np.ndarray, thresh: float
) -> np.ndarray:
    """The lines, ``factor`` times as wide; their own pixels where that is 1."""
    factor = math.sqrt(math.log(thresh) / math.log(OWN_WIDTH_THRESH))
    within = distance < factor * half
    if factor >= 1:
        return np.where(lines > 0, lines, np.where(within, near, 0))
    return np.where(within, lines, 0)


def _orientation_deg(centre: np.ndarray, theta_px: float) -> np.ndarray:
    """float64 (H, W), 0..180 counter-clockwise from east, of the lines around each pixel.

    The main axis of the structure tensor lies across the line.
    """
    smooth = ndimage.gaussian_filter(centre.astype(np.float64), _BLUR_PX)
    down, right = np.gradient(smooth)
    reach = max(theta_px / 2, _BLUR_PX)
    across, along, both = (
        ndimage.gaussian_filter(product, reach)
        for product in (right * right, down * down, right * down)
    )
    normal = 0.5 * np.arctan2(2 * both, across - along)
    # Rows grow downwards, so the turn changes its sign.
    return np.asarray(np.rad2deg(-(normal + np.pi / 2)) % _HALF_TURN_DEG)
