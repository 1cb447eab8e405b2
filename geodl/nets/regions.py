"""Detectors in two stages: regions that may hold an object, then what each one holds.

Heads and losses are those of torchvision (Faster R-CNN: Ren et al. 2015, 1506.01497; pyramid: Lin
et al. 2017, 1612.03144). What differs is around them: any backbone, any bands, images that come
normalised and keep their size, anchors on the true strides, and half precision that ends before
coordinates begin.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import _topk_min
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
)

from geodl.nets.backbones import STRIDES, Backbone

WIDTH = 256
HIDDEN = 1024
REGION_STRIDES = (*STRIDES, 64)
RATIOS = (0.5, 1.0, 2.0)
# Steps between the sides of the anchors of neighbouring levels.
_OCTAVE = 2.0

Targets = Sequence[Mapping[str, Tensor]]


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid, as torchvision's detectors take it.

    Parameters
    ----------
    body
        The backbone.
    first
        Position in ``STRIDES`` of the finest map that is used.
    extra
        Makes the coarser maps.
    norm
        Layer after each convolution of the pyramid; None is torchvision's own pyramid.
    """

    def __init__(
        self,
        body: Backbone,
        extra: ExtraFPNBlock,
        *,
        first: int = 0,
        norm: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.first = first
        self.fpn = FeaturePyramidNetwork(list(body.channels[first:]), WIDTH, extra, norm)
        self.out_channels = WIDTH

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.body(x)[self.first :]
        named: OrderedDict[str, Tensor] = self.fpn(
            OrderedDict((str(level), part) for level, part in enumerate(maps))
        )
        return named


class StridedAnchors(AnchorGenerator):
    """Anchors on the levels' own strides, in full precision.

    torchvision divides the image by the map instead, which is another number where a side is no
    whole number of the coarsest cells.
    """

    def __init__(
        self,
        strides: Sequence[int],
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float] = RATIOS,
    ) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        device = feature_maps[0].device
        parts: list[Tensor] = []
        for level, stride in zip(feature_maps, self.strides, strict=True):
            rows, cols = level.shape[-2:]
            x = torch.arange(cols, device=device) * stride
            y = torch.arange(rows, device=device) * stride
            shift_y, shift_x = (part.reshape(-1) for part in torch.meshgrid(y, x, indexing="ij"))
            shift = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=1)
            cell = self.cell_anchors[len(parts)].to(device)
            parts.append((shift[:, None] + cell[None]).reshape(-1, 4))
        return [torch.cat(parts)] * len(image_list.image_sizes)


def octave_sizes(finest_px: float, levels: int) -> list[tuple[float]]:
    """One anchor side for each level, twice the one before."""
    return [(finest_px * _OCTAVE**level,) for level in range(levels)]


