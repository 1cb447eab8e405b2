"""Lines one pixel wide, and how well two sets of them agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import ndimage

from geodl.base.packages import require

# Half the width of the widest line that reaches the image's edge as it should.
_REACH = 12


def thin(mask: np.ndarray) -> np.ndarray:
    """The centre lines of a mask (Zhang and Suen 1984), 8-connected and one pixel wide.

    Parameters
    ----------
    mask
        bool (H, W).

    Returns
    -------
    bool (H, W)

    Raises
    ------
    MissingPackageError
        scikit-image is not installed.
    """
    if not mask.any():
        return np.zeros(mask.shape, bool)
    # Outside counts as empty, so lines that leave the image would end half their width before.
    padded = np.pad(mask, _REACH, mode="edge")
    found = require("skimage.morphology", "maps").skeletonize(padded)
    return np.asarray(found, bool)[_REACH:-_REACH, _REACH:-_REACH]


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Pixels of found and true edges, and how many of each have the other within reach.

    Counts of several images add up.
    """

    found: int = 0
    found_right: int = 0
    true: int = 0
    true_found: int = 0

    def __add__(self, other: Self) -> EdgeCounts:
        return EdgeCounts(
            self.found + other.found,
            self.found_right + other.found_right,
            self.true + other.true,
            self.true_found + other.true_found,
        )

    @property
    def precision(self) -> float:
        """Share of the found edge that is right; 0 where nothing was found."""
        return self.found_right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the true edge that was found; 0 where there is none."""
        return self.true_found / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def match_edges(found: np.ndarray, true: np.ndarray, tolerance_px: float) -> EdgeCounts:
    """Count edge pixels that have one of the other kind within a distance.

    Parameters
    ----------
    found, true
        bool (H, W); thinned by the caller where that is wanted.
    tolerance_px
        Distance between pixel centres, itself included.
    """
    return EdgeCounts(
        found=int(found.sum()),
        found_right=int((found & _near(true, tolerance_px)).sum()),
        true=int(true.sum()),
        true_found=int((true & _near(found, tolerance_px)).sum()),
    )


def _near(mask: np.ndarray, distance_px: float) -> np.ndarray:
    if not mask.any():
        return np.zeros(mask.shape, bool)
    near: np.ndarray = ndimage.distance_transform_edt(~mask) <= distance_px
    return near
