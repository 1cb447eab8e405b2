"""Labels of chips beyond boxes and class masks: instances, whole chips, and none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class InstanceLabels:
    """Objects of a chip, pixel for pixel; they may overlap.

    Parameters
    ----------
    masks
        bool (N, H, W), at least one pixel each.
    values
        int64 (N,), class values.
    """

    masks: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def boxes(self) -> np.ndarray:
        """float64 (N, 4): x0, y0, x1, y1 in pixel edges around each mask."""
        found = np.zeros((len(self.masks), 4))
        for box, mask in zip(found, self.masks, strict=True):
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box[:] = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
        return found


@dataclass(frozen=True, slots=True)
class TileLabels:
    """Classes of a whole chip: none, one, or several.

    Parameters
    ----------
    values
        int64 (N,), class values, ascending, each once.
    """

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, values: object) -> TileLabels:
        """From class values in any order; 0 is left out."""
        found = np.unique(np.asarray(values, np.int64).reshape(-1))
        return cls(found[found != 0])


@dataclass(frozen=True, slots=True)
class PanopticLabels:
    """The class of every pixel, and the objects of the countable classes.

    Parameters
    ----------
    values
        int (H, W), class values; 0 is background.
    instances
        Objects; their classes are classes of ``values`` too.
    """

    values: np.ndarray
    instances: InstanceLabels


@dataclass(frozen=True, slots=True)
class NoLabel:
    """The label of a chip that is an image alone.

    Parameters
    ----------
    covered
        Whether some label lies on the chip's ground; only while chips are chosen.
    """

    covered: bool = False

    @property
    def values(self) -> np.ndarray:
        return np.zeros(0, np.int64)

    def __len__(self) -> int:
        return 0


def no_instances(shape_yx: tuple[int, int]) -> InstanceLabels:
    return InstanceLabels(np.zeros((0, *shape_yx), bool), np.zeros(0, np.int64))