class ExactRPNHead(RPNHead):
    """torchvision's head; its answers leave half precision, as coordinates need more bits."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [part.float() for part in objectness], [part.float() for part in deltas]


class ExactPredictor(FastRCNNPredictor):
    """torchvision's predictor; its answers leave half precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class RegionNet(nn.Module):
    """Faster R-CNN over a backbone.

    Parameters
    ----------
    body
        The backbone.
    classes
        K; output 0 is background.
    finest_px
        Side of the anchors of the finest level; each coarser one has twice the one before.
    options
        torchvision's own ``rpn_`` and ``box_`` arguments.
    deep
        The deeper, normalised heads of torchvision's second version, which COCO's weights have.
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
        super().__init__()
        parts = region_parts(body, classes, finest_px, deep)
        self.detector = self.make_detector(parts, classes, options, deep)

    def make_detector(
        self, parts: dict[str, Any], classes: int, options: Mapping[str, Any], deep: bool
    ) -> FasterRCNN:
        """torchvision's detector with our parts."""
        return FasterRCNN(**parts, **options)

    @property
    def backbone(self) -> Backbone:
        """What is frozen after loading pretrained weights."""
        body: Backbone = self.detector.backbone.body
        return body

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late backbone, then all that is new."""
        early, late = self.backbone.halves()
        detector = self.detector
        return [early, late, [detector.backbone.fpn, detector.rpn, detector.roi_heads]]

    def forward(self, x: Tensor) -> RegionOutput:
        """Feature maps of float (B, C, H, W), with what makes losses or boxes of them."""
        images = padded_images(x)
        maps = self.detector.backbone(images.tensors)
        precision = partial(
            torch.autocast,
            x.device.type,
            dtype=torch.get_autocast_dtype(x.device.type),
            enabled=torch.is_autocast_enabled(x.device.type),
        )
        return self.output(
            list(maps.values()),
            partial(self._losses, precision, images, maps),
            partial(self._found, precision, images, maps),
            images.image_sizes[0],
        )

    def output(
        self,
        maps: list[Tensor],
        losses: Callable[[Targets], dict[str, Tensor]],
        found: Callable[[], list[dict[str, Tensor]]],
        shape: tuple[int, int],
    ) -> RegionOutput:
        """The output of this kind of network; ``shape`` is that of the images."""
        return RegionOutput(maps, losses, found)

    def _losses(
        self, precision: Any, images: ImageList, maps: dict[str, Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        detector, given = self.detector, [dict(target) for target in targets]
        with precision(), training_heads(detector.rpn, detector.roi_heads):
            regions, losses = detector.rpn(images, maps, given)
            _, more = detector.roi_heads(maps, regions, images.image_sizes, given)
        return {**more, **losses}

    def _found(
        self, precision: Any, images: ImageList, maps: dict[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        detector = self.detector
        with precision():
            regions, _ = detector.rpn(images, maps)
            found: list[dict[str, Tensor]]
            found, _ = detector.roi_heads(maps, regions, images.image_sizes)
        return found


def region_parts(body: Backbone, classes: int, finest_px: float, deep: bool) -> dict[str, Any]:
    """What torchvision's two-stage detectors are made of, besides their options."""
    anchors = StridedAnchors(REGION_STRIDES, octave_sizes(finest_px, len(REGION_STRIDES)))
    parts = {
        "backbone": PyramidBackbone(body, LastLevelMaxPool(), norm=nn.BatchNorm2d),
        "rpn_anchor_generator": anchors,
        "rpn_head": ExactRPNHead(
            WIDTH, anchors.num_anchors_per_location()[0], conv_depth=2 if deep else 1
        ),
        "box_predictor": ExactPredictor(HIDDEN, classes + 1),
    }
    if deep:
        parts["box_head"] = FastRCNNConvFCHead(
            (WIDTH, 7, 7), [WIDTH] * 4, [HIDDEN], norm_layer=nn.BatchNorm2d
        )
    return parts


class RegionOutput:
    """What a two-stage network says of a batch of images.

    Parameters
    ----------
    maps
        Feature maps, finest first.
    losses
        Makes the parts of the loss from targets.
    found
        Makes ``boxes``, ``scores`` and ``labels`` of each image.
    """

    # No dataclass: the training engine would copy it field by field.
    def __init__(
        self,
        maps: list[Tensor],
        losses: Callable[[Targets], dict[str, Tensor]],
        found: Callable[[], list[dict[str, Tensor]]],
    ) -> None:
        self.maps = maps
        self.parts = losses
        self.found = found

    def losses(self, targets: Targets) -> dict[str, Tensor]:
        """0-d ``loss`` and its parts: regions' objectness and place, objects' class and place."""
        parts = self.parts(targets)
        return {"loss": sum_of(parts), **parts}

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) 1..K of each image, from a score on."""
        return [above(part, threshold) for part in self.found()]


def above(found: Mapping[str, Tensor], threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the detections of an image from a score on."""
    keep = found["scores"] >= threshold
    return found["boxes"][keep], found["scores"][keep], found["labels"][keep]


def at_most(count: int, values: Tensor) -> int:
    """``count``, or as many values as there are; also while the network is traced for export."""
    fewer: int = _topk_min(values, count, 0)
    return fewer


def sum_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The loss of its parts."""
    return torch.stack(list(parts.values())).sum()


def padded_images(x: Tensor) -> ImageList:
    """The images grown to whole coarsest cells of the backbone, with their true sizes."""
    height, width = x.shape[-2:]
    lower, right = -height % STRIDES[-1], -width % STRIDES[-1]
    if lower or right:
        x = functional.pad(x, (0, right, 0, lower), mode="replicate")
    return ImageList(x, [(height, width)] * len(x))


@contextmanager
def training_heads(*heads: nn.Module) -> Iterator[None]:
    """Let heads make losses, also of a network in eval mode, whose layers stay in that mode.

    They draw samples; outside training always the same ones, so that losses can be compared.
    """
    before = [head.training for head in heads]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices, enabled=not all(before)):
        if not all(before):
            torch.manual_seed(0)
        for head in heads:
            head.training = True
        try:
            yield
        finally:
            for head, mode in zip(heads, before, strict=True):
                head.training = mode
