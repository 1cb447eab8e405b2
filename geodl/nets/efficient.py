"""EfficientDet (Tan et al. 2020, 1911.09070), the lite ones, by effdet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, clip_boxes_to_image

from geodl.base.packages import require
from geodl.nets.backbones import module_halves
from geodl.nets.regions import Targets, at_most
from geodl.nets.weights import with_pretrained

# The coarsest level's cells: inputs are whole numbers of them.
COARSEST_PX = 128
# Candidates of an image, overlap of two of a class that are both kept, and the most that are.
_CANDIDATES, _NMS, _KEPT = 1000, 0.5, 300


def effdet_part(module: str) -> Any:
    """A module of effdet."""
    with warnings.catch_warnings():
        # Scripted functions of its own that geodl does not call.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return require(module, "detection")


class EfficientDetNet(nn.Module):
    """EfficientDet for images of one size.

    Parameters
    ----------
    name
        Of effdet's configuration.
    classes
        K; background is no output.
    bands
        Of the images.
    tile_px
        Their side; they are grown to whole coarsest cells.
    anchor_scale
        Sides of the smallest anchors of each level, in cells.
    pretrained
        Load weights into the backbone.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        bands: int,
        tile_px: int,
        anchor_scale: float,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        side = -(-tile_px // COARSEST_PX) * COARSEST_PX
        config = effdet_part("effdet").get_efficientdet_config(name)
        config.num_classes = classes
        config.image_size = (side, side)
        config.anchor_scale = anchor_scale
        config.backbone_args = {**config.backbone_args, "in_chans": bands}
        self.side_px = side
        self.model = effdet_part("effdet.efficientdet").EfficientDet(
            config, pretrained_backbone=pretrained
        )
        parts = effdet_part("effdet.anchors")
        self.anchors = parts.Anchors.from_config(config)
        self._labeler = partial(parts.AnchorLabeler, num_classes=classes)
        self._coder = parts.decode_box_outputs
        self._loss = effdet_part("effdet.loss").DetectionLoss(config)

    @property
    def backbone(self) -> nn.Module:
        """What is frozen after loading pretrained weights."""
        body: nn.Module = self.model.backbone
        return body

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = module_halves(self.backbone)
        return [early, late, [self.model.fpn, self.model.class_net, self.model.box_net]]

    def forward(self, x: Tensor) -> EfficientDetOutput:
        """Scores and boxes of all anchors for float (B, C, H, W) no larger than the tile."""
        height, width = x.shape[-2:]
        margin = (0, self.side_px - width, 0, self.side_px - height)
        scores, boxes = self.model(functional.pad(x, margin, mode="constant"))
        return EfficientDetOutput(
            [part.float() for part in scores],
            [part.float() for part in boxes],
            self.anchors.boxes,
            (height, width),
            self._part_losses,
            self._coder,
        )

    def _part_losses(
        self, scores: Sequence[Tensor], boxes: Sequence[Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        # Made anew: it would keep what it made in inference mode.
        labeler = self._labeler(self.anchors)
        yxyx = [target["boxes"][:, [1, 0, 3, 2]] for target in targets]
        classes, places, counts = labeler.batch_label_anchors(
            yxyx, [target["labels"] for target in targets]
        )
        loss, class_loss, box_loss = self._loss(scores, boxes, classes, places, counts)
        return {"loss": loss, "class_loss": class_loss, "box_loss": box_loss}


class EfficientDetOutput:
    """What the network says of every anchor; makes losses of it, or boxes.

    Parameters
    ----------
    scores, boxes
        float32 (B, anchors * K or anchors * 4, h, w) of each level.
    anchors
        float32 (A, 4), y0, x0, y1, x1.
    shape
        Height and width of the image.
    losses, coder
        effdet's own.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self,
        scores: list[Tensor],
        boxes: list[Tensor],
        anchors: Tensor,
        shape: tuple[int, int],
        losses: Callable[..., dict[str, Tensor]],
        coder: Callable[..., Tensor],
    ) -> None:
        self.scores = scores
        self.boxes = boxes
        self.anchors = anchors
        self.shape = shape
        self._parts = losses
        self._decode = coder

    def losses(self, targets: Targets) -> dict[str, Tensor]:
        """0-d ``loss``, ``class_loss`` (focal) and ``box_loss`` (Huber)."""
        return self._parts(self.scores, self.boxes, targets)

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) 1..K of each image, from a score on."""
        places = _by_anchor(self.boxes, 4)
        # Both have as many anchors in a cell.
        count = 4 * self.scores[0].shape[1] // self.boxes[0].shape[1]
        classes = _by_anchor(self.scores, count).sigmoid()
        return [
            self._one(one, codes, threshold) for one, codes in zip(classes, places, strict=True)
        ]

    def _one(
        self, scores: Tensor, codes: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        flat = scores.flatten()
        above = (flat >= threshold).nonzero()[:, 0]
        best = above[flat[above].topk(at_most(_CANDIDATES, above)).indices]
        anchor, label = best // scores.shape[1], best % scores.shape[1]
        boxes = self._decode(codes[anchor], self.anchors[anchor], output_xyxy=True)
        boxes = clip_boxes_to_image(boxes, self.shape)
        kept = batched_nms(boxes, flat[best], label, _NMS)[:_KEPT]
        kept = kept[(boxes[kept, 2:] > boxes[kept, :2]).all(dim=1)]
        return boxes[kept], flat[best][kept], label[kept] + 1


def _by_anchor(levels: Sequence[Tensor], each: int) -> Tensor:
    """(B, A, each) of all levels."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, each) for x in levels], dim=1)


def make_efficientdet(
    name: str, classes: int, bands: int, tile_px: int, anchor_scale: float, pretrained: bool
) -> tuple[EfficientDetNet, bool]:
    """The network, and whether pretrained weights are in its backbone."""
    build = partial(EfficientDetNet, name, classes, bands, tile_px, anchor_scale)
    return with_pretrained(lambda loaded: build(pretrained=loaded), name, pretrained)
