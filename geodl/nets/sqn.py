"""SQN: classes at any place from the encoder's features around it (Hu et al. 2022, 2104.04891)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geodl.nets.point_layers import PointMLP, ShapeColumns
from geodl.nets.randlanet import PointEncoder, level_spacings

_TINY = 1e-8
_DROPOUT = 0.5


class SemanticQueryNetwork(nn.Module):
    """An encoder of local aggregation, asked at points instead of decoded at all of them.

    A few labelled points thus teach all points around them: the gradient of a query reaches the
    neighbourhoods of its three nearest points in each level.

    Parameters
    ----------
    columns, outputs, channels, ratios, spacing
        As of :class:`geodl.nets.randlanet.RandLANetwork`.
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
        width = sum(self.backbone.widths[1:]) + inputs
        self.head = nn.Sequential(
            PointMLP(width, 128),
            PointMLP(128, 64),
            PointMLP(64, 32),
            nn.Dropout(_DROPOUT),
            nn.Linear(32, outputs),
        )

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits float32 (S, outputs) of the points ``levels["order"]``.

        Parameters
        ----------
        batch
            ``points`` and the ``levels`` of :func:`geodl.nets.point_levels.query_levels`.
        """
        levels = batch["levels"]
        own = self.backbone.columns_of(batch["points"], levels)
        places, features = self.backbone.sampled(own, levels)
        asked = [
            interpolated(own[:, :3], xyz, found, near)
            for xyz, found, near in zip(places, features, levels["near"], strict=True)
        ]
        logits: Tensor = self.head(torch.cat([own, *asked], dim=1))
        return logits

    def layer_groups(self) -> list[list[nn.Module]]:
        """Encoder and the rest, for learning rates."""
        return [[self.backbone], [self.head]]


def interpolated(queries: Tensor, xyz: Tensor, features: Tensor, near: Tensor) -> Tensor:
    """Features at queries, of their nearest points by inverse distance.

    Parameters
    ----------
    queries
        float32 (Q, 3).
    xyz, features
        (S, 3) and (S, C).
    near
        int64 (Q, 3), rows of them.
    """
    gap = (queries.unsqueeze(1) - xyz[near]).norm(dim=2)
    weight = 1 / (gap + _TINY)
    weight = weight / weight.sum(dim=1, keepdim=True)
    return (features[near] * weight.unsqueeze(2)).sum(dim=1)
