"""Pixel classification: one class of K + 1 (0 is background) for every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float, check_choice
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.tasks.base import Batch, Item, Task
from geodl.tasks.pixel_metrics import ConfusionMeter, confusion

# Lin et al. 2017 (1708.02002).
FOCAL_GAMMA = 2.0
# Zhang et al. 2018 (1710.09412) use 0.1 to 0.4; segmentation bears the larger.
MIXUP_ALPHA = 0.4
# Zhao et al. 2017 (1612.01105), section 5.2.
AUXILIARY_WEIGHT = 0.4
MASK_OPACITY = 0.5


class PixelTask(Task):
    """Cross entropy or focal loss, mixed with dice; accuracy and mean IoU.

    Options
    -------
    class_weights
        K + 1 numbers, background first, that weigh the pixels' losses; None: all the same.
    mixup
        Mix pairs of images in training.
    focal_loss
        In place of cross entropy.
    dice_loss_fraction, dice_loss_average
        Loss = (1 - f) * base + f * dice; ``"micro"`` over all pixels and classes at once,
        ``"macro"`` as the mean over classes.
    ignore_classes
        Class values that add no loss and are never predicted.

    Raises
    ------
    OptionError
        An option outside its domain.
    """

    kind: ClassVar[Literal["pixels"]] = "pixels"
    metric_names = ("accuracy", "mIoU")
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "class_weights": None,
        "mixup": False,
        "focal_loss": False,
        "dice_loss_fraction": 0.0,
        "dice_loss_average": "micro",
        "ignore_classes": (),
    }

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        super().__init__(classes, **options)
        own = self.options
        self.outputs = len(classes) + 1
        self.mixup = as_bool(own["mixup"], "mixup")
        self.focal_loss = as_bool(own["focal_loss"], "focal_loss")
        self.dice_fraction = as_float(
            own["dice_loss_fraction"], "dice_loss_fraction", minimum=0, maximum=1
        )
        self.dice_average = check_choice(
            own["dice_loss_average"], ("micro", "macro"), "dice_loss_average"
        )
        self.ignored = _ignored_outputs(classes, own["ignore_classes"])
        self._weights = _class_weights(own["class_weights"], self.outputs)
        # Target to what the loss sees; the last place is where IGNORE_INDEX is sent.
        self._seen = torch.arange(self.outputs + 1)
        self._seen[[*self.ignored, self.outputs]] = IGNORE_INDEX

    def collate(self, items: Sequence[Item]) -> Batch:
        batch = super().collate(items)
        return {**batch, "target": torch.stack(batch["target"])}

    # ---- loss

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x, target = batch["image"], self._counted(batch["target"])
        if not self.mixup or len(x) < 2:
            return {"loss": self._loss_of_answer(net(x), target)}
        share = torch.distributions.Beta(MIXUP_ALPHA, MIXUP_ALPHA).sample().to(x.device)
        order = torch.randperm(len(x)).to(x.device)
        answer = net(torch.lerp(x[order], x, share))
        own = self._loss_of_answer(answer, target)
        other = self._loss_of_answer(answer, target[order])
        return {"loss": torch.lerp(other, own, share)}

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, K + 1, H, W); the largest is the class, as with :meth:`scores`.

        Ignored classes can win nowhere.
        """
        return self._hide(net(x).float())

    def _hide(self, logits: Tensor) -> Tensor:
        """The logits, those of ignored classes at minus infinity."""
        if not self.ignored:
            return logits
        hidden = torch.zeros(self.outputs, device=logits.device)
        hidden[list(self.ignored)] = -torch.inf
        return logits + hidden.view(1, -1, 1, 1)

    def _counted(self, target: Tensor) -> Tensor:
        """The target with ignored classes turned to ``IGNORE_INDEX``."""
        if not self.ignored:
            return target
        places = torch.where(target == IGNORE_INDEX, self.outputs, target)
        return self._seen.to(target.device)[places]

    def _loss_of_answer(self, answer: Tensor | Mapping[str, Tensor], target: Tensor) -> Tensor:
        """Of what a network gives in train mode: logits, or a dict that holds them and more.

        ``auxiliary`` logits add their loss with a weight of 0.4; ``point_logits`` add theirs, at
        the pixels ``points``.
        """
        if isinstance(answer, Tensor):
            return self._loss_of(self._hide(answer.float()), target)
        loss = self._loss_of(self._hide(answer["logits"].float()), target)
        if "auxiliary" in answer:
            auxiliary = self._hide(answer["auxiliary"].float())
            loss = loss + AUXILIARY_WEIGHT * self._loss_of(auxiliary, target)
        if "points" in answer:
            points = self._hide(answer["point_logits"].float().unsqueeze(3))
            loss = loss + self._loss_of(points, target_at(target, answer["points"]))
        return loss

    def _loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = self._base_loss(logits, target)
        if self.dice_fraction:
            dice = dice_loss(logits, target, self.dice_average)
            loss = (1 - self.dice_fraction) * loss + self.dice_fraction * dice
        return loss

    def _base_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the counted pixels, by weight; 0 where none counts."""
        weights = None if self._weights is None else self._weights.to(logits.device)
        if not self.focal_loss:
            total = functional.cross_entropy(logits, target, weights, reduction="sum")
            return total / _weight_sum(target, weights)
        return focal_loss(logits, target, weights)

    # ---- scores

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        target = self._counted(batch["target"])
        logits = self.logits(net, batch["image"])
        return {
            "loss": self._loss_of(logits, target),
            "state": confusion(target, logits.argmax(dim=1), self.outputs),
        }

    def new_meter(self) -> ConfusionMeter:
        return ConfusionMeter(self.outputs)

    def scores(self, net: nn.Module, x: Tensor) -> Tensor:
        """Class probabilities.

        Parameters
        ----------
        net
            In eval mode.
        x
            float32 (B, C, H, W), normalised, on the net's device.

        Returns
        -------
        float32 (B, K + 1, H, W), summing to 1; 0 for ignored classes.
        """
        return torch.softmax(self.logits(net, x), dim=1)

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[np.ndarray]:
        """int64 (H, W) of network outputs per image."""
        del options  # none: see predict_defaults
        with torch.inference_mode():
            return list(self.logits(net, x).argmax(dim=1).cpu().numpy())

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        truth = np.asarray(item["target"])
        for axes, indices in ((ax_truth, truth), (ax_pred, np.asarray(prediction))):
            overlay(axes, indices, self.classes, picture)


def overlay(axes: Any, indices: np.ndarray, classes: ClassTable, picture: np.ndarray) -> None:
    """Draw int (H, W) network outputs over a uint8 (H, W, 3) picture.

    Background and what does not count stay clear.
    """
    height, width = indices.shape
    extent = (0, width, height, 0)
    table = np.zeros((len(classes) + 1, 4), np.float32)
    for i, entry in enumerate(classes, start=1):
        table[i] = (*(part / 255 for part in entry.color), MASK_OPACITY)
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.imshow(table[np.where(indices < 0, 0, indices)], extent=extent, interpolation="nearest")


def target_at(target: Tensor, points: Tensor) -> Tensor:
    """int64 (B, N, 1) of a target (B, H, W) at int64 (B, N, 2) columns and rows."""
    places = points[..., 1] * target.shape[-1] + points[..., 0]
    return target.flatten(1).gather(1, places).unsqueeze(2)


def _weight_sum(target: Tensor, weights: Tensor | None) -> Tensor:
    """What a mean over the counted pixels divides by; above 0."""
    counted = target != IGNORE_INDEX
    if weights is None:
        return counted.sum().clamp(min=1)
    return weights[target[counted]].sum().clamp(min=torch.finfo(weights.dtype).tiny)


def focal_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Focal loss with gamma 2, as a mean over the counted pixels.

    Parameters
    ----------
    logits
        float32 (B, K + 1, H, W).
    target
        int64 (B, H, W), ``IGNORE_INDEX`` does not count.
    weights
        float32 (K + 1,) or None.

    Returns
    -------
    float32 scalar
    """
    surprise = functional.cross_entropy(logits, target, reduction="none")
    loss = (1 - torch.exp(-surprise)) ** FOCAL_GAMMA * surprise
    if weights is not None:
        loss = loss * weights[target.clamp(min=0)]
    return loss.sum() / _weight_sum(target, weights)


