"""Mask R-CNN (He et al. 2017, 1703.06870): boxes in two stages, and a mask in each.

With PointRend (Kirillov et al. 2020, 1912.08193) masks are learned and refined at points besides.
Heads and losses are those of torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    fastrcnn_loss,
    maskrcnn_loss,
    paste_masks_in_image,
)
from torchvision.ops import roi_align

from geodl.nets.backbones import STRIDES, Backbone
from geodl.nets.pointrend import (
    PointHead,
    refine,
    sample_points,
    training_points,
)
from geodl.nets.regions import (
    WIDTH,
    RegionNet,
    RegionOutput,
    Targets,
    above,
    training_heads,
)

# Side of the finest map's crop of a region that points read, and of a refined mask.
CROP_CELLS = 28
REFINED_CELLS = 112
# Points of a region in training: 3.1 of 1912.08193.
POINTS = 14 * 14
_LARGEST_LOGIT = 8.0


class ExactMaskPredictor(MaskRCNNPredictor):
    """torchvision's predictor; its answers leave half precision."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits.float()


class MaskRegionNet(RegionNet):
    """Mask R-CNN over a backbone; see :class:`geodl.nets.regions.RegionNet`."""

    def make_detector(
        self, parts: dict[str, Any], classes: int, options: Mapping[str, Any], deep: bool
    ) -> FasterRCNN:
        head = MaskRCNNHeads(WIDTH, [WIDTH] * 4, 1, norm_layer=nn.BatchNorm2d) if deep else None
        return MaskRCNN(
            **parts,
            mask_head=head,
            mask_predictor=ExactMaskPredictor(WIDTH, WIDTH, classes + 1),
            **options,
        )

    def output(
        self,
        maps: list[Tensor],
        losses: Callable[[Targets], dict[str, Tensor]],
        found: Callable[[], list[dict[str, Tensor]]],
        shape: tuple[int, int],
    ) -> MaskOutput:
        return MaskOutput(maps, losses, found, shape)


class PointMaskNet(MaskRegionNet):
    """Mask R-CNN with PointRend on top of its masks.

    The point head reads the finest map of the pyramid and the mask of the object's own class, so
    that one head serves all classes.
    """

    def __init__(
        self,
        body: Backbone,
        classes: int,
        finest_px: float,
        options: Mapping[str, Any],
        *,
        deep: bool = False,
    ) -> None:
        super().__init__(body, classes, finest_px, options, deep=deep)
        self.points = PointHead(WIDTH, 1)

    def layer_groups(self) -> list[list[nn.Module]]:
        early, late, new = super().layer_groups()
        return [early, late, [*new, self.points]]

    def _losses(
        self, precision: Any, images: ImageList, maps: dict[str, Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        detector, given = self.detector, [dict(target) for target in targets]
        heads, sizes = detector.roi_heads, images.image_sizes
        with precision(), training_heads(detector.rpn, heads):
            regions, losses = detector.rpn(images, maps, given)
            regions, match, labels, offsets = heads.select_training_samples(regions, given)
            features = heads.box_head(heads.box_roi_pool(maps, regions, sizes))
            scores, moves = heads.box_predictor(features)
            class_loss, box_loss = fastrcnn_loss(scores, moves, labels, offsets)
            objects = [torch.where(own > 0)[0] for own in labels]
            boxes = [own[which] for own, which in zip(regions, objects, strict=True)]
            match = [own[which] for own, which in zip(match, objects, strict=True)]
            pooled = heads.mask_roi_pool(maps, boxes, sizes)
            logits = heads.mask_predictor(heads.mask_head(pooled))
            masks, classes = [t["masks"] for t in given], [t["labels"] for t in given]
            mask_loss = maskrcnn_loss(logits, boxes, masks, classes, match)
            own_class = torch.cat([c[m] for c, m in zip(classes, match, strict=True)])
            coarse = logits[torch.arange(len(logits), device=logits.device), own_class][:, None]
            point_loss = self._point_loss(maps, boxes, coarse, masks, match)
        return {
            "loss_classifier": class_loss,
            "loss_box_reg": box_loss,
            "loss_mask": mask_loss,
            "loss_point": point_loss,
            **losses,
        }

    def _point_loss(
        self,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        coarse: Tensor,
        masks: Sequence[Tensor],
        match: Sequence[Tensor],
    ) -> Tensor:
        if not len(coarse):
            return coarse.sum() + sum(p.sum() for p in self.points.parameters()) * 0
        points = training_points(coarse, POINTS)
        fine = sample_points(_crops(maps, boxes), points)
        answer = self.points(fine, sample_points(coarse, points))
        parts = points.split([len(own) for own in boxes])
        truth = [
            _mask_at(mask, own, which, places)
            for mask, own, which, places in zip(masks, boxes, match, parts, strict=True)
        ]
        return functional.binary_cross_entropy_with_logits(answer[:, 0].float(), torch.cat(truth))

    def _found(
        self, precision: Any, images: ImageList, maps: dict[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        found = super()._found(precision, images, maps)
        for image, one in enumerate(found):
            if not len(one["boxes"]):
                continue
            own = {key: level[image : image + 1] for key, level in maps.items()}
            coarse = one["masks"].logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
            with precision():
                crops = _crops(own, [one["boxes"]])
                fine = refine(coarse, [crops], self.points, (REFINED_CELLS,) * 2)
            one["masks"] = fine.float().sigmoid()
        return found


def _crops(maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """float (R, WIDTH, CROP_CELLS, CROP_CELLS): the finest map's part in each region."""
    crops: Tensor = roi_align(
        maps["0"], list(boxes), CROP_CELLS, 1 / STRIDES[0], sampling_ratio=1, aligned=True
    )
    return crops


def _mask_at(masks: Tensor, boxes: Tensor, match: Tensor, points: Tensor) -> Tensor:
    """float32 (R, N): the truth of each region at its points, shares of the region."""
    if not len(boxes):
        return points.new_zeros(0, points.shape[1])
    height, width = masks.shape[-2:]
    place = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
    cols = place[..., 0].long().clamp(0, width - 1)
    rows = place[..., 1].long().clamp(0, height - 1)
    return masks[match[:, None], rows, cols].float()


class MaskOutput(RegionOutput):
    """What Mask R-CNN says of a batch of images.

    Parameters
    ----------
    shape
        Height and width of the images.
    """

    def __init__(
        self,
        maps: list[Tensor],
        losses: Callable[[Targets], dict[str, Tensor]],
        found: Callable[[], list[dict[str, Tensor]]],
        shape: tuple[int, int],
    ) -> None:
        super().__init__(maps, losses, found)
        self.shape = shape

    def decode_masks(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,), labels (N,) and float32 (N, H, W) masks of 0..1 by image."""
        answers = []
        for one in self.found():
            boxes, scores, labels = above(one, threshold)
            small = one["masks"][one["scores"] >= threshold]
            masks = paste_masks_in_image(small.float(), boxes, self.shape)[:, 0]
            answers.append((boxes, scores, labels, masks))
        return answers
