"""What a point cloud model demands of the points it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import BundleError, ModelDataError


@dataclass(frozen=True, slots=True, kw_only=True)
class PointInput:
    """The blocks of a point cloud model, and what its scores mean.

    Parameters
    ----------
    block_size
        Side of a square block, in units of the training data's CRS (metres where it has them).
    scale
        Units of the CRS per unit of the network's coordinates: half a block for classification, 1
        for objects.
    max_points
        Most points of a block; a larger one is run in parts, see
        :func:`geodl.ops.point_blocks.limited_parts`.
    attributes
        What the network takes after x, y and z, by the names of exports (``intensity``,
        ``numberOfReturns``, ``returnNumber``, ``red``, ...), see
        :data:`geodl.formats.point_blocks.ATTRIBUTE_NAMES`.
    limits
        Per attribute its least and its largest values (one number per column), by which it is
        scaled to 0..1.
    codes
        LAS class code of each column of a classifier's scores; empty for objects.
    """

    block_size: float
    scale: float
    max_points: int
    attributes: tuple[str, ...] = ()
    limits: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.block_size > 0 and self.scale > 0 and self.max_points > 0):
            raise BundleError(
                f"a point model's block size ({self.block_size}), scale ({self.scale}) and most "
                f"points ({self.max_points}) must be above 0"
            )
        if len(self.limits) != len(self.attributes):
            raise BundleError(
                f"the model takes {len(self.attributes)} attributes of points but has limits for "
                f"{len(self.limits)}"
            )

    @property
    def columns(self) -> int:
        """Columns of the network's input: 3 + F."""
        return 3 + sum(len(low) for low, _ in self.limits)

    def encode(
        self, xyz: np.ndarray, attributes: Mapping[str, Any], centre_xy: tuple[float, float]
    ) -> np.ndarray:
        """A block as the network takes it; the same as in the training data.

        Parameters
        ----------
        xyz
            float64 (N, 3), coordinates in the CRS.
        attributes
            Name to raw values (N,) or (N, columns), at least those of ``attributes``.
        centre_xy
            Of the block. Its height is the median of the points', as in exports.

        Returns
        -------
        float32 (N, 3 + F)

        Raises
        ------
        ModelDataError
            An attribute that is missing or has other columns.
        """
        middle = np.array([*centre_xy, float(np.median(xyz[:, 2])) if len(xyz) else 0.0])
        parts = [((xyz - middle) / self.scale).astype(np.float32)]
        for name, (low, high) in zip(self.attributes, self.limits, strict=True):
            values = attributes.get(name)
            table = None if values is None else np.asarray(values).reshape(len(xyz), -1)
            if table is None or table.shape[1] != len(low):
                found = "lack it" if table is None else f"have {table.shape[1]}"
                raise ModelDataError(
                    f"The model takes the attribute {name!r} with {len(low)} columns; the points "
                    f"{found}. Use a model that was trained without it."
                )
            span = np.where(np.asarray(high) > np.asarray(low), np.subtract(high, low), 1.0)
            parts.append(((table.astype(np.float64) - low) / span).astype(np.float32))
        return np.concatenate(parts, axis=1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, read by :meth:`from_json`."""
        return {
            "block_size": self.block_size,
            "scale": self.scale,
            "max_points": self.max_points,
            "attributes": list(self.attributes),
            "limits": [[list(low), list(high)] for low, high in self.limits],
            "codes": list(self.codes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PointInput:
        """The opposite of :meth:`to_json`.

        Raises
        ------
        KeyError, TypeError, ValueError
            Values that are missing or of another type.
        """
        return cls(
            block_size=float(value["block_size"]),
            scale=float(value["scale"]),
            max_points=int(value["max_points"]),
            attributes=tuple(map(str, value["attributes"])),
            limits=tuple(
                (tuple(map(float, low)), tuple(map(float, high))) for low, high in value["limits"]
            ),
            codes=tuple(map(int, value["codes"])),
        )
