"""Point clouds cut into tiles, and what a model for points demands of its input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import BundleError, DataError, ModelDataError, PlanError

Bounds = tuple[float, float, float, float]
"""Least x, least y, greatest x, greatest y."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTile:
    """Points of a square core and of a buffer around it.

    Parameters
    ----------
    core
        Bounds that hold the tile's own points: from the least inclusive to the greatest exclusive.
    xyz
        float64 (N, 3), CRS of the cloud, points of core and buffer ordered by source and index.
    attributes
        Dimension to its values (N,) or (N, columns), in the file's own dtype.
    source
        int32 (N,): which file of the cloud a point comes from.
    index
        int64 (N,): its place in that file.
    """

    row: int
    col: int
    core: Bounds
    xyz: np.ndarray
    attributes: Mapping[str, np.ndarray]
    source: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def inside(self) -> np.ndarray:
        """bool (N,): the points of the core; each point of a cloud is in one tile's core."""
        return inside(self.xyz, self.core)


def inside(xyz: np.ndarray, bounds: Bounds) -> np.ndarray:
    """bool (N,): where points (N, 2 or more) lie in half-open bounds."""
    x, y = xyz[:, 0], xyz[:, 1]
    return (x >= bounds[0]) & (y >= bounds[1]) & (x < bounds[2]) & (y < bounds[3])


def lattice_index(values: np.ndarray, side: float) -> np.ndarray:
    """int64 numbers n with ``n * side <= value < (n + 1) * side``, in floating point.

    Raises
    ------
    DataError
        Coordinates that are not finite.
    """
    found = np.floor(values / side)
    strange = len(found) - int(np.isfinite(found).sum())
    if strange:
        raise DataError(
            f"{strange} of {len(found)} coordinates are not finite, as where a CRS cannot express "
            "a place. Drop these points first, with points.isel(point=...)."
        )
    found -= values < found * side
    found += values >= (found + 1) * side
    return found.astype(np.int64)


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """int64 (M,): the first of each run of rows (N,) that are equal in all columns."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(new)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTileSpec:
    """One tile of a plan; small and picklable.

    Parameters
    ----------
    core, read
        Bounds of the core, and of core and buffer.
    """

    row: int
    col: int
    core: Bounds
    read: Bounds

    @property
    def key(self) -> tuple[int, int]:
        return self.row, self.col

    @property
    def name(self) -> str:
        return f"tile {self.row},{self.col}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPlan:
    """Square tiles over a cloud, on a lattice anchored at the origin of its CRS.

    Parameters
    ----------
    size
        Side of a core, in units of the CRS.
    buffer
        What is seen around it on each side.
    tiles
        (row, col) of the tiles that hold a point; tile (i, j) owns
        ``[j * size, (j + 1) * size) x [i * size, (i + 1) * size)``.

    Raises
    ------
    PlanError
        A side that is not above 0, or a buffer below 0.
    """

    size: float
    buffer: float
    tiles: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size) and self.size > 0):
            raise PlanError(f"a tile of {self.size:g} units has no area; give a size above 0")
        if not (math.isfinite(self.buffer) and self.buffer >= 0):
            raise PlanError(f"a buffer of {self.buffer:g} units is none; give 0 or more")

    def __len__(self) -> int:
        return len(self.tiles)

    def blocks(self) -> Iterator[PointTileSpec]:
        for row, col in self.tiles:
            yield self.tile(row, col)

    def tile(self, row: int, col: int) -> PointTileSpec:
        size, pad = self.size, self.buffer
        core = (col * size, row * size, (col + 1) * size, (row + 1) * size)
        read = (core[0] - pad, core[1] - pad, core[2] + pad, core[3] + pad)
        return PointTileSpec(row=row, col=col, core=core, read=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFeature:
    """An attribute that a network takes besides x, y and z.

    Parameters
    ----------
    name
        As in an export: ``intensity``, ``numberOfReturns``, ``nearInfrared``, an extra dimension.
    minimum, maximum
        Per column; values are scaled to ``(v - minimum) / (maximum - minimum)``, 0 where both are
        equal.
    """

    name: str
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """float32 (N, columns) of raw values (N,) or (N, columns)."""
        low, high = np.asarray(self.minimum), np.asarray(self.maximum)
        span = np.where(high > low, high - low, 1.0)
        table = np.asarray(values, np.float64).reshape(len(values), -1)
        result: np.ndarray = ((table - low) / span).astype(np.float32)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class PointInput:
    """The blocks that a model for points was trained on.

    Parameters
    ----------
    block_size
        Side of a block, in units of the CRS.
    max_points
        Most points of a block; one with more is run in parts.
    scale
        Units of the CRS per unit of the network's coordinates: half a block in exports of today.
    features
        What the network takes after x, y and z, in its order.
    codes
        Class code of each column of a classifier's scores; empty for objects.
    unit_m
        Metres in a unit of the CRS of the training data; None where that is not known.
    """

    block_size: float
    max_points: int
    scale: float
    features: tuple[PointFeature, ...] = ()
    codes: tuple[int, ...] = ()
    unit_m: float | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "max_points", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BundleError(f"the model's {name} is {value!r}; expected a number above 0")

    @property
    def columns(self) -> int:
        """Columns of the network's input: 3 and those of the features."""
        return 3 + sum(len(feature.minimum) for feature in self.features)

    def encode(
        self, xyz: np.ndarray, attributes: Mapping[str, Any], centre_xy: tuple[float, float]
    ) -> np.ndarray:
        """A block as the network takes it; the same as in the training data.

        Parameters
        ----------
        xyz
            float64 (N, 3), coordinates in the CRS.
        attributes
            Name of a feature to its raw values (N,) or (N, columns).
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
        for feature in self.features:
            values = attributes.get(feature.name)
            columns = 0 if values is None else int(np.prod(np.shape(values)[1:]))
            if columns != len(feature.minimum):
                raise ModelDataError(
                    f"The model takes the attribute {feature.name!r} with {len(feature.minimum)} "
                    f"columns; the points have {columns}. Use a model that was trained without it."
                )
            parts.append(feature.scaled(np.asarray(values)))
        return np.concatenate(parts, axis=1)

    def to_json(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "max_points": self.max_points,
            "scale": self.scale,
            "features": [
                {"name": f.name, "min": list(f.minimum), "max": list(f.maximum)}
                for f in self.features
            ],
            "codes": list(self.codes),
            "unit_m": self.unit_m,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PointInput:
        """From :meth:`to_json`.

        Raises
        ------
        BundleError
            Keys that are missing or no numbers.
        """
        try:
            features = tuple(
                PointFeature(
                    name=str(entry["name"]),
                    minimum=_numbers(entry["min"]),
                    maximum=_numbers(entry["max"]),
                )
                for entry in value.get("features", ())
            )
            return cls(
                block_size=float(value["block_size"]),
                max_points=int(value["max_points"]),
                scale=float(value["scale"]),
                features=features,
                codes=tuple(int(code) for code in value.get("codes", ())),
                unit_m=None if value.get("unit_m") is None else float(value["unit_m"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"the description of the model's blocks is broken: {error}"
            ) from error


def other_unit(one: float | None, other: float | None) -> bool:
    """Whether two units in metres are known and differ by more than a hundredth."""
    return one is not None and other is not None and not math.isclose(one, other, rel_tol=0.01)


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
