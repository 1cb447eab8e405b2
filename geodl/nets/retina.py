"""RetinaNet (Lin et al. 2017, 1708.02002): a dense detector with a focal loss.

Head, matching and losses are those of torchvision, its second version: group normalisation in the
head, and boxes learned by generalised IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from geodl.nets.backbones import STRIDES, Backbone
from geodl.nets.regions import (
    WIDTH,
    PyramidBackbone,
    StridedAnchors,
    Targets,
    at_most,
    padded_images,
    sum_of,
)

RETINA_STRIDES = (8, 16, 32, 64, 128)
# Sides of the anchors of scale 1, in cells: 32 px on the finest level, as in the paper.
CELLS_PER_SCALE = 4
_FIRST = STRIDES.index(RETINA_STRIDES[0])


class RetinaPyramidNet(nn.Module):
    """RetinaNet over a backbone.

    Parameters
    ----------
    body
        The backbone.
    classes
        K; background is no output.
    scales
        Sides of the anchors of each cell, in four cells.
    ratios
        Their heights over their widths; each goes with each scale.
    plain
        No normalisation in the pyramid: torchvision's second version, which COCO's weights have.
    """

    def __init__(
        self,
        body: Backbone,
        classes: int,
        scales: Sequence[float],
        ratios: Sequence[float],
        *,
        plain: bool = False,
    ) -> None:
        super().__init__()
        sizes = [[CELLS_PER_SCALE * stride * s for s in scales] for stride in RETINA_STRIDES]
        anchors = StridedAnchors(RETINA_STRIDES, sizes, ratios)
        head = RetinaNetHead(
            WIDTH,
            anchors.num_anchors_per_location()[0],
            classes,
            norm_layer=partial(nn.GroupNorm, 32),
        )
        head.regression_head._loss_type = "giou"
        extra = LastLevelP6P7(body.channels[-1], WIDTH)
        norm = None if plain else nn.BatchNorm2d
        pyramid = PyramidBackbone(body, extra, first=_FIRST, norm=norm)
        self.detector = RetinaNet(pyramid, classes, anchor_generator=anchors, head=head)

    @property
    def backbone(self) -> Backbone:
        """What is frozen after loading pretrained weights."""
        body: Backbone = self.detector.backbone.body
        return body

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = self.backbone.halves()
        return [early, late, [self.detector.backbone.fpn, self.detector.head]]

    def forward(self, x: Tensor) -> RetinaOutput:
        """Scores and boxes of all anchors for float (B, C, H, W)."""
        images = padded_images(x)
        maps = list(self.detector.backbone(images.tensors).values())
        # Half precision ends here: coordinates need more than 8 bits.
        answers = {key: part.float() for key, part in self.detector.head(maps).items()}
        anchors = self.detector.anchor_generator(images, maps)[0]
        cells = [level.shape[-2] * level.shape[-1] for level in maps]
        per_cell = len(anchors) // sum(cells)
        return RetinaOutput(
            self.detector, answers, anchors, [per_cell * n for n in cells], images.image_sizes[0]
        )


class RetinaOutput:
    """What the network says of every anchor; makes losses of it, or boxes.

    Parameters
    ----------
    detector
        Whose matching, coding and limits count.
    answers
        ``cls_logits`` float32 (B, A, K) and ``bbox_regression`` float32 (B, A, 4).
    anchors
        float32 (A, 4).
    levels
        Anchors of each level.
    shape
        Height and width of the image.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self,
        detector: RetinaNet,
        answers: dict[str, Tensor],
        anchors: Tensor,
        levels: Sequence[int],
        shape: tuple[int, int],
    ) -> None:
        self.answers = answers
        self.anchors = anchors
        self.levels = list(levels)
        self.shape = shape
        self._loss = detector.compute_loss
        self._coder = detector.box_coder.decode_single
        self._most = detector.topk_candidates
        self._nms = detector.nms_thresh
        self._kept = detector.detections_per_img

    def losses(self, targets: Targets) -> dict[str, Tensor]:
        """0-d ``loss``, ``classification`` and ``bbox_regression``."""
        given: list[Mapping[str, Tensor]] = [
            {"boxes": t["boxes"], "labels": t["labels"] - 1} for t in targets
        ]
        parts: dict[str, Tensor] = self._loss(given, self.answers, [self.anchors] * len(given))
        return {"loss": sum_of(parts), **parts}

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) 1..K of each image, from a score on."""
        scores = self.answers["cls_logits"].sigmoid()
        return [
            self._one(one, offsets, threshold)
            for one, offsets in zip(scores, self.answers["bbox_regression"], strict=True)
        ]

    def _one(
        self, scores: Tensor, offsets: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of each level, without those that a better one of their class overlaps."""
        classes = scores.shape[1]
        chosen, start = [], 0
        for level in scores.split(self.levels):
            flat = level.flatten()
            places = (flat >= threshold).nonzero()[:, 0]
            best = flat[places].topk(at_most(self._most, places)).indices
            chosen.append(places[best] + start * classes)
            start += len(level)
        picked = torch.cat(chosen)
        anchor, label = picked // classes, picked % classes
        boxes = clip_boxes_to_image(self._coder(offsets[anchor], self.anchors[anchor]), self.shape)
        score = scores[anchor, label]
        kept = batched_nms(boxes, score, label, self._nms)[: self._kept]
        # Boxes beyond the image have shrunk to its edge.
        kept = kept[(boxes[kept, 2:] > boxes[kept, :2]).all(dim=1)]
        return boxes[kept], score[kept], label[kept] + 1
