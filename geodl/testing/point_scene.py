"""Generated point clouds of a small town, with classes and oriented boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodl.base.files import write_json
from geodl.base.packages import require
from geodl.formats.pctd_writer import (
    class_mask,
    write_blocks,
    write_list_table,
    write_point_statistics,
)
from geodl.ops.point_blocks import limited_parts, overlapping_blocks

GROUND, TREE, BUILDING, CAR = 2, 5, 6, 64
CAR_OBJECT, BUILDING_OBJECT = 1, 2
_CAR_M = (4.4, 1.8, 1.5)
_RETURNS = {GROUND: 1, TREE: 3, BUILDING: 1, CAR: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class PointScene:
    """One square of a town; metres, x and y from 0 to ``side``.

    Parameters
    ----------
    xyz
        float64 (N, 3).
    codes
        uint8 (N,): 2 ground, 5 trees, 6 buildings, 64 cars.
    attributes
        ``intensity`` uint16 (N,) and ``numberOfReturns`` uint8 (N,).
    boxes
        float64 (M, 7): x, y, z of the bottom, length, width, height, yaw.
    labels
        int64 (M,): 1 car, 2 building.
    """

    side: float
    xyz: NDArray[np.float64]
    codes: NDArray[np.uint8]
    attributes: dict[str, NDArray[Any]]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]


def point_scene(
    seed: int,
    *,
    side: float = 48.0,
    density: float = 6.0,
    cars: int = 6,
    buildings: int = 2,
    trees: int = 5,
) -> PointScene:
    """A square of a town on a slope.

    Parameters
    ----------
    density
        Points per square metre of surface.
    """
    rng = np.random.default_rng(seed)
    slope = rng.uniform(-0.03, 0.03, 2)
    boxes = _boxes(rng, side, cars, buildings, slope)
    labels = np.array([CAR_OBJECT] * cars + [BUILDING_OBJECT] * buildings, np.int64)[: len(boxes)]
    parts = [_surface(rng, box, density) for box in boxes]
    codes = [CAR if label == CAR_OBJECT else BUILDING for label in labels]
    for _ in range(trees):
        place = rng.uniform(4, side - 4, 2)
        if all(np.hypot(*(place - box[:2])) > box[3] / 2 + 4 for box in boxes):
            parts.append(_tree(rng, place, float(place @ slope), density))
            codes.append(TREE)
    ground = rng.uniform(0, side, (int(density * side**2), 2))
    ground = ground[~np.any([_inside(ground, box) for box in boxes], axis=0)]
    parts.append(np.column_stack([ground, ground @ slope]))
    codes.append(GROUND)
    xyz = np.concatenate(parts)
    code = np.repeat(np.array(codes, np.uint8), [len(part) for part in parts])
    xyz = xyz + rng.normal(0, 0.03, xyz.shape)
    returns = np.array([_RETURNS[c] for c in code.tolist()]) + (rng.random(len(code)) < 0.1)
    keep = ((xyz[:, :2] >= 0) & (xyz[:, :2] < side)).all(axis=1)
    return PointScene(
        side=side,
        xyz=xyz[keep],
        codes=code[keep],
        attributes={
            "intensity": rng.integers(100, 1000, int(keep.sum())).astype(np.uint16),
            "numberOfReturns": returns[keep].astype(np.uint8),
        },
        boxes=boxes,
        labels=labels,
    )


def _boxes(
    rng: np.random.Generator, side: float, cars: int, buildings: int, slope: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cars, then buildings, none near another."""
    sizes = [tuple(np.array(_CAR_M) * rng.uniform(0.9, 1.1, 3)) for _ in range(cars)]
    sizes += [(rng.uniform(9, 13), rng.uniform(6, 9), rng.uniform(4, 7)) for _ in range(buildings)]
    found: list[NDArray[np.float64]] = []
    # Large ones first: they find no place later.
    for length, width, height in reversed(sizes):
        while True:
            place = rng.uniform(length / 2 + 1, side - length / 2 - 1, 2)
            apart = [np.hypot(*(place - box[:2])) > (length + box[3]) / 2 + 1.5 for box in found]
            if all(apart):
                break
        yaw = rng.uniform(-np.pi, np.pi)
        found.append(np.array([*place, place @ slope, length, width, height, yaw]))
    return np.array(found[::-1]).reshape(-1, 7)


