"""SECOND: boxes from a sparse convolution over voxels (Yan et al. 2018, 10.3390/s18103337)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.anchors3d import decode, direction_bins, encode, match_anchors, turned
from geodl.nets.normalization import groups_for
from geodl.nets.point_layers import heights_above
from geodl.nets.sparse_conv import SparseCells, SparseConv, dense_map, same_joins, strided_joins
from geodl.nets.voxels import lattice_shape

YAWS = (0.0, math.pi / 2)
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0
# Section 3.3: weights of classes, boxes and directions; and the smooth L1's bend.
_BOX_WEIGHT, _DIRECTION_WEIGHT = 2.0, 0.2
_BEND = 1 / 9
# Starting score before the sigmoid: an object is in few anchors.
_BIAS = -math.log((1 - 0.01) / 0.01)
# Boxes of a block that go into suppression, best first.
_MOST_BOXES = 500
_WINDOW_M = 12.0


@dataclass(frozen=True, slots=True)
class Anchors:
    """One anchor for each class, yaw and cell of the map.

    Parameters
    ----------
    boxes
        float32 (A, H, W, 7); A runs over classes, then yaws.
    labels
        int64 (A,), 1..K.
    """

    boxes: Tensor
    labels: Tensor


class VoxelFeatures(nn.Module):
    """What the points of a voxel look like: a layer over points, their largest and their mean."""

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        self.layer = dense(columns + 5, outputs)
        self.join = dense(2 * outputs, outputs)

    def forward(self, columns: Tensor, counts: Tensor) -> Tensor:
        """(S, columns) of points by voxel, ``counts`` (V,) of each, to (V, outputs)."""
        features = self.layer(columns).float()
        parts = [
            torch.segment_reduce(features, how, lengths=counts, unsafe=True)
            for how in ("max", "mean")
        ]
        joined: Tensor = self.join(torch.cat(parts, dim=1))
        return joined


class MiddleExtractor(nn.Module):
    """Sparse convolution: two strides of two in all directions, one more in height."""

    stride = 4
    _STEPS = ((2, 2, 2), (2, 2, 2), (2, 1, 1))

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels, 4 * channels]
        self.first = SparseConv(channels, channels)
        self.down = nn.ModuleList(SparseConv(a, b) for a, b in itertools.pairwise(widths))
        self.same = nn.ModuleList(SparseConv(width, width) for width in widths[1:3])
        self.width = widths[-1]

    def forward(self, features: Tensor, cells: SparseCells) -> tuple[Tensor, SparseCells]:
        """Features of the coarsest cells, and these."""
        features = self.first(features, same_joins(cells))
        for i, (layer, step) in enumerate(zip(self.down, self._STEPS, strict=True)):
            cells, joins = strided_joins(cells, step)
            features = layer(features, joins)
            if i < len(self.same):
                features = self.same[i](features, same_joins(cells))
        return features, cells

    @classmethod
    def map_shape(cls, shape: Sequence[int]) -> tuple[int, int, int]:
        """Cells along z, y, x after the strides."""
        found = list(shape)
        for step in cls._STEPS:
            found = [(n - 1) // s + 1 for n, s in zip(found, step, strict=True)]
        return found[0], found[1], found[2]


def dense(inputs: int, outputs: int) -> nn.Sequential:
    """A layer shared by all points or voxels."""
    return nn.Sequential(
        nn.Linear(inputs, outputs, bias=False),
        nn.GroupNorm(groups_for(outputs), outputs),
        nn.ReLU(),
    )


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution of a map."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.GroupNorm(groups_for(outputs), outputs),
        nn.ReLU(),
    )


class RegionHead(nn.Module):
    """The map seen from above at two scales, joined, and an answer for every anchor."""

    def __init__(self, inputs: int, width: int, anchors: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.GroupNorm(groups_for(width), width),
            nn.ReLU(),
        )
        self.fine = nn.Sequential(convolution(width, width), convolution(width, width))
        self.coarse = nn.Sequential(
            convolution(width, 2 * width, 2), convolution(2 * width, 2 * width)
        )
        self.narrow = nn.Conv2d(2 * width, width, 1)
        self.scores = nn.Conv2d(2 * width, anchors, 1)
        self.boxes = nn.Conv2d(2 * width, 7 * anchors, 1)
        self.directions = nn.Conv2d(2 * width, 2 * anchors, 1)
        nn.init.constant_(self.scores.bias, _BIAS)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, A, H, W), codes (B, A, H, W, 7) and directions (B, A, H, W, 2)."""
        fine = self.fine(self.enter(x))
        coarse = self.narrow(self.coarse(fine))
        coarse = functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        x = torch.cat([fine, coarse], dim=1)
        batch, _, rows, columns = x.shape
        codes = self.boxes(x).view(batch, -1, 7, rows, columns).permute(0, 1, 3, 4, 2)
        directions = self.directions(x).view(batch, -1, 2, rows, columns)
        return self.scores(x), codes, directions.permute(0, 1, 3, 4, 2)


