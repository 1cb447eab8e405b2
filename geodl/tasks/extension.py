"""Tasks of networks that a user's own class builds, feeds and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.errors import ModelDataError
from geodl.core.classes import ClassTable
from geodl.core.detections import Detections
from geodl.tasks.base import Batch
from geodl.tasks.objects import ObjectTask
from geodl.tasks.pixel_metrics import confusion
from geodl.tasks.pixels import PixelTask

# So sure is a class that is given as a mask rather than as scores.
_SURE = 20.0


@dataclass(frozen=True)
class ExtensionData:
    """What ``get_model`` is told of the data; the same in training and from a package.

    Parameters
    ----------
    classes
        Names of the classes, without background.
    c
        Their number with background: outputs of a segmentation network.
    chip_size
        Side of the chips in pixels.
    bands
        Of the images; ``n_bands`` is the same.
    """

    classes: tuple[str, ...]
    class_values: tuple[int, ...]
    chip_size: int
    bands: int
    kind: str

    @property
    def c(self) -> int:
        return len(self.classes) + 1

    @property
    def n_bands(self) -> int:
        return self.bands


@dataclass(frozen=True)
class ExtensionLearner:
    """What ``on_batch_begin`` gets as ``learn``: the network and facts of the data."""

    model: nn.Module
    data: ExtensionData


class _Hooks:
    """Calls of the user's class; part of both tasks."""

    def __init__(self, configuration: Any, data: ExtensionData) -> None:
        self.configuration = configuration
        self.data = data

    def train_step(self, net: nn.Module, images: Tensor, targets: list[Tensor]) -> Tensor:
        """The loss of a batch, by the user's ``on_batch_begin`` and ``loss``."""
        learn = ExtensionLearner(net, self.data)
        given = self.configuration.on_batch_begin(learn, images, targets)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ModelDataError(
                "on_batch_begin() of the model's class returns a pair: what the network takes, and "
                "what loss() takes."
            )
        inputs, expected = given
        expected = list(expected) if isinstance(expected, tuple | list) else [expected]
        loss = self.configuration.loss(net(*_several(inputs)), *expected)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            raise ModelDataError("loss() of the model's class returns one number, a 0-d tensor.")
        return loss

    def forward(self, net: nn.Module, x: Tensor) -> Any:
        """The network's answer in inference, by the user's transform."""
        name = "transform_input" if self.data.bands == 3 else "transform_input_multispectral"
        transform = getattr(self.configuration, name, None)
        return net(*_several(x if transform is None else transform(x)))

    def validation_loss(self, net: nn.Module, images: Tensor, targets: list[Tensor]) -> Tensor:
        """As in training, but that nothing is learned, statistics of batches included."""
        net.train()
        for part in net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm | nn.Dropout):
                part.eval()
        try:
            with torch.no_grad():
                return self.train_step(net, images, targets)
        finally:
            net.eval()


def _several(inputs: Any) -> Sequence[Any]:
    """Arguments of the network: those in a list or tuple, or a single one."""
    return inputs if isinstance(inputs, list | tuple) else [inputs]


