"""Object detection: boxes with classes and scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from geodl.base.options import as_float
from geodl.core.detections import Detections
from geodl.ops.average_precision import average_precision, mean_precision
from geodl.ops.nms import suppress
from geodl.tasks.base import Batch, Item, Meter, Task

# Detections that count for the training table: nearly all, as COCO scores them.
VALIDATION_THRESHOLD = 0.05
VALIDATION_IOU = 0.5


class DetectionOutput(Protocol):
    """What a detection network returns from ``net(x)``: raw answers that know what they mean.

    The heads of detectors differ (anchors, regions, queries), so the output brings the two things
    a task needs. In train mode only ``losses`` is called; in eval mode both may be.
    """

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """0-d tensors, ``"loss"`` and its parts, for ``boxes`` and ``labels`` of each image."""
        ...

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4) x0, y0, x1, y1 px, scores (N,) and labels (N,) 1..K of each image."""
        ...


class ObjectTask(Task):
    """Losses and boxes from any network whose output is a :class:`DetectionOutput`.

    Options
    -------
    nms_overlap
        IoU of two boxes of a class above which the weaker is dropped when the validation set is
        scored; 1 for networks that give each object once.
    threshold
        Least score of detections that count when the validation set is scored.
    """

    kind: ClassVar[Literal["objects"]] = "objects"
    metric_names = ("average_precision",)
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "nms_overlap": 0.1,
        "threshold": VALIDATION_THRESHOLD,
    }
    predict_defaults: ClassVar[Mapping[str, Any]] = {"thresh": 0.5, "nms_overlap": 0.1}

    def __init__(self, classes: Any, **options: Any) -> None:
        super().__init__(classes, **options)
        self.nms_overlap = as_share(self.options["nms_overlap"], "nms_overlap")
        self.threshold = as_share(self.options["threshold"], "threshold")

    # ---- training

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = net(batch["image"]).losses(batch["target"])
        return losses

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        output: DetectionOutput = net(batch["image"])
        found = _suppressed(output.decode(self.threshold), self.nms_overlap)
        return {"loss": output.losses(batch["target"])["loss"], "state": found}

    def new_meter(self) -> BoxMeter:
        return BoxMeter(len(self.classes))

    # ---- boxes

    def detect(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Detections]:
        """Objects in each image.

        Parameters
        ----------
        net
            In eval mode.
        x
            float32 (B, C, H, W), normalised, on the net's device.
        threshold
            Least score, 0..1.
        nms_overlap
            IoU of two boxes of a class above which the weaker is dropped.

        Returns
        -------
        Detections in pixels of the image, best first, cut at its edges.
        """
        output: DetectionOutput = net(x)
        return _suppressed(output.decode(threshold), nms_overlap)

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[Detections]:
        """:meth:`detect` with the options ``thresh`` (0.5) and ``nms_overlap`` (0.1)."""
        given = {**self.predict_defaults, **options}
        with torch.inference_mode():
            return self.detect(
                net,
                x,
                threshold=as_share(given["thresh"], "thresh"),
                nms_overlap=as_share(given["nms_overlap"], "nms_overlap"),
            )

    # ---- pictures

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        target = item["target"]
        truth = np.asarray(target["boxes"]), np.asarray(target["labels"])
        self._draw_boxes(ax_truth, picture, *truth)
        self.draw_detections(ax_pred, prediction, picture)

    def draw_detections(self, axes: Any, found: Detections, picture: np.ndarray) -> None:
        """Picture, boxes in class colours, and their scores."""
        self._draw_boxes(axes, picture, found.boxes, found.labels)
        for (x0, y0, _, _), label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            axes.text(
                x0,
                y0,
                f"{score:.2f}",
                fontsize=6,
                color=self._color(label),
                va="bottom",
                clip_on=True,
            )

    def _draw_boxes(
        self, axes: Any, picture: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> None:
        height, width = picture.shape[:2]
        # Whole numbers in the frame of the boxes are the edges of pixels, not their centres.
        axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
        for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            color = self._color(label)
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=1.5, color=color)
            )

    def _color(self, label: int) -> tuple[float, float, float]:
        red, green, blue = self.classes.entries[int(label) - 1].color
        return red / 255, green / 255, blue / 255


class PrecisionMeter(Meter):
    """Average precision of a pass; holds what was found and what is true, for all chips.

    Parameters
    ----------
    class_count
        K.
    iou_threshold
        Least overlap of a match.
    """

    def __init__(self, class_count: int, iou_threshold: float = VALIDATION_IOU) -> None:
        self.class_count = class_count
        self.iou_threshold = iou_threshold
        self.truth: list[Any] = []
        self.found: list[Any] = []

    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        self.found.extend(result["state"])
        self.truth.extend(
            (target["boxes"].cpu().numpy(), target["labels"].cpu().numpy())
            for target in batch["target"]
        )

    def saw_labels(self) -> bool:
        return any(len(labels) for _, labels in self.truth)

    @abstractmethod
    def by_class(self) -> np.ndarray:
        """float64 (K,): average precision; NaN for a class without truth."""

    def compute(self) -> dict[str, float]:
        return {"average_precision": mean_precision(self.by_class())}


class BoxMeter(PrecisionMeter):
    """Average precision of boxes by IoU; holds some 50 bytes per object."""

    def by_class(self) -> np.ndarray:
        threshold = (self.iou_threshold,)
        return average_precision(self.truth, self.found, self.class_count, threshold)[:, 0]


def as_share(value: Any, name: str) -> float:
    """A number of 0..1."""
    return as_float(value, name, minimum=0.0, maximum=1.0)


def _suppressed(
    decoded: Sequence[tuple[Tensor, Tensor, Tensor]], nms_overlap: float
) -> list[Detections]:
    found = []
    for parts in decoded:
        boxes, scores, labels = (part.detach().cpu().numpy() for part in parts)
        keep = suppress(boxes, scores, labels, nms_overlap)
        found.append(
            Detections(
                boxes[keep].astype(np.float64),
                scores[keep].astype(np.float32),
                labels[keep].astype(np.int64),
            )
        )
    return found
