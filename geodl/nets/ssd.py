"""Single-shot detector (Liu et al. 2016, 1512.02325) with anchors on chosen grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.anchors import AnchorLayout, decode
from geodl.nets.backbones import STRIDES, Backbone, to_grid
from geodl.nets.matching import assign, generalized_iou
from geodl.nets.pyramid import FeaturePyramid

WIDTH = 128
# Negatives that count per positive, the hardest first: 1512.02325.
NEGATIVES = 3
# Negatives of an image without objects.
LEAST_NEGATIVES = 16
# 1708.02002
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


@dataclass(frozen=True, slots=True)
class LossOptions:
    """How the losses of class and place are made and weighed.

    Parameters
    ----------
    focal
        All anchors count, easy ones little; otherwise the hardest negatives only.
    location_share
        Weight of the box loss, the class loss has the rest; None adds both as they are.
    """

    focal: bool = False
    location_share: float | None = None


class SingleShotNet(nn.Module):
    """Backbone, feature maps for each grid, and a head for classes and boxes.

    Parameters
    ----------
    backbone
        Gives maps at strides 4 to 32.
    layout
        The anchors.
    classes
        K; background is no output: an anchor without an object has low scores for all.
    tile_px
        Side of the training tile, to which the grids refer. Other image sizes may be run: cells
        and anchors keep their size in pixels.
    version
        1: each grid reads the backbone's own map of its resolution and has a head of its own, as
        in the paper. 2: it reads a feature pyramid, and all grids share one deeper head.
    drop
        Share of channels dropped before the head.
    bias
        Starting score of all classes, before the sigmoid.
    """

    def __init__(
        self,
        backbone: Backbone,
        layout: AnchorLayout,
        classes: int,
        tile_px: int,
        *,
        version: int = 2,
        drop: float = 0.3,
        bias: float = -4.0,
        losses: LossOptions | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.layout = layout
        self.tile_px = tile_px
        self.losses = losses or LossOptions()
        self.levels = tuple(level_of(tile_px / grid) for grid in layout.grids)
        outputs = (layout.per_cell, classes)
        if version == 1:
            self.neck: nn.Module = nn.Identity()
            self.heads = nn.ModuleList(
                PlainHead(backbone.channels[i], *outputs, drop, bias) for i in self.levels
            )
        else:
            self.neck = FeaturePyramid(backbone.channels, WIDTH)
            self.heads = nn.ModuleList([TowerHead(WIDTH, *outputs, drop, bias)])

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = self.backbone.halves()
        return [early, late, [self.neck, self.heads]]

    def forward(self, x: Tensor) -> AnchorOutput:
        """Scores and boxes of all anchors for float (B, C, H, W)."""
        # Plain numbers, also while the network is traced for export.
        height, width = int(x.shape[-2]), int(x.shape[-1])
        maps = self.neck(self.backbone(x))
        scores, offsets = [], []
        for i, (grid, level) in enumerate(zip(self.layout.grids, self.levels, strict=True)):
            shape = self.layout.shape(grid, height, width, self.tile_px)
            head = self.heads[i if len(self.heads) > 1 else 0]
            score, offset = head(to_grid(maps[level], shape))
            scores.append(score)
            offsets.append(offset)
        anchors = self.layout.anchors(height, width, self.tile_px)
        return AnchorOutput(
            # Half precision ends here: coordinates need more than 8 bits.
            torch.cat(scores, dim=1).float(),
            torch.cat(offsets, dim=1).float(),
            [part.to(x.device) for part in anchors],
            (height, width),
            self.losses,
        )


class AnchorOutput:
    """What the network says of every anchor; makes losses of it, or boxes.

    Parameters
    ----------
    logits
        float32 (B, A, K).
    offsets
        float32 (B, A, 4), see :func:`geodl.nets.anchors.encode`.
    anchors
        float32 (A_i, 4) of each grid.
    shape
        Height and width of the image.
    options
        Of the losses.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self,
        logits: Tensor,
        offsets: Tensor,
        anchors: Sequence[Tensor],
        shape: tuple[int, int],
        options: LossOptions,
    ) -> None:
        self.logits = logits
        self.offsets = offsets
        self.anchors = anchors
        self.shape = shape
        self.options = options

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Losses against the objects of each image.

        Parameters
        ----------
        targets
            ``boxes`` float32 (N, 4) in pixels and ``labels`` int64 (N,) 1..K.

        Returns
        -------
        0-d ``loss``, ``class_loss``, ``location_loss``.
        """
        match = torch.stack([assign(self.anchors, target["boxes"]) for target in targets])
        positive = match >= 0
        truth = torch.zeros_like(self.logits)
        boxes = []
        for i, target in enumerate(targets):
            anchor = torch.nonzero(positive[i]).flatten()
            own = match[i, anchor]
            truth[i, anchor, target["labels"][own] - 1] = 1.0
            boxes.append(target["boxes"][own])
        every = torch.cat(list(self.anchors)).expand(len(targets), -1, -1)
        found = decode(self.offsets[positive], every[positive])
        count = positive.sum().clamp(min=1)
        location = (1 - generalized_iou(found, torch.cat(boxes))).sum() / count
        score = self._class_loss(truth, positive) / count
        share = self.options.location_share
        loss = score + location if share is None else (1 - share) * score + share * location
        return {"loss": loss, "class_loss": score, "location_loss": location}

    def _class_loss(self, truth: Tensor, positive: Tensor) -> Tensor:
        """Sum over the anchors that count."""
        surprise = functional.binary_cross_entropy_with_logits(self.logits, truth, reduction="none")
        if self.options.focal:
            right = torch.where(truth > 0, self.logits, -self.logits).sigmoid()
            alpha = torch.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
            return (alpha * (1 - right) ** FOCAL_GAMMA * surprise).sum()
        by_anchor = surprise.sum(dim=2)
        return by_anchor[positive].sum() + _hardest(by_anchor, positive)

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes above a score, before non-maximum suppression.

        Returns
        -------
        For each image float32 (N, 4) boxes inside it, float32 (N,) scores, int64 (N,) labels
        1..K: each anchor's best class.
        """
        best, label = self.logits.sigmoid().max(dim=2)
        boxes = decode(self.offsets, torch.cat(list(self.anchors)))
        height, width = self.shape
        limit = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        solid = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        keep = (best >= threshold) & solid
        return [(boxes[i][k], best[i][k], label[i][k] + 1) for i, k in enumerate(keep)]


