"""The data objects of point clouds, and how blocks become batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from geodl.core.contract import IGNORE_INDEX
from geodl.data.sample_data import SampleData
from geodl.data.store import ChipStore


def collate_points(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join blocks to a batch, padded at their end to the longest.

    Returns
    -------
    ``points`` float32 (B, M, 3 + F), padded with 0; ``length`` int64 (B,), points of each block;
    ``target`` int64 (B, M), padded with ``IGNORE_INDEX``, or for objects the list of targets;
    ``name`` list of str.
    """
    lengths = [len(item["points"]) for item in items]
    longest, columns = max(lengths), items[0]["points"].shape[1]
    points = torch.zeros(len(items), longest, columns)
    for row, item in zip(points, items, strict=True):
        row[: len(item["points"])] = item["points"]
    targets: Any = [item["target"] for item in items]
    if isinstance(targets[0], torch.Tensor):
        padded = torch.full((len(items), longest), IGNORE_INDEX, dtype=torch.int64)
        for row, target in zip(padded, targets, strict=True):
            row[: len(target)] = target
        targets = padded
    return {
        "points": points,
        "length": torch.tensor(lengths),
        "target": targets,
        "name": [item["name"] for item in items],
    }


@dataclass(kw_only=True, eq=False, repr=False)
class PointData(SampleData):
    """Blocks of points.

    Attributes
    ----------
    max_points
        Most points of a block.
    typical_points
        Points of the block in the middle, when the training blocks are ordered by their number.
    tile_size
        Side or diameter of a block, in units of the CRS.
    scale
        Units of the CRS per unit of the items' coordinates; 1 for objects.
    unit_m
        Metres in a unit of the CRS; None where the export does not say.
    extra_features
        Attributes after x, y and z.
    features
        Columns of ``points``: 3 and those of the attributes.
    limits
        Attribute to its least and largest value in the export, by which it is scaled to 0..1.
    codes
        Class values of the points: those of the table, and 0 first where some have it; for
        objects those of the table.
    """

    max_points: int
    typical_points: int
    tile_size: float
    scale: float
    extra_features: tuple[str, ...]
    features: int
    limits: Mapping[str, tuple[np.ndarray, np.ndarray]]
    codes: tuple[int, ...]
    unit_m: float | None = None

    @staticmethod
    def default_collate(items: list[dict[str, Any]]) -> Any:
        """Join items as :func:`collate_points` does."""
        return collate_points(items)

    def scaled_by(self, limits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Self:
        """The same blocks with attributes scaled by other limits, those of a model.

        Parameters
        ----------
        limits
            Attribute to its least and largest value.
        """
        same = all(
            np.array_equal(np.stack(pair), np.stack(self.limits[name]))
            for name, pair in limits.items()
        )
        if same:
            return self
        return replace(
            self,
            limits=dict(limits),
            train_ds=_scaled_items(self.train_ds, limits),
            valid_ds=_scaled_items(self.valid_ds, limits),
        )

    def draw(self, rows: int) -> Any:
        from geodl.data.draw_points import draw_blocks

        return draw_blocks(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        names = ", ".join(("x", "y", "z", *self.extra_features))
        return [
            ("blocks", f"of {self.tile_size:g} units, at most {self.max_points} points"),
            ("points", f"{names} ({self.features} columns)"),
        ]


def _scaled_items(items: Any, limits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """A set of blocks that are read with other limits."""
    sets: dict[int, Any] = {}
    refs = []
    for ref in items.store.chips:
        if id(ref.blocks) not in sets:
            facts = replace(ref.blocks.facts, limits={**ref.blocks.facts.limits, **limits})
            sets[id(ref.blocks)] = replace(ref.blocks, facts=facts)
        refs.append(replace(ref, blocks=sets[id(ref.blocks)]))
    found = copy(items)
    found.store = ChipStore(refs, items.store.load, items.store.limit_bytes)
    return found


@dataclass(kw_only=True, eq=False, repr=False)
class ObjectPointData(PointData):
    """Blocks of points with the boxes of objects.

    Attributes
    ----------
    average_sizes
        Class value to the average length, width and height of its objects, in units of the CRS.
    z_ranges
        Class value to the least and largest z of its objects around the block's origin.
    """

    average_sizes: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    z_ranges: dict[int, tuple[float, float]] = field(default_factory=dict)
