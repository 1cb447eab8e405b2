"""RandLA-Net: random sampling and local feature aggregation (Hu et al. 2020, 1911.11236)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geodl.nets.point_layers import SLOPE, PointMLP, ShapeColumns

_STEM = 8
_DROPOUT = 0.5


class LocalSpatialEncoding(nn.Module):
    """Neighbours' features with their encoded places (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode = PointMLP(10, channels)

    def forward(self, features: Tensor, geometry: Tensor, neighbours: Tensor) -> Tensor:
        """(S, C) to (S, k, 2 C)."""
        return torch.cat([features[neighbours], self.encode(geometry)], dim=2)


class AttentivePooling(nn.Module):
    """A weighted sum over neighbours, with weights of their own for each feature."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.attend = nn.Linear(inputs, inputs, bias=False)
        self.mix = PointMLP(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(S, k, C) to (S, outputs)."""
        weights = torch.softmax(self.attend(x), dim=1)
        mixed: Tensor = self.mix((x * weights).sum(dim=1))
        return mixed


class DilatedResidualBlock(nn.Module):
    """Two rounds of encoding and pooling, so that k^2 neighbours are seen, and a shortcut.

    Gives ``2 * channels`` features.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.enter = PointMLP(inputs, half)
        self.near = LocalSpatialEncoding(half)
        self.near_pool = AttentivePooling(2 * half, half)
        self.far = LocalSpatialEncoding(half)
        self.far_pool = AttentivePooling(2 * half, channels)
        self.leave = PointMLP(channels, 2 * channels, active=False)
        self.shortcut = PointMLP(inputs, 2 * channels, active=False)

    def forward(self, features: Tensor, geometry: Tensor, neighbours: Tensor) -> Tensor:
        """(S, inputs) to (S, 2 * channels)."""
        x = self.near_pool(self.near(self.enter(features), geometry, neighbours))
        x = self.far_pool(self.far(x, geometry, neighbours))
        return nn.functional.leaky_relu(self.leave(x) + self.shortcut(features), SLOPE)


def local_geometry(xyz: Tensor, neighbours: Tensor, spacing: float) -> Tensor:
    """float32 (S, k, 10): a point's place, its neighbours' places, their offsets and distances.

    Offsets are in units of the level's usual spacing; in half blocks they would vanish beside the
    places.
    """
    around = xyz[neighbours]
    own = xyz.unsqueeze(1).expand_as(around)
    offset = (own - around) / spacing
    return torch.cat([own, around, offset, offset.norm(dim=2, keepdim=True)], dim=2)


class PointEncoder(nn.Module):
    """The levels of aggregation and random sampling.

    Parameters
    ----------
    inputs
        Columns of the points, those of `ShapeColumns` included.
    channels
        Per level; it gives twice as many features.
    spacings
        Usual distance of neighbours per level, in half blocks.
    """

    def __init__(self, inputs: int, channels: Sequence[int], spacings: Sequence[float]) -> None:
        super().__init__()
        self.shape = ShapeColumns()
        self.spacings = tuple(spacings)
        self.stem = PointMLP(inputs, _STEM)
        widths = [_STEM, *(2 * c for c in channels)]
        self.blocks = nn.ModuleList(
            DilatedResidualBlock(width, c) for width, c in zip(widths[:-1], channels, strict=True)
        )
        self.widths = tuple(widths)

    def columns_of(self, points: Tensor, levels: Mapping[str, Any]) -> Tensor:
        """float32 (S, inputs): columns of the packed points, and of their surroundings."""
        columns = points.flatten(0, 1)[levels["order"]]
        shape = self.shape(columns[:, :3], levels["block"], levels["neighbours"][0])
        return torch.cat([columns, shape], dim=1)

    def aggregated(
        self, columns: Tensor, levels: Mapping[str, Any]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per level, its features before sampling; places and features of the points kept."""
        xyz, features = columns[:, :3], self.stem(columns)
        for i, block in enumerate(self.blocks):
            neighbours = levels["neighbours"][i]
            geometry = local_geometry(xyz, neighbours, self.spacings[i])
            whole = block(features, geometry, neighbours)
            kept = levels["down"][i]
            features, xyz = whole[kept], xyz[kept]
            yield whole, xyz, features

    def sampled(
        self, columns: Tensor, levels: Mapping[str, Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Places (S_l, 3) and features of the points that each level keeps."""
        found = [(xyz, features) for _, xyz, features in self.aggregated(columns, levels)]
        return [xyz for xyz, _ in found], [features for _, features in found]

    def forward(self, points: Tensor, levels: Mapping[str, Any]) -> list[Tensor]:
        """Features of each level before sampling, finest first, and last those after it."""
        found = list(self.aggregated(self.columns_of(points, levels), levels))
        return [*(whole for whole, _, _ in found), found[-1][2]]


class RandLANetwork(nn.Module):
    """Encoder, decoder by nearest neighbours, and a head of three layers.

    Parameters
    ----------
    columns
        Of the points: 3 + F.
    outputs
        Classes.
    channels, ratios
        Per level: ``out_channels`` and ``sub_sampling_ratio``.
    spacing
        Usual distance of neighbours in a block, in half blocks.
    """

    def __init__(
        self,
        columns: int,
        outputs: int,
        *,
        channels: Sequence[int],
        ratios: Sequence[int],
        spacing: float,
    ) -> None:
        super().__init__()
        inputs = columns + ShapeColumns.columns
        self.backbone = PointEncoder(inputs, channels, level_spacings(spacing, ratios))
        widths = self.backbone.widths
        self.bottom = PointMLP(widths[-1], widths[-1])
        steps = []
        width = widths[-1]
        for skip in reversed(widths[1:]):
            target = max(skip // 2, widths[1])
            steps.append(PointMLP(width + skip, target))
            width = target
        self.steps = nn.ModuleList(steps)
        self.head = nn.Sequential(
            PointMLP(width, 64), PointMLP(64, 32), nn.Dropout(_DROPOUT), nn.Linear(32, outputs)
        )

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits float32 (S, outputs) of the points ``levels["order"]``.

        Parameters
        ----------
        batch
            ``points`` and the ``levels`` of :func:`geodl.nets.point_levels.random_levels`.
        """
        levels = batch["levels"]
        *skips, features = self.backbone(batch["points"], levels)
        features = self.bottom(features)
        for step, skip, up in zip(self.steps, reversed(skips), reversed(levels["up"]), strict=True):
            features = step(torch.cat([features[up], skip], dim=1))
        logits: Tensor = self.head(features)
        return logits

    def layer_groups(self) -> list[list[nn.Module]]:
        """Encoder and the rest, for learning rates."""
        return [[self.backbone], [self.bottom, self.steps, self.head]]


def level_spacings(spacing: float, ratios: Sequence[int]) -> list[float]:
    """Usual distance of neighbours per level: points lie on surfaces, so it grows by the root."""
    found = [spacing]
    for ratio in ratios[:-1]:
        found.append(found[-1] * math.sqrt(ratio))
    return found
