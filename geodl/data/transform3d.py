"""Augmentation of blocks of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geodl.base.errors import OptionError
from geodl.base.options import as_float, check_known

# Share of the blocks that are changed.
PROBABILITY = 0.5


class Transform3d:
    """Turn, scale and jitter blocks of points; each block is changed with a chance of one half.

    Parameters
    ----------
    rotation
        Largest angle around x, y and z in degrees; drawn between plus and minus. Blocks with
        objects are turned around z only.
    scaling
        Largest change of size in percent, up or down: one factor per axis, for blocks with
        objects one for all.
    jitter
        Largest shift of each coordinate in metres (units of the CRS), 0..1; for classified points
        only.

    Raises
    ------
    OptionError, UnknownOptionError
        A number outside its domain; a keyword that nothing reads.
    """

    def __init__(
        self,
        rotation: Sequence[float] = [2.5, 2.5, 45],
        scaling: float = 5,
        jitter: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_known(kwargs, ("rotation", "scaling", "jitter"), "Transform3d()")
        if isinstance(rotation, (str, bytes)) or not isinstance(rotation, Sequence):
            raise OptionError(f"rotation={rotation!r} is no list of three angles in degrees.")
        if len(rotation) != 3:
            raise OptionError(f"rotation={list(rotation)} must hold three angles: around x, y, z.")
        self.rotation = [as_float(a, "rotation", minimum=0, maximum=360) for a in rotation]
        self.scaling = as_float(scaling, "scaling", minimum=0, maximum=99)
        self.jitter = as_float(jitter, "jitter", minimum=0, maximum=1)

    def __repr__(self) -> str:
        return (
            f"Transform3d(rotation={self.rotation}, scaling={self.scaling}, jitter={self.jitter})"
        )

    def points(self, xyz: Tensor, unit: float) -> Tensor:
        """Classified points, changed or as they are.

        Parameters
        ----------
        xyz
            float32 (N, 3).
        unit
            Units of the CRS per unit of ``xyz``.
        """
        if not _chosen():
            return xyz
        angles = [math.radians(_between(a)) for a in self.rotation]
        factors = torch.tensor([1 + _between(self.scaling / 100) for _ in range(3)])
        moved = (xyz @ rotation_matrix(*angles).T) * factors
        if self.jitter:
            moved = moved + (2 * torch.rand(xyz.shape) - 1) * (self.jitter / unit)
        return moved

    def objects(self, xyz: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Points and the boxes of objects, changed together or as they are.

        Parameters
        ----------
        xyz
            float32 (N, 3).
        boxes
            float32 (M, 7) in the same units: x, y, z bottom, length, width, height, yaw.
        """
        if not _chosen():
            return xyz, boxes
        angle = math.radians(_between(self.rotation[2]))
        factor = 1 + _between(self.scaling / 100)
        matrix = rotation_matrix(0.0, 0.0, angle)
        places = (boxes[:, :3] @ matrix.T) * factor
        # Yaw stays within -pi..pi, as atan2 gives it.
        yaw = boxes[:, 6:] + angle
        yaw = torch.atan2(torch.sin(yaw), torch.cos(yaw))
        return (xyz @ matrix.T) * factor, torch.cat([places, boxes[:, 3:6] * factor, yaw], dim=1)


def rotation_matrix(x: float, y: float, z: float) -> Tensor:
    """float32 (3, 3), turning around x first, then y, then z; radians, anticlockwise."""
    sin, cos = math.sin, math.cos
    around_x = torch.tensor([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
    around_y = torch.tensor([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
    around_z = torch.tensor([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
    return (around_z @ around_y @ around_x).float()


def _chosen() -> bool:
    return float(torch.rand(())) < PROBABILITY


def _between(limit: float) -> float:
    return (2 * float(torch.rand(())) - 1) * limit


def transforms_3d(transforms: Any) -> tuple[Transform3d | None, Transform3d | None]:
    """For training and validation, from the ``transforms`` argument of `prepare_data`.

    Parameters
    ----------
    transforms
        None or True: the defaults in training. False: none. A :class:`Transform3d`, for training;
        or a pair of these or None.

    Raises
    ------
    OptionError
        Anything else.
    """
    if transforms is None or transforms is True:
        return Transform3d(), None
    if transforms is False:
        return None, None
    pair = transforms if isinstance(transforms, (tuple, list)) else (transforms, None)
    if len(pair) != 2 or not all(one is None or isinstance(one, Transform3d) for one in pair):
        raise OptionError(
            f"transforms={transforms!r}: point clouds take a Transform3d, a pair "
            "(training, validation) of them, None for the default or False for none."
        )
    return pair[0], pair[1]
