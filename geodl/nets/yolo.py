"""YOLOv3 (Redmon and Farhadi 2018, 1804.02767): boxes from priors on three grids.

Boxes are learned by generalised IoU instead of squared errors, as Rezatofighi et al. (2019,
1902.09630) do with this network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.backbones import STRIDES, Backbone
from geodl.nets.matching import generalized_iou, iou_matrix

YOLO_STRIDES = (8, 16, 32)
PER_CELL = 3
# 2.2 of the paper: boxes that overlap an object so far are no background.
IGNORE_IOU = 0.5
# Objectness starts so low that the empty cells, nearly all, add little.
_BIAS = -5.0
# Largest change of a side, as the logarithm of a factor: exp stays finite.
_MOST = 4.0
_FIRST = STRIDES.index(YOLO_STRIDES[0])


def conv(inputs: int, outputs: int, side: int) -> nn.Sequential:
    """Convolution, normalisation and leaky activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )


class Neck(nn.Module):
    """Five convolutions over a map, joined with what the coarser level learned.

    Parameters
    ----------
    inputs
        Channels of the backbone's map.
    width
        Channels that come out.
    coarser
        Channels of the coarser level's neck, or 0.
    """

    def __init__(self, inputs: int, width: int, coarser: int) -> None:
        super().__init__()
        self.lateral = conv(coarser, width, 1) if coarser else None
        first = inputs + (width if coarser else 0)
        self.body = nn.Sequential(
            conv(first, width, 1),
            conv(width, 2 * width, 3),
            conv(2 * width, width, 1),
            conv(width, 2 * width, 3),
            conv(2 * width, width, 1),
        )

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        if self.lateral is not None and coarser is not None:
            below = functional.interpolate(self.lateral(coarser), size=x.shape[-2:])
            x = torch.cat([below, x], dim=1)
        out: Tensor = self.body(x)
        return out