def _turned(flat: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turned: NDArray[np.float64] = flat @ np.array([[cos, sin], [-sin, cos]]) + box[:2]
    return turned


def _inside(xy: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool (N,): within the box, seen from above."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    own = (xy - box[:2]) @ np.array([[cos, -sin], [sin, cos]])
    within: NDArray[np.bool_] = (np.abs(own) < box[3:5] / 2).all(axis=1)
    return within


def _surface(
    rng: np.random.Generator, box: NDArray[np.float64], density: float
) -> NDArray[np.float64]:
    """Points on the top of a box, and fewer on its sides."""
    length, width, height = box[3:6]
    top = rng.uniform(-0.5, 0.5, (max(12, int(2 * density * length * width)), 2))
    top = np.column_stack([top * (length, width), np.full(len(top), height)])
    around = rng.uniform(-0.5, 0.5, (max(12, int(density * (length + width) * height)), 2))
    long = rng.random(len(around)) < length / (length + width)
    edge = np.where(rng.random(len(around)) < 0.5, -0.5, 0.5)
    sides = np.column_stack(
        [
            np.where(long, around[:, 0], edge) * length,
            np.where(long, edge, around[:, 0]) * width,
            (around[:, 1] + 0.5) * height,
        ]
    )
    local = np.concatenate([top, sides])
    return np.column_stack([_turned(local[:, :2], box), local[:, 2] + box[2]])


def _tree(
    rng: np.random.Generator, place: NDArray[np.float64], ground: float, density: float
) -> NDArray[np.float64]:
    """A crown: points all through an ellipsoid."""
    radius, height = rng.uniform(1.5, 3), rng.uniform(3, 5)
    points = rng.normal(size=(int(12 * density * radius), 3))
    points *= (rng.random(len(points)) ** (1 / 3) / np.linalg.norm(points, axis=1))[:, None]
    crown: NDArray[np.float64] = points * (radius, radius, height / 2)
    return crown + np.array([*place, ground + 1 + height / 2])


def classified_export(
    folder: Path,
    *,
    train: int = 2,
    valid: int = 1,
    block_size: float = 24.0,
    max_points: int = 512,
    **scene: Any,
) -> Path:
    """A ``.pctd`` export of generated scenes; one file for each. Returns ``folder``."""
    written: dict[str, list[Any]] = {}
    for name, seeds in (("train", range(train)), ("val", range(100, 100 + valid))):
        written[name] = []
        for seed in seeds:
            found = point_scene(seed, **scene)
            blocks = []
            generator = np.random.default_rng(seed)
            for centre, positions in overlapping_blocks(found.xyz[:, :2], block_size):
                middle = np.array([*centre, float(np.median(found.xyz[positions, 2]))])
                parts = limited_parts(positions, max_points, generator)
                blocks += [(middle, part) for part in parts]
            target = folder / name / f"scene_{seed}.h5"
            written[name].append(
                write_blocks(target, found.xyz, found.codes, found.attributes, blocks, block_size)
            )
    every = [part for files in written.values() for part in files]
    limits = {
        key: (min(p.limits[key][0] for p in every), max(p.limits[key][1] for p in every))
        for key in ("intensity", "numberOfReturns")
    }
    for name, files in written.items():
        write_list_table(folder / name, files)
        write_point_statistics(folder / name, files, limits, max_points=max_points, side=block_size)
    return folder


def object_export(
    folder: Path, *, train: int = 3, valid: int = 2, seed: int = 0, **scene: Any
) -> Path:
    """A ``.pcotd`` export: each generated scene is a block with its cars (1) and buildings (2).

    Returns ``folder``.
    """
    for name, seeds in (
        ("train", range(seed, seed + train)),
        ("val", range(seed + 1000, seed + 1000 + valid)),
    ):
        _write_objects(folder / name, [point_scene(number, **scene) for number in seeds])
    return folder


def _write_objects(folder: Path, scenes: Sequence[PointScene]) -> None:
    h5py = require("h5py", "points")
    folder.mkdir(parents=True)
    scale = scenes[0].side / 2
    middles = [np.array([s.side / 2, s.side / 2, 0.0]) for s in scenes]
    counts = [len(s.xyz) for s in scenes]
    boxes = [_stored(s, m, scale) for s, m in zip(scenes, middles, strict=True)]
    with h5py.File(folder / "scenes.h5", "w") as file:
        file["xyz"] = np.concatenate(
            [(s.xyz - m) / scale for s, m in zip(scenes, middles, strict=True)]
        ).astype(np.float32)
        for key in ("intensity", "numberOfReturns"):
            file[key] = np.concatenate([s.attributes[key] for s in scenes])
        file["orientedBoundingBox"] = np.concatenate(boxes)
        # Every object lies in its block with all its points.
        file["orientedBoundingBoxCount"] = np.full((sum(map(len, boxes)), 2), 10)
        file["objectCode"] = np.concatenate([s.labels for s in scenes])
    firsts = np.cumsum([0, *counts])
    box_firsts = np.cumsum([0, *map(len, boxes)])
    tiles = [(0, firsts[i], counts[i], box_firsts[i], len(boxes[i])) for i in range(len(scenes))]
    with h5py.File(folder / "ListTable.h5", "w") as file:
        file["Files"] = np.array([b"scenes.h5"])
        file["Tiles"] = np.array(tiles, np.int64)
        file["ObjectMasks"] = np.stack([class_mask(s.labels) for s in scenes])
        file["Centers"] = np.stack(middles)
    write_json(folder / "Statistics.json", _object_statistics(scenes, boxes, scale))


def _stored(scene: PointScene, middle: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """float64 (M, 8) boxes as files hold them."""
    x, y, z, length, width, height, yaw = scene.boxes.T
    return np.column_stack(
        [
            (x - middle[0]) / scale, (y - middle[1]) / scale, np.cos(yaw), np.sin(yaw),
            length / 2 / scale, width / 2 / scale,
            (z - middle[2]) / scale, (z + height - middle[2]) / scale,
        ]
    )  # fmt: skip


def _object_statistics(
    scenes: Sequence[PointScene], boxes: Sequence[NDArray[np.float64]], scale: float
) -> dict[str, Any]:
    every, labels = np.concatenate(boxes), np.concatenate([s.labels for s in scenes])
    table = []
    for code in np.unique(labels).tolist():
        own = every[labels == code]
        sizes = np.column_stack([2 * own[:, 4], 2 * own[:, 5], own[:, 7] - own[:, 6]])
        table.append(
            {
                "classCode": code,
                "orientedBoundingBoxAverageLength": sizes.mean(axis=0).tolist(),
                "orientedBoundingBoxZ": {
                    "min": [float(own[:, 6].min())],
                    "max": [float(own[:, 7].max())],
                },
            }
        )
    returns = np.concatenate([s.attributes["numberOfReturns"] for s in scenes])
    return {
        "parameters": {
            "maxPoints": max(len(s.xyz) for s in scenes),
            "tileSize": scenes[0].side,
            "scaleFactor": scale,
            "excludedClasses": [],
        },
        "attributes": {
            "intensity": {"min": 100, "max": 1000},
            "numberOfReturns": {"min": 1, "max": max(4, int(returns.max()))},
        },
        "tileStatistics": {"classification": {"table": table}},
        "numberOfStoredOrientedBoundingBoxes": len(every),
        "blockShape": "square",
    }
