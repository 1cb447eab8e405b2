"""Classification of points: one class for every point of a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.nets.point_levels import make_levels
from geodl.tasks.base import Batch, Item, Task
from geodl.tasks.pixel_metrics import (
    ConfusionMeter,
    accuracy,
    confusion,
    mean_iou,
    occurring,
    precision_recall_f1,
)
from geodl.tasks.pixels import focal_loss


class PointTask(Task):
    """Cross entropy or focal loss over points; accuracy, and macro averages over classes.

    Options
    -------
    codes
        Class code of each output of the network; 0 is among them where points of code 0 are a
        class of their own.
    levels
        How blocks become what the network takes, see :func:`geodl.nets.point_levels.make_levels`.
    class_weights
        One number per output that weighs the points' losses; None: all the same.
    focal_loss
        In place of cross entropy.
    """

    kind: ClassVar[Literal["points"]] = "points"
    metric_names = ("accuracy", "precision", "recall", "f1", "mIoU")
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "codes": (),
        "levels": {"kind": "random", "ratios": [4], "k": 16},
        "class_weights": None,
        "focal_loss": False,
    }

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        super().__init__(classes, **options)
        own = self.options
        self.codes = tuple(own["codes"] or classes.values)
        if tuple(c for c in self.codes if c) != tuple(classes.values):
            raise OptionError(f"codes={self.codes} are not the classes {classes.values}.")
        self.outputs = len(self.codes)
        # Targets count code 0 as 0 also where no output is for it.
        self._shift = 0 if 0 in self.codes else 1
        self.focal_loss = as_bool(own["focal_loss"], "focal_loss")
        self._weights = _weights(own["class_weights"], self.outputs)

    # ---- batches

    def prepare(
        self,
        blocks: Sequence[np.ndarray | Tensor],
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Batch:
        """A batch of blocks, ready for the network; runs in any thread and needs no network.

        Parameters
        ----------
        blocks
            float32 (N, 3 + F) each, as :meth:`geodl.core.points.PointInput.encode` gives them.
        device
            Where neighbours are looked for, and the batch lies; None: the CPU.
        generator
            Of random sampling. None: it follows from each block's content, so that a block has
            the same scores in any batch.

        Returns
        -------
        ``points`` float32 (B, M, 3 + F), padded; ``length`` int64 (B,); ``levels``.
        """
        tables = [torch.as_tensor(block, dtype=torch.float32) for block in blocks]
        points = nn.utils.rnn.pad_sequence(tables, batch_first=True)
        length = torch.tensor([len(table) for table in tables])
        if device is not None:
            points = points.to(device)
        levels = make_levels(self.options["levels"], points, length, generator)
        return {"points": points, "length": length, "levels": levels}

    def collate(self, items: Sequence[Item]) -> Batch:
        """Blocks with their targets; sampled by their own content, as for prediction."""
        return self._collate(items, None)

    def train_collate(self, items: Sequence[Item]) -> Batch:
        """The same, sampled anew each time."""
        return self._collate(items, torch.default_generator)

    def _collate(self, items: Sequence[Item], generator: torch.Generator | None) -> Batch:
        batch = self.prepare([item["points"] for item in items], generator=generator)
        target = nn.utils.rnn.pad_sequence(
            [item["target"] for item in items], batch_first=True, padding_value=IGNORE_INDEX
        )
        return {**batch, "target": target, "name": [item["name"] for item in items]}

    # ---- loss

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self._loss_of(self._logits(net, batch), self._target(batch))}

    def _logits(self, net: nn.Module, batch: Batch) -> Tensor:
        """float32 (S, K) of the points ``levels["order"]``."""
        logits: Tensor = net({"points": batch["points"], "levels": batch["levels"]})
        return logits.float()

    def _target(self, batch: Batch) -> Tensor:
        """int64 (S,): output of each point that the network saw, or ``IGNORE_INDEX``."""
        target: Tensor = batch["target"].flatten()[batch["levels"]["order"]]
        return torch.where(target == IGNORE_INDEX, IGNORE_INDEX, target - self._shift)

    def _loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the counted points, by weight; 0 where none counts."""
        weights = None if self._weights is None else self._weights.to(logits.device)
        if self.focal_loss:
            return focal_loss(logits, target, weights)
        total = functional.cross_entropy(logits, target, weights, reduction="sum")
        counted = target[target != IGNORE_INDEX]
        share = weights[counted].sum() if weights is not None else counted.new_tensor(len(counted))
        return total / share.clamp(min=1e-6)

    # ---- scores

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        logits, target = self._logits(net, batch), self._target(batch)
        return {
            "loss": self._loss_of(logits, target),
            "state": confusion(target, logits.argmax(dim=1), self.outputs),
        }

    def new_meter(self) -> PointMeter:
        return PointMeter(self.outputs)

    def scores(self, net: nn.Module, batch: Batch) -> Tensor:
        """Logits of every point; the largest is the class ``codes[k]``.

        Parameters
        ----------
        net
            In eval mode.
        batch
            Of :meth:`prepare`, on the net's device; or ``points`` and ``length`` alone, of which
            the levels are made here.

        Returns
        -------
        float32 (B, M, K) in the order of ``points``; 0 beyond a block's length.
        """
        points, length = batch["points"], batch["length"]
        if "levels" not in batch:
            levels = make_levels(self.options["levels"], points, length)
            batch = {**batch, "levels": levels}
        logits = self._logits(net, batch)
        found = logits.new_zeros(points.shape[0] * points.shape[1], self.outputs)
        found[batch["levels"]["order"]] = logits
        return found.view(*points.shape[:2], self.outputs)

    def predict(self, net: nn.Module, x: Any, **options: Any) -> list[np.ndarray]:
        """int64 (N,) per block: network index as in targets, 0 for code 0.

        Parameters
        ----------
        x
            A batch, as for :meth:`scores`.
        """
        del options  # none: see predict_defaults
        with torch.inference_mode():
            best = self.scores(net, x).argmax(dim=2).cpu().numpy() + self._shift
        return [row[:n] for row, n in zip(best, x["length"].tolist(), strict=True)]

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        """Points in the colours of their classes, in two axes of three dimensions.

        Parameters
        ----------
        picture
            Of no use for points.
        """
        palette = np.array([(150, 150, 150), *(entry.color for entry in self.classes)]) / 255
        xyz = np.asarray(item["points"][:, :3])
        for axes, indices in ((ax_truth, np.asarray(item["target"])), (ax_pred, prediction)):
            colours = palette[np.where(indices < 0, 0, indices)]
            axes.scatter(*xyz.T, c=colours, s=1)
            axes.set_aspect("equal")


class PointMeter(ConfusionMeter):
    """Accuracy, and precision, recall, F1 and IoU as means over the classes that occur."""

    def compute(self) -> dict[str, float]:
        counts = self.counts()
        seen = occurring(counts)
        means = [float(v[seen].mean()) if seen.any() else 0.0 for v in precision_recall_f1(counts)]
        names = ("precision", "recall", "f1")
        return {
            "accuracy": accuracy(counts),
            **dict(zip(names, means, strict=True)),
            "mIoU": mean_iou(counts),
        }


def _weights(given: Any, outputs: int) -> Tensor | None:
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) != outputs:
        raise OptionError(
            f"class_weights={given!r}: give one number for each of {outputs} classes."
        )
    weights = [as_float(w, "class_weights", minimum=0.0) for w in given]
    if not any(weights):
        raise OptionError("class_weights are all 0; at least one class must count.")
    return torch.tensor(weights)