class YoloNet(nn.Module):
    """YOLOv3 over a backbone; the paper's with Darknet-53.

    Parameters
    ----------
    body
        The backbone.
    classes
        K.
    priors
        Width and height of the nine anchor boxes in pixels, three of each level, finest first.
    """

    def __init__(self, body: Backbone, classes: int, priors: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.backbone = body
        self.classes = classes
        self.register_buffer(
            "priors", torch.tensor(priors, dtype=torch.float32).reshape(-1, PER_CELL, 2), False
        )
        channels = body.channels[_FIRST:]
        widths = [max(8, c // 2) for c in channels]
        self.necks = nn.ModuleList(
            Neck(c, w, coarser)
            for c, w, coarser in zip(channels, widths, [*widths[1:], 0], strict=True)
        )
        self.heads = nn.ModuleList(self._head(w) for w in widths)

    def _head(self, width: int) -> nn.Sequential:
        answers = nn.Conv2d(2 * width, PER_CELL * (5 + self.classes), 1)
        nn.init.normal_(answers.weight, std=0.01)
        with torch.no_grad():
            bias = answers.bias.view(PER_CELL, -1)  # type: ignore[union-attr]
            bias.zero_()
            bias[:, 4] = _BIAS
        return nn.Sequential(conv(width, 2 * width, 3), answers)

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = self.backbone.halves()
        return [early, late, [self.necks, self.heads]]

    def forward(self, x: Tensor) -> YoloOutput:
        """Boxes, objectness and class scores of all anchors for float (B, C, H, W)."""
        maps = self.backbone(x)[_FIRST:]
        coarser: Tensor | None = None
        answers: list[Tensor] = []
        for level in range(len(maps) - 1, -1, -1):
            coarser = self.necks[level](maps[level], coarser)
            answers.insert(0, self.heads[level](coarser).float())
        cells, priors, rows = [], [], []
        for level, (answer, stride) in enumerate(zip(answers, YOLO_STRIDES, strict=True)):
            height, width = answer.shape[-2:]
            y = torch.arange(height, device=x.device)
            across = torch.arange(width, device=x.device)
            grid = torch.stack(torch.meshgrid(across, y, indexing="xy"), dim=-1).reshape(-1, 1, 2)
            cell = torch.cat([grid, torch.full_like(grid[..., :1], stride)], dim=-1)
            cells.append(cell.expand(-1, PER_CELL, -1).reshape(-1, 3).float())
            priors.append(self.priors[level].repeat(height * width, 1))  # type: ignore[index]
            rows.append(answer.permute(0, 2, 3, 1).reshape(len(x), -1, 5 + self.classes))
        shape = (x.shape[-2], x.shape[-1])
        return YoloOutput(torch.cat(rows, 1), torch.cat(cells), torch.cat(priors), shape)


class YoloOutput:
    """What the network says of every anchor; makes losses of it, or boxes.

    Parameters
    ----------
    answers
        float32 (B, A, 5 + K): place, size, objectness and classes, before their functions.
    cells
        float32 (A, 3): column, row and stride of the anchor's cell.
    priors
        float32 (A, 2): width and height of the anchor.
    shape
        Height and width of the image.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self, answers: Tensor, cells: Tensor, priors: Tensor, shape: tuple[int, int]
    ) -> None:
        self.answers = answers
        self.cells = cells
        self.priors = priors
        self.shape = shape

    def boxes(self) -> Tensor:
        """float32 (B, A, 4), x0, y0, x1, y1."""
        stride = self.cells[:, 2:]
        centre = (self.answers[..., :2].sigmoid() + self.cells[:, :2]) * stride
        half = self.answers[..., 2:4].clamp(-_MOST, _MOST).exp() * self.priors / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """0-d ``loss``, ``location_loss``, ``object_loss`` and ``class_loss``."""
        boxes = self.boxes()
        objectness = self.answers[..., 4]
        truth, counts = torch.zeros_like(objectness), torch.ones_like(objectness)
        found, wanted, scores, classes = [], [], [], []
        for image, target in enumerate(targets):
            own, labels = target["boxes"], target["labels"]
            if not len(own):
                continue
            with torch.no_grad():
                near = iou_matrix(boxes[image], own).max(dim=1).values >= IGNORE_IOU
            counts[image][near] = 0
            anchor, taken = self.assigned(own)
            truth[image, anchor], counts[image, anchor] = 1, 1
            found.append(boxes[image, anchor])
            wanted.append(own[taken])
            scores.append(self.answers[image, anchor, 5:])
            classes.append(functional.one_hot(labels[taken] - 1, scores[-1].shape[-1]).float())
        count = max(1, sum(map(len, found)))
        surprise = functional.binary_cross_entropy_with_logits(objectness, truth, reduction="none")
        parts = {"object_loss": (surprise * counts).sum() / count}
        zero = self.answers.sum() * 0
        parts["location_loss"] = (
            (1 - generalized_iou(torch.cat(found), torch.cat(wanted))).sum() / count
            if found
            else zero
        )
        parts["class_loss"] = (
            functional.binary_cross_entropy_with_logits(
                torch.cat(scores), torch.cat(classes), reduction="sum"
            )
            / count
            if found
            else zero
        )
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def assigned(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The anchor of each object: the prior of its shape, in the cell of its centre.

        Returns
        -------
        int64 anchors, and int64 positions of their objects. Of two objects for one anchor the
        latter takes it, so that both lists may be shorter than the objects.
        """
        size = boxes[:, 2:] - boxes[:, :2]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        low = torch.minimum(size[:, None], self.priors[None]).prod(dim=-1)
        union = size.prod(dim=-1)[:, None] + self.priors.prod(dim=-1)[None] - low
        cell = (centre[:, None] / self.cells[None, :, 2:]).floor()
        here = (cell == self.cells[None, :, :2]).all(dim=-1)
        shape = torch.where(here, low / union, torch.full_like(low, -1.0))
        best = shape.argmax(dim=1)
        # A dictionary of anchors: the last object of each.
        last = {anchor: place for place, anchor in enumerate(best.tolist())}
        anchor = torch.tensor(list(last), device=boxes.device, dtype=torch.long)
        taken = torch.tensor(list(last.values()), device=boxes.device, dtype=torch.long)
        return anchor, taken

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4) inside the image, scores (N,) and labels (N,) 1..K, from a score on.

        The score is objectness times that of the best class.
        """
        best, label = self.answers[..., 5:].sigmoid().max(dim=-1)
        score = best * self.answers[..., 4].sigmoid()
        height, width = self.shape
        limit = score.new_tensor([width, height, width, height])
        boxes = torch.minimum(self.boxes().clamp(min=0), limit)
        solid = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        keep = (score >= threshold) & solid
        return [(boxes[i][k], score[i][k], label[i][k] + 1) for i, k in enumerate(keep)]