def _hardest(by_anchor: Tensor, positive: Tensor) -> Tensor:
    """Sum over the negatives of each image with the largest loss."""
    negative = by_anchor.masked_fill(positive, -1.0)
    wanted = (NEGATIVES * positive.sum(dim=1)).clamp(min=LEAST_NEGATIVES)
    ranked = negative.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    counts = (ranked < wanted[:, None]) & ~positive
    return by_anchor[counts].sum()


class PlainHead(nn.Module):
    """One convolution for scores and one for boxes, as in the paper."""

    def __init__(
        self, channels: int, per_cell: int, classes: int, drop: float, bias: float
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout2d(drop),
        )
        self.predict = Predictors(WIDTH, per_cell, classes, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.reduce(x)
        return self.predict(x, x)


class TowerHead(nn.Module):
    """A convolution each for scores and boxes, then the predictors; for all grids."""

    def __init__(
        self, channels: int, per_cell: int, classes: int, drop: float, bias: float
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(drop)
        self.scores = _tower(channels)
        self.boxes = _tower(channels)
        self.predict = Predictors(channels, per_cell, classes, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop(x)
        return self.predict(self.scores(x), self.boxes(x))


def _tower(channels: int) -> nn.Sequential:
    # GroupNorm, because grids of different statistics share it.
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.GroupNorm(16, channels),
        nn.ReLU(inplace=True),
    )


class Predictors(nn.Module):
    """Scores and box offsets of the anchors of every cell."""

    def __init__(self, channels: int, per_cell: int, classes: int, bias: float) -> None:
        super().__init__()
        self.classes = classes
        self.score = nn.Conv2d(channels, per_cell * classes, 3, padding=1)
        self.offset = nn.Conv2d(channels, per_cell * 4, 3, padding=1)
        for layer in (self.score, self.offset):
            nn.init.normal_(layer.weight, std=0.01)
        with torch.no_grad():
            self.offset.bias.zero_()  # type: ignore[union-attr]
            self.score.bias.fill_(bias)  # type: ignore[union-attr]

    def forward(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, cells * per_cell, K) logits and (B, cells * per_cell, 4) offsets."""
        return _by_anchor(self.score(scores), self.classes), _by_anchor(self.offset(boxes), 4)


def _by_anchor(x: Tensor, each: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, each)


def level_of(cell_px: float) -> int:
    """The coarsest map whose stride is at most the cell, else the finest."""
    fits = [i for i, stride in enumerate(STRIDES) if stride <= cell_px * (1 + 1e-6)]
    return fits[-1] if fits else 0