class SecondNetwork(nn.Module):
    """Voxels, sparse convolution, and a head with anchors.

    Parameters
    ----------
    columns
        Of the points: 3 + F.
    space
        The options of :func:`geodl.nets.voxels.make_voxels`.
    sizes
        Per class, length, width, height of its anchors.
    bottoms
        Per class, the height of their bottom.
    channels
        Of the finest voxels.
    """

    def __init__(
        self,
        columns: int,
        *,
        space: Mapping[str, Any],
        sizes: Sequence[Sequence[float]],
        bottoms: Sequence[float],
        channels: int = 16,
    ) -> None:
        super().__init__()
        self.low, self.high, self.size = (tuple(space[k]) for k in ("low", "high", "size"))
        depth, rows, cols = lattice_shape(self.low, self.high, self.size)
        self.shape = (depth, rows, cols)
        self.backbone = nn.ModuleDict(
            {"voxels": VoxelFeatures(columns, channels), "middle": MiddleExtractor(channels)}
        )
        layers, _, _ = MiddleExtractor.map_shape(self.shape)
        self.head = RegionHead(4 * channels * layers, 4 * channels, len(sizes) * len(YAWS))
        anchors = self._anchors(sizes, bottoms)
        self.anchor_boxes: Tensor
        self.anchor_labels: Tensor
        self.register_buffer("anchor_boxes", anchors.boxes, persistent=False)
        self.register_buffer("anchor_labels", anchors.labels, persistent=False)

    def _anchors(self, sizes: Sequence[Sequence[float]], bottoms: Sequence[float]) -> Anchors:
        _, rows, cols = MiddleExtractor.map_shape(self.shape)
        stride = MiddleExtractor.stride
        x = self.low[0] + (torch.arange(cols) + 0.5) * self.size[0] * stride
        y = self.low[1] + (torch.arange(rows) + 0.5) * self.size[1] * stride
        boxes, labels = [], []
        for label, (size, bottom) in enumerate(zip(sizes, bottoms, strict=True), start=1):
            for yaw in YAWS:
                own = torch.zeros(rows, cols, 7)
                own[..., 0], own[..., 1] = x.view(1, -1), y.view(-1, 1)
                own[..., 2] = bottom
                own[..., 3:6] = torch.tensor(list(size))
                own[..., 6] = yaw
                boxes.append(own)
                labels.append(label)
        return Anchors(torch.stack(boxes), torch.tensor(labels))

    def forward(self, batch: Mapping[str, Any]) -> SecondOutput:
        """What each anchor answers.

        Parameters
        ----------
        batch
            ``points``, ``length`` and ``voxels``.
        """
        points, voxels = batch["points"], batch["voxels"]
        columns = self._columns(points, voxels)
        cells = SparseCells(voxels["places"], self.shape, len(points))
        features = self.backbone["voxels"](columns, voxels["counts"])
        features, cells = self.backbone["middle"](features, cells)
        scores, codes, directions = self.head(dense_map(features, cells))
        return SecondOutput(
            scores, codes, directions, Anchors(self.anchor_boxes, self.anchor_labels)
        )

    def _columns(self, points: Tensor, voxels: Mapping[str, Any]) -> Tensor:
        """float32 (S, columns + 5): offsets from the voxel's centre and its points' mean, height
        above the lowest point around and in the space, and the attributes."""
        chosen = points.flatten(0, 1)[voxels["order"]]
        xyz, voxel = chosen[:, :3], voxels["voxel"]
        places = voxels["places"][voxel]
        low, high, size = (xyz.new_tensor(v) for v in (self.low, self.high, self.size))
        centre = (places[:, [3, 2, 1]] + 0.5) * size + low
        mean = torch.segment_reduce(xyz, "mean", lengths=voxels["counts"], unsafe=True)[voxel]
        middle, half = (low + high) / 2, (high - low)[:2].amax() / 2
        local = (xyz - middle) / half
        heights = heights_above(local, places[:, 0], float(_WINDOW_M / half)) * half
        level = (xyz[:, 2] - low[2]) / (high[2] - low[2])
        return torch.cat(
            [
                (xyz - centre) / size,
                (xyz - mean) / size,
                torch.stack([heights, level], dim=1),
                chosen[:, 3:],
            ],
            dim=1,
        )

    def layer_groups(self) -> list[list[nn.Module]]:
        """Voxels and sparse layers, and the head, for learning rates."""
        return [[self.backbone], [self.head]]