def dice_loss(logits: Tensor, target: Tensor, average: str) -> Tensor:
    """One less the dice coefficient of probabilities (Milletari et al. 2016, 1606.04797).

    Parameters
    ----------
    logits, target
        As for :func:`focal_loss`.
    average
        ``"micro"``: all pixels and classes in one ratio; ``"macro"``: the mean over the classes
        that occur in the batch.

    Returns
    -------
    float32 scalar, 0..1; 0 where no pixel counts.
    """
    counted = (target != IGNORE_INDEX).unsqueeze(1)
    found = torch.softmax(logits, dim=1) * counted
    true = functional.one_hot(target.clamp(min=0), logits.shape[1]).movedim(-1, 1) * counted
    axes = (0, 1, 2, 3) if average == "micro" else (0, 2, 3)
    both = (found * true).sum(axes)
    size = found.sum(axes) + true.sum(axes)
    dice = 1 - 2 * both / size.clamp(min=1e-6)
    occurs = true.sum(axes) > 0
    return (dice * occurs).sum() / occurs.sum().clamp(min=1)


def _ignored_outputs(classes: ClassTable, values: Any) -> tuple[int, ...]:
    if isinstance(values, int | str):
        raise OptionError(f"ignore_classes={values!r}: give a list of class values.")
    table = classes.index_by_value
    unknown = [value for value in values or () if value not in table]
    if unknown:
        raise OptionError(f"ignore_classes names {unknown}; the class values are {sorted(table)}.")
    ignored = tuple(sorted({table[value] for value in values or ()}))
    if len(ignored) > len(classes):
        raise OptionError("ignore_classes names all classes; at least one must be left.")
    return ignored


def _class_weights(weights: Any, outputs: int) -> Tensor | None:
    if weights is None:
        return None
    if len(weights) != outputs:
        raise OptionError(f"class_weights has {len(weights)} numbers; expected {outputs}.")
    return torch.tensor([as_float(w, "class_weights", minimum=0) for w in weights])