class ExtensionPixels(PixelTask):
    """Segmentation by a user's class; targets are ``[int64 (B, 1, H, W)]``."""

    def __init__(self, classes: ClassTable, configuration: Any, data: ExtensionData) -> None:
        super().__init__(classes)
        self.hooks = _Hooks(configuration, data)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.hooks.train_step(net, batch["image"], self._targets(batch))}

    def _targets(self, batch: Batch) -> list[Tensor]:
        target: Tensor = batch["target"]
        return [target.clamp(min=0).unsqueeze(1)]

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        loss = self.hooks.validation_loss(net, batch["image"], self._targets(batch))
        found = self.logits(net, batch["image"]).argmax(dim=1)
        return {"loss": loss, "state": confusion(batch["target"], found, self.outputs)}

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, K + 1, H, W) of what ``post_process`` gives: class masks, or scores."""
        answer = self.hooks.forward(net, x)
        found = torch.as_tensor(self.hooks.configuration.post_process(answer, 0.5)).to(x.device)
        if found.ndim == 3:
            found = found.unsqueeze(1)
        size = (len(x), found.shape[1], *x.shape[-2:])
        if tuple(found.shape) != size or found.shape[1] not in (1, self.outputs):
            raise ModelDataError(
                f"post_process() of the model's class gave {tuple(found.shape)}; expected class "
                f"masks {(len(x), 1, *x.shape[-2:])} or scores "
                f"{(len(x), self.outputs, *x.shape[-2:])}."
            )
        if found.shape[1] == self.outputs:
            return found.float()
        chosen = found[:, 0].long().clamp(0, self.outputs - 1)
        return _SURE * nn.functional.one_hot(chosen, self.outputs).movedim(-1, 1).float()


class ExtensionObjects(ObjectTask):
    """Detection by a user's class.

    Targets are ``[boxes, labels]``: float32 (B, N, 4) y0, x0, y1, x1 from -1 to 1 over the chip,
    and int64 (B, N) of 1..K, both filled up with 0. ``post_process`` gives one (boxes, labels,
    scores) per image, boxes in the same frame.
    """

    def __init__(self, classes: ClassTable, configuration: Any, data: ExtensionData) -> None:
        super().__init__(classes)
        self.hooks = _Hooks(configuration, data)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.hooks.train_step(net, batch["image"], self._targets(batch))}

    def _targets(self, batch: Batch) -> list[Tensor]:
        height, width = batch["image"].shape[-2:]
        most = max([1, *(len(target["labels"]) for target in batch["target"])])
        device = batch["image"].device
        boxes = torch.zeros(len(batch["target"]), most, 4, device=device)
        labels = torch.zeros(len(batch["target"]), most, dtype=torch.int64, device=device)
        size = torch.tensor([height, width, height, width], device=device)
        for k, target in enumerate(batch["target"]):
            count = len(target["labels"])
            boxes[k, :count] = target["boxes"][:, [1, 0, 3, 2]].to(device) / size * 2 - 1
            labels[k, :count] = target["labels"].to(device)
        return [boxes, labels]

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        loss = self.hooks.validation_loss(net, batch["image"], self._targets(batch))
        found = self.detect(
            net, batch["image"], threshold=self.threshold, nms_overlap=self.nms_overlap
        )
        return {"loss": loss, "state": found}

    def detect(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Detections]:
        answer = self.hooks.forward(net, x)
        side = x.shape[-1]
        found = self.hooks.configuration.post_process(
            answer, nms_overlap, threshold, side, x.device
        )
        if len(found) != len(x):
            raise ModelDataError(
                f"post_process() of the model's class gave {len(found)} answers for {len(x)} "
                "images."
            )
        return [self._detections(one, x.shape[-2:], threshold) for one in found]

    def _detections(self, answer: Any, size: Sequence[int], threshold: float) -> Detections:
        boxes, labels, scores = (
            torch.as_tensor(part).detach().float().cpu().numpy() for part in answer
        )
        height, width = size
        scale = np.array([height, width, height, width]) / 2
        placed = ((boxes.reshape(-1, 4) + 1) * scale)[:, [1, 0, 3, 2]]
        placed = placed.clip(0, [width, height, width, height]).astype(np.float64)
        labels = labels.reshape(-1).astype(np.int64)
        keep = (scores.reshape(-1) >= threshold) & (labels >= 1) & (labels <= len(self.classes))
        keep &= (placed[:, 2:] > placed[:, :2]).all(axis=1)
        order = np.argsort(-scores.reshape(-1)[keep], kind="stable")
        return Detections(
            placed[keep][order],
            scores.reshape(-1)[keep][order].astype(np.float32),
            labels[keep][order],
        )