class SecondOutput:
    """The answers of a batch; see :class:`geodl.tasks.boxes3d.BoxOutput`.

    Parameters
    ----------
    scores
        float32 (B, A, H, W), before the sigmoid.
    codes
        float32 (B, A, H, W, 7), boxes as seen from their anchors.
    directions
        float32 (B, A, H, W, 2), which half of the turn the yaw lies in.
    """

    def __init__(self, scores: Tensor, codes: Tensor, directions: Tensor, anchors: Anchors) -> None:
        self.scores, self.codes, self.directions = scores, codes, directions
        self.anchors = anchors

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """``loss`` and its parts ``class``, ``box`` and ``direction``.

        Parameters
        ----------
        targets
            For each block ``boxes`` (M, 7) and ``labels`` (M,) 1..K.
        """
        boxes, labels = self.anchors.boxes, self.anchors.labels
        flat = boxes.reshape(-1, 7)
        of_class = labels.view(-1, 1, 1).expand(boxes.shape[:3]).reshape(-1)
        classes, places, turns, count = [], [], [], 0
        for i, target in enumerate(targets):
            state, match = match_anchors(flat, of_class, target["boxes"], target["labels"])
            scores = self.scores[i].reshape(-1).float()
            classes.append(_focal(scores[state >= 0], (state[state >= 0] > 0).float()))
            chosen = (state > 0).nonzero()[:, 0]
            count += len(chosen)
            if not len(chosen):
                continue
            wanted = target["boxes"][match[chosen]]
            code = self.codes[i].reshape(-1, 7)[chosen].float()
            places.append(_box_loss(code, encode(wanted, flat[chosen])))
            direction = self.directions[i].reshape(-1, 2)[chosen].float()
            turns.append(
                functional.cross_entropy(direction, direction_bins(wanted[:, 6]), reduction="sum")
            )
        most = max(count, 1)
        nothing = self.codes.float().sum() * 0 + self.directions.float().sum() * 0
        parts = {
            "class": torch.stack(classes).sum() / most,
            "box": sum(places, nothing) / most,
            "direction": sum(turns, nothing) / most,
        }
        loss = parts["class"] + _BOX_WEIGHT * parts["box"] + _DIRECTION_WEIGHT * parts["direction"]
        return {"loss": loss, **parts}

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 7), scores (N,) and labels (N,) 1..K of each block, overlaps included."""
        flat = self.anchors.boxes.reshape(-1, 7)
        of_class = self.anchors.labels.view(-1, 1, 1).expand(self.anchors.boxes.shape[:3])
        of_class = of_class.reshape(-1)
        found = []
        for scores, codes, directions in zip(self.scores, self.codes, self.directions, strict=True):
            share = torch.sigmoid(scores.reshape(-1).float())
            chosen = (share >= threshold).nonzero()[:, 0]
            if len(chosen) > _MOST_BOXES:
                chosen = chosen[share[chosen].topk(_MOST_BOXES).indices]
            boxes = decode(codes.reshape(-1, 7)[chosen].float(), flat[chosen])
            bins = directions.reshape(-1, 2)[chosen].argmax(dim=1)
            boxes[:, 6] = turned(boxes[:, 6], bins)
            found.append((boxes, share[chosen], of_class[chosen]))
        return found


def _focal(scores: Tensor, wanted: Tensor) -> Tensor:
    """Summed focal loss (Lin et al. 2017, 1708.02002)."""
    loss = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    share = torch.sigmoid(scores)
    surprise = torch.where(wanted > 0, 1 - share, share)
    alpha = torch.where(wanted > 0, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA)
    return (alpha * surprise**_FOCAL_GAMMA * loss).sum()


def _box_loss(codes: Tensor, wanted: Tensor) -> Tensor:
    """Summed smooth L1; of the yaw, the sine of the difference."""
    difference = torch.cat(
        [codes[:, :6] - wanted[:, :6], torch.sin(codes[:, 6:] - wanted[:, 6:])], dim=1
    )
    return functional.smooth_l1_loss(
        difference, torch.zeros_like(difference), reduction="sum", beta=_BEND
    )
