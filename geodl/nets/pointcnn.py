"""PointCNN: convolution on X-transformed points (Li et al. 2018, 1801.07791)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geodl.nets.point_layers import ShapeColumns


class DenseELU(nn.Sequential):
    """A dense layer, ELU and batch normalisation over all rows (section 4.1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, outputs), nn.ELU(), nn.BatchNorm1d(outputs, momentum=0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1])
        if self.training and len(rows) == 1:
            # A single point has no statistics; twice the same has.
            rows = rows.expand(2, -1)
        flat: Tensor = super().forward(rows)[: x.shape[:-1].numel()]
        return flat.reshape(*x.shape[:-1], -1)


class XConv(nn.Module):
    """Convolution over the neighbours of a point in an order that is learned (algorithm 1).

    Parameters
    ----------
    inputs
        Features of the points before.
    outputs
        Features of the representative points.
    k
        Neighbours.
    reach
        Usual distance of the farthest of them, in half blocks.
    """

    def __init__(self, inputs: int, outputs: int, k: int, reach: float) -> None:
        super().__init__()
        lifted = max(4, outputs // 4)
        self.reach = reach
        self.k = k
        self.lift = nn.Sequential(DenseELU(3, lifted), DenseELU(lifted, lifted))
        self.transform = nn.Sequential(
            DenseELU(3 * k, k * k), DenseELU(k * k, k * k), nn.Linear(k * k, k * k)
        )
        columns = inputs + lifted
        # Separable: each column is folded over the neighbours first, then columns are mixed.
        depth = max(1, math.ceil(outputs / columns))
        self.fold = nn.Parameter(torch.randn(k, columns, depth) / math.sqrt(k))
        self.mix = DenseELU(columns * depth, outputs)

    def forward(self, centres: Tensor, xyz: Tensor, features: Tensor, neighbours: Tensor) -> Tensor:
        """Features (R, outputs) of the points at ``centres`` (R, 3).

        Parameters
        ----------
        xyz, features
            (S, 3) and (S, inputs) of the points that are looked at.
        neighbours
            int64 (R, k), rows of them.
        """
        local = (xyz[neighbours] - centres.unsqueeze(1)) / self.reach
        columns = torch.cat([self.lift(local), features[neighbours]], dim=2)
        matrix = self.transform(local.flatten(1)).view(-1, self.k, self.k)
        folded = torch.einsum("skc,kcm->scm", matrix @ columns, self.fold)
        mixed: Tensor = self.mix(folded.flatten(1))
        return mixed


class PointCNNetwork(nn.Module):
    """X-Conv layers to fewer and fewer points, and back by the same with skips (figure 4).

    Parameters
    ----------
    columns
        Of the points: 3 + F.
    outputs
        Classes.
    channels
        Features per layer.
    counts, k, dilation
        Per layer, see :func:`geodl.nets.point_levels.farthest_levels`.
    spacing
        Usual distance of neighbours in a block, in half blocks.
    dropout
        Share of features dropped before the last layer.
    """

    def __init__(
        self,
        columns: int,
        outputs: int,
        *,
        channels: Sequence[int],
        counts: Sequence[int],
        k: Sequence[int],
        dilation: Sequence[int],
        spacing: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.shape = ShapeColumns()
        self.stem = DenseELU(columns + ShapeColumns.columns, max(8, channels[0] // 2))
        widths = [max(8, channels[0] // 2), *channels]
        gaps = [spacing]
        for count in counts:
            gaps.append(gaps[-1] if count < 0 else max(gaps[-1], 2 / math.sqrt(count)))
        self.backbone = nn.ModuleList(
            XConv(widths[i], widths[i + 1], k[i], reach(gaps[i], k[i] * dilation[i]))
            for i in range(len(channels))
        )
        self.back = nn.ModuleList()
        self.join = nn.ModuleList()
        width = widths[-1]
        for i in reversed(range(len(channels))):
            target = max(widths[i], widths[1])
            self.back.append(XConv(width, target, k[i], reach(gaps[i + 1], k[i])))
            self.join.append(DenseELU(target + widths[i], target))
            width = target
        self.head = nn.Sequential(
            DenseELU(width, width), nn.Dropout(dropout), nn.Linear(width, outputs)
        )

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits float32 (S, outputs) of the points ``levels["order"]``."""
        levels = batch["levels"]
        columns = batch["points"].flatten(0, 1)[levels["order"]]
        places = [columns[:, :3]]
        shape = self.shape(places[0], levels["block"], levels["neighbours"][0])
        features = [self.stem(torch.cat([columns, shape], dim=1))]
        for layer, kept, into in zip(self.backbone, levels["down"], levels["into"], strict=True):
            centres = places[-1][kept]
            features.append(layer(centres, places[-1], features[-1], into))
            places.append(centres)
        x = features.pop()
        for layer, join, back in zip(self.back, self.join, reversed(levels["back"]), strict=True):
            coarse = places.pop()
            x = layer(places[-1], coarse, x, back)
            x = join(torch.cat([x, features.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits

    def layer_groups(self) -> list[list[nn.Module]]:
        """Encoder and the rest, for learning rates."""
        return [[self.stem, self.backbone], [self.back, self.join, self.head]]


def reach(spacing: float, count: int) -> float:
    """Usual distance of the farthest of ``count`` neighbours on a surface."""
    return spacing * math.sqrt(max(1, count) / math.pi)
