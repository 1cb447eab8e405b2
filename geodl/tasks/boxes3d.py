"""Detection of objects among points: oriented boxes with classes and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from geodl.core.oriented import OrientedBoxes
from geodl.nets.voxels import make_voxels
from geodl.ops.boxes3d import footprints, oriented_precision, suppress_oriented
from geodl.tasks.base import Batch, Item, Task
from geodl.tasks.objects import PrecisionMeter, as_share

VALIDATION_THRESHOLD = 0.05


class BoxOutput(Protocol):
    """What a network of oriented boxes returns."""

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """0-d tensors, ``"loss"`` and its parts."""
        ...

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 7), scores (N,) and labels (N,) 1..K of each block."""
        ...


class BoxTask(Task):
    """Losses and oriented boxes of a network whose output is a :class:`BoxOutput`.

    Options
    -------
    space
        The options of :func:`geodl.nets.voxels.make_voxels`.
    nms_overlap
        Overlap of two boxes of a class, seen from above, beyond which the weaker is dropped when
        the validation set is scored.
    threshold
        Least score of detections that count then.
    """

    kind: ClassVar[Literal["boxes3d"]] = "boxes3d"
    metric_names = ("average_precision",)
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "space": {},
        "nms_overlap": 0.2,
        "threshold": VALIDATION_THRESHOLD,
    }
    predict_defaults: ClassVar[Mapping[str, Any]] = {"detect_thresh": 0.3, "nms_overlap": 0.01}

    def __init__(self, classes: Any, **options: Any) -> None:
        super().__init__(classes, **options)
        self.nms_overlap = as_share(self.options["nms_overlap"], "nms_overlap")
        self.threshold = as_share(self.options["threshold"], "threshold")

    # ---- batches

    def prepare(
        self,
        blocks: Sequence[np.ndarray | Tensor],
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Batch:
        """A batch of blocks, ready for the network; as that of classifiers of points.

        Returns
        -------
        ``points`` float32 (B, M, 3 + F), padded, heights above the block's median; ``level``
        float32 (B,), these medians; ``length`` int64 (B,); ``voxels``.
        """
        tables = [torch.as_tensor(block, dtype=torch.float32) for block in blocks]
        level = torch.stack([median_height(table) for table in tables])
        points = nn.utils.rnn.pad_sequence(tables, batch_first=True)
        # Exports differ in what they count heights from; this does not.
        points[:, :, 2] -= level[:, None]
        length = torch.tensor([len(table) for table in tables])
        if device is not None:
            points = points.to(device)
        voxels = make_voxels(points, length, self.options["space"], generator)
        return {"points": points, "level": level, "length": length, "voxels": voxels}

    def collate(self, items: Sequence[Item]) -> Batch:
        return self._collate(items, None)

    def train_collate(self, items: Sequence[Item]) -> Batch:
        """The same, with as many voxels as in training, drawn anew each time."""
        return self._collate(items, torch.default_generator)

    def _collate(self, items: Sequence[Item], generator: torch.Generator | None) -> Batch:
        batch = self.prepare([item["points"] for item in items], generator=generator)
        target = [
            self._within(item["target"], level)
            for item, level in zip(items, batch["level"], strict=True)
        ]
        return {**batch, "target": target, "name": [item["name"] for item in items]}

    def _within(self, target: Mapping[str, Tensor], level: Tensor) -> dict[str, Tensor]:
        """The objects whose centre lies in the space that is looked at: turning moves some out."""
        boxes = target["boxes"]
        low, high = (boxes.new_tensor(self.options["space"][k][:2]) for k in ("low", "high"))
        inside = ((boxes[:, :2] >= low) & (boxes[:, :2] < high)).all(dim=1)
        boxes = boxes[inside].clone()
        boxes[:, 2] -= level
        return {"boxes": boxes, "labels": target["labels"][inside]}

    # ---- training

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self._answer(net, batch).losses(batch["target"])
        return losses

    def _answer(self, net: nn.Module, batch: Batch) -> BoxOutput:
        output: BoxOutput = net({"points": batch["points"], "voxels": batch["voxels"]})
        return output

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        output = self._answer(net, batch)
        found = _suppressed(output.decode(self.threshold), self.nms_overlap)
        return {"loss": output.losses(batch["target"])["loss"], "state": found}

    def new_meter(self) -> OrientedMeter:
        return OrientedMeter(len(self.classes))

    # ---- boxes

    def detect(
        self, net: nn.Module, batch: Batch, *, threshold: float, nms_overlap: float
    ) -> list[OrientedBoxes]:
        """Objects in each block, best first.

        Parameters
        ----------
        net
            In eval mode.
        batch
            Of :meth:`prepare`, on the net's device.
        threshold
            Least score, 0..1.
        nms_overlap
            Overlap of two boxes of a class, seen from above, beyond which the weaker is dropped.

        Returns
        -------
        Boxes in units of the CRS around the block's origin.
        """
        found = _suppressed(self._answer(net, batch).decode(threshold), nms_overlap)
        return [
            boxes.shift(0.0, 0.0, level)
            for boxes, level in zip(found, batch["level"].tolist(), strict=True)
        ]

    def predict(self, net: nn.Module, x: Any, **options: Any) -> list[OrientedBoxes]:
        """:meth:`detect` with the options ``detect_thresh`` and ``nms_overlap``."""
        given = {**self.predict_defaults, **options}
        with torch.inference_mode():
            return self.detect(
                net,
                x,
                threshold=as_share(given["detect_thresh"], "detect_thresh"),
                nms_overlap=as_share(given["nms_overlap"], "nms_overlap"),
            )

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        """Points with the outlines of boxes, in two axes of three dimensions.

        Parameters
        ----------
        picture
            Of no use for points.
        """
        xyz = np.asarray(item["points"][:, :3])
        truth = np.asarray(item["target"]["boxes"], np.float64)
        for axes, boxes in ((ax_truth, truth), (ax_pred, prediction.boxes)):
            axes.scatter(*xyz.T, s=1)
            for outline, box in zip(footprints(boxes), boxes, strict=True):
                ring = np.asarray(outline.exterior.coords)
                for level in (box[2], box[2] + box[5]):
                    axes.plot(ring[:, 0], ring[:, 1], np.full(len(ring), level), color="black")
            axes.set_aspect("equal")


def median_height(points: Tensor) -> Tensor:
    """float32 scalar: of points (N, 3 or more); 0 where there is none."""
    return points[:, 2].median() if len(points) else points.new_zeros(())


class OrientedMeter(PrecisionMeter):
    """Average precision of boxes in space by the overlap of volumes."""

    def by_class(self) -> np.ndarray:
        return oriented_precision(self.truth, self.found, self.class_count, self.iou_threshold)


def _suppressed(
    decoded: Sequence[tuple[Tensor, Tensor, Tensor]], nms_overlap: float
) -> list[OrientedBoxes]:
    found = []
    for parts in decoded:
        boxes, scores, labels = (part.detach().cpu().numpy() for part in parts)
        every = OrientedBoxes(
            boxes.astype(np.float64), scores.astype(np.float32), labels.astype(np.int64)
        )
        found.append(suppress_oriented(every, nms_overlap))
    return found
