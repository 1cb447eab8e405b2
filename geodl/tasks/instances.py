"""Instance segmentation: objects with a mask, a class and a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.options import as_float, check_choice
from geodl.core.detections import Detections
from geodl.ops.average_precision import encode_masks, mask_precision
from geodl.ops.nms import suppress
from geodl.tasks.base import Batch, Item
from geodl.tasks.objects import ObjectTask, PrecisionMeter, as_share

DrawMode = Literal["bbox", "mask", "bbox_mask"]
DRAW_MODES: tuple[DrawMode, ...] = ("bbox", "mask", "bbox_mask")
# A pixel belongs to an object from this share on.
MASK_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of an image with their masks.

    Parameters
    ----------
    found
        Their boxes, scores and labels.
    masks
        float32 (N, H, W), 0..1: how surely a pixel belongs to the object.
    """

    found: Detections
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.found)

    def take(self, which: np.ndarray) -> Instances:
        """Those at the given positions, or where a bool mask is True."""
        return Instances(self.found.take(which), self.masks[which])

    def solid(self, threshold: float = MASK_THRESHOLD) -> np.ndarray:
        """bool (N, H, W): pixels that belong to each object."""
        inside: np.ndarray = self.masks >= threshold
        return inside

    def suppressed(self, nms_overlap: float) -> Instances:
        """Best first, without those whose mask overlaps a better one of their class too much.

        Boxes of slanting neighbours overlap where the objects do not, so masks are compared.
        """
        height, width = self.masks.shape[1:]
        flat = self.solid().reshape(len(self), height * width).astype(np.float32)
        common = flat @ flat.T
        area = common.diagonal()
        union = area[:, None] + area[None] - common
        iou = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        found = self.found
        return self.take(
            suppress(
                found.boxes, found.scores, found.labels, nms_overlap, overlap=lambda i, j: iou[i, j]
            )
        )


@dataclass(frozen=True, slots=True)
class InstancePicture:
    """A prediction with how it is to be drawn."""

    instances: Instances
    mode: DrawMode
    mask_threshold: float
    alpha: float
    cmap: str


class InstanceTask(ObjectTask):
    """Losses, boxes and masks from any network whose output also has ``decode_masks``."""

    kind: ClassVar[Literal["instances"]] = "instances"  # type: ignore[assignment]
    predict_defaults: ClassVar[Mapping[str, Any]] = {
        "mode": "mask",
        "mask_threshold": MASK_THRESHOLD,
        "box_threshold": 0.7,
        "nms_overlap": 0.1,
        "alpha": 0.5,
        "cmap": "tab20",
    }

    def instances(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Instances]:
        """Objects in each image, best first; arguments as in :meth:`detect`."""
        return self.from_output(net(x), threshold, nms_overlap)

    def from_output(self, output: Any, threshold: float, nms_overlap: float) -> list[Instances]:
        """Objects in each image of what the network gave."""
        answers = []
        for parts in output.decode_masks(threshold):
            boxes, scores, labels, masks = (part.detach().float().cpu().numpy() for part in parts)
            found = Detections(boxes.astype(np.float64), scores, labels.astype(np.int64))
            answers.append(Instances(found, masks).suppressed(nms_overlap))
        return answers

    def detect(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Detections]:
        every = self.instances(net, x, threshold=threshold, nms_overlap=nms_overlap)
        return [one.found for one in every]

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        output = net(batch["image"])
        found = self.from_output(output, self.threshold, self.nms_overlap)
        return {"loss": output.losses(batch["target"])["loss"], "state": found}

    def new_meter(self) -> InstanceMeter:  # type: ignore[override]  # counts masks, not boxes
        return InstanceMeter(len(self.classes))

    # ---- pictures

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[Any]:
        """What :meth:`draw` takes, by the options in ``predict_defaults``."""
        given = {**self.predict_defaults, **options}
        check_choice(given["mode"], DRAW_MODES, "mode")
        check_choice(given["cmap"], sorted(mpl.colormaps), "cmap")
        with torch.inference_mode():
            every = self.instances(
                net,
                x,
                threshold=as_share(given["box_threshold"], "box_threshold"),
                nms_overlap=as_share(given["nms_overlap"], "nms_overlap"),
            )
        return [self._picture(one, given) for one in every]

    def _picture(self, one: Instances, given: Mapping[str, Any]) -> InstancePicture:
        return InstancePicture(
            one,
            given["mode"],
            as_share(given["mask_threshold"], "mask_threshold"),
            as_float(given["alpha"], "alpha", minimum=0.0, maximum=1.0),
            given["cmap"],
        )

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        target = item["target"]
        boxes, labels = np.asarray(target["boxes"], np.float64), np.asarray(target["labels"])
        truth = Detections(boxes, np.ones(len(boxes), np.float32), labels)
        self._draw_instances(ax_truth, truth, np.asarray(target["masks"]), prediction, picture)
        shown: Instances = prediction.instances
        solid = shown.solid(prediction.mask_threshold)
        self._draw_instances(ax_pred, shown.found, solid, prediction, picture)

    def _draw_instances(
        self, axes: Any, found: Detections, masks: np.ndarray, how: Any, picture: np.ndarray
    ) -> None:
        layers = picture if how.mode == "bbox" else _tinted(picture, masks, how.alpha, how.cmap)
        shown = found if how.mode != "mask" else Detections.none()
        self._draw_boxes(axes, layers, shown.boxes, shown.labels)


def _tinted(picture: np.ndarray, masks: np.ndarray, alpha: float, cmap: str) -> np.ndarray:
    """uint8 (H, W, 3): the picture with every mask in the next colour of the map."""
    colours = mpl.colormaps[cmap]
    mixed = picture.astype(np.float64)
    for number, mask in enumerate(masks):
        colour = np.array(colours(number % colours.N)[:3]) * 255
        mixed[mask] = (1 - alpha) * mixed[mask] + alpha * colour
    tinted: np.ndarray = mixed.round().astype(np.uint8)
    return tinted


class InstanceMeter(PrecisionMeter):
    """Average precision of masks by IoU; holds them compressed."""

    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        for one in result["state"]:
            self.found.append((encode_masks(one.solid()), one.found))
        for target in batch["target"]:
            masks, labels = (target[key].cpu().numpy() for key in ("masks", "labels"))
            self.truth.append((encode_masks(masks), labels))

    def by_class(self) -> np.ndarray:
        return mask_precision(self.truth, self.found, self.class_count, (self.iou_threshold,))[:, 0]
