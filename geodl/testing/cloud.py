"""Generated point clouds: hilly ground, buildings and trees, of any size and point format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.packages import require

_STRIP_POINTS = 1_000_000
_SPACING = 40.0
"""One building or group of trees stands in each square of this side, in units of the CRS."""


def make_cloud(
    path: str | os.PathLike[str],
    *,
    points: int = 20_000,
    side: float = 100.0,
    origin: tuple[float, float] = (500_000.0, 5_500_000.0),
    point_format: int = 6,
    version: str | None = None,
    crs: Any = 32633,
    extra: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> Path:
    """Write a cloud of ground (2), high vegetation (5) and buildings (6).

    Points come in flight lines along x, at most a million in memory at once. Roofs are flat, trees
    are cones of scattered points; each square of 40 units has one building or trees.

    Parameters
    ----------
    path
        ``.las`` or ``.laz``.
    points
        Their number.
    side
        Of the square they lie in, in units of the CRS; its lower left corner is ``origin``.
    point_format, version
        LAS point format, and version; None takes the oldest that has the format.
    crs
        EPSG code, or None for a file without CRS.
    extra
        Names and types of extra dimensions, ``("height", "f4")`` or ``("echo", "3u2")``; random
        values.

    Returns
    -------
    ``path``

    Raises
    ------
    MissingPackageError
        laspy is not installed.
    """
    laspy = require("laspy", "points")
    target = Path(path)
    header = laspy.LasHeader(version=version, point_format=point_format)
    header.scales = np.array([0.01, 0.01, 0.01])
    header.offsets = np.array([*origin, 0.0])
    for name, kind in extra:
        header.add_extra_dim(laspy.ExtraBytesParams(name=name, type=kind))
    if crs is not None:
        from pyproj import CRS

        header.add_crs(CRS.from_user_input(crs))
    with laspy.open(target, mode="w", header=header) as writer:
        for xyz, codes, generator in _strips(points, side, origin, seed):
            writer.write_points(_record(laspy, header, xyz, codes, generator))
    return target


def _strips(
    points: int, side: float, origin: tuple[float, float], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.random.Generator]]:
    count = max(1, -(-points // _STRIP_POINTS))
    for strip in range(count):
        generator = np.random.default_rng([seed, strip])
        size = points // count + (strip < points % count)
        low, high = side * strip / count, side * (strip + 1) / count
        xy = generator.uniform([0, low], [side, high], (size, 2))
        z, codes = scene_heights(xy, generator)
        yield np.column_stack([xy + origin, z]), codes, generator


def scene_heights(xy: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Heights float64 (N,) and class codes uint8 (N,) of points (N, 2) from the scene's corner."""
    x, y = xy.T
    ground = 100 + 2 * np.sin(x / 60) + 2 * np.cos(y / 80)
    column, row = np.floor(xy / _SPACING).astype(np.int64).T
    u, v = (xy / _SPACING % 1).T
    mixed = (column * 7919 + row * 104729) % 97
    building = (mixed % 2 == 0) & (abs(u - 0.5) < 0.25) & (abs(v - 0.5) < 0.2)
    # The roof is level: it lies over the ground in the middle of its square.
    middle = (np.stack([column, row], axis=1) + 0.5) * _SPACING
    base = 100 + 2 * np.sin(middle[:, 0] / 60) + 2 * np.cos(middle[:, 1] / 80)
    radius = np.hypot(u - 0.5, v - 0.5)
    tree = (mixed % 2 == 1) & (radius < 0.22) & (generator.random(len(xy)) < 0.7)
    crown = (2 + 10 * (1 - radius / 0.22)) * generator.uniform(0.3, 1, len(xy))
    z = np.where(building, base + 5 + mixed % 5, ground) + np.where(tree, crown, 0)
    codes = np.where(building, 6, np.where(tree, 5, 2)).astype(np.uint8)
    return z + generator.normal(0, 0.02, len(xy)), codes


def _record(
    laspy: Any, header: Any, xyz: np.ndarray, codes: np.ndarray, generator: np.random.Generator
) -> Any:
    record = laspy.ScaleAwarePointRecord.zeros(len(xyz), header=header)
    record.x, record.y, record.z = xyz.T
    record.classification = codes
    record.intensity = generator.integers(0, 2000, len(xyz))
    record.return_number[:] = 1
    record.number_of_returns[:] = np.where(codes == 5, 3, 1)
    names = set(header.point_format.dimension_names)
    if "gps_time" in names:
        record.gps_time = np.arange(len(xyz)) * 1e-5
    for name in ("red", "green", "blue", "nir"):
        if name in names:
            record[name] = generator.integers(0, 65536, len(xyz))
    for dimension in header.point_format.extra_dimensions:
        shape = (len(xyz), dimension.num_elements)[: 1 + (dimension.num_elements > 1)]
        record[dimension.name] = generator.integers(0, 100, shape)
    return record
