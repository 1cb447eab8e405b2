"""Edge detection: edge or none for every pixel, learned at every stage of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.options import as_bool, as_float
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.ops.edges import EdgeCounts, match_edges, thin
from geodl.tasks.base import Batch, Item, Meter, Task
from geodl.tasks.pixel_metrics import ConfusionMeter, accuracy, confusion, precision_recall_f1
from geodl.tasks.pixels import overlay


class EdgeTask(Task):
    """Class-balanced cross entropy over all outputs of a network; accuracy and F1.

    Every class of the labels is edge. In class rasters an edge has the first class's value.

    Options
    -------
    side_weight, fuse_weight
        Of the losses of the sides and of the fusion.
    edge_weight
        Factor on the loss of edge pixels, besides the balance of classes.
    """

    kind: ClassVar[Literal["pixels"]] = "pixels"
    metric_names = ("accuracy", "f1")
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "side_weight": 1.0,
        "fuse_weight": 1.0,
        "edge_weight": 1.0,
    }

    predict_defaults: ClassVar[Mapping[str, Any]] = {"thresh": 0.5, "thinning": False}

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        super().__init__(classes, **options)
        self.outputs = len(classes) + 1
        self.side_weight, self.fuse_weight, self.edge_weight = (
            as_float(self.options[name], name, minimum=0) for name in self.option_defaults
        )

    def collate(self, items: Sequence[Item]) -> Batch:
        batch = super().collate(items)
        return {**batch, "target": torch.stack(batch["target"])}

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        answer = net(batch["image"])
        target = edge_target(batch["target"])
        sides = answer["sides"].float()
        parts = torch.stack([self._balanced(side, target) for side in sides.unbind(1)])
        fused = self._balanced(answer["logits"].float()[:, 0], target)
        return {"loss": self.side_weight * parts.sum() + self.fuse_weight * fused}

    def _balanced(self, logits: Tensor, target: Tensor) -> Tensor:
        return balanced_loss(logits, target, self.edge_weight)

    def edge_logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, H, W) of an eval-mode net; above 0: more likely edge than not."""
        logits: Tensor = net(x).float()[:, 0]
        return logits

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, K + 1, H, W): background, edge as the first class, others nowhere."""
        edge = self.edge_logits(net, x)
        rest = [torch.full_like(edge, -torch.inf)] * (self.outputs - 2)
        return torch.stack([torch.zeros_like(edge), edge, *rest], dim=1)

    def scores(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, K + 1, H, W) probabilities: no edge, edge, 0 for any further classes."""
        return torch.softmax(self.logits(net, x), dim=1)

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        target = edge_target(batch["target"])
        logits = self.edge_logits(net, batch["image"])
        return {
            "loss": self._balanced(logits, target),
            "state": confusion(target, (logits > 0).long(), 2),
            "probability": torch.sigmoid(logits),
        }

    def new_meter(self) -> Meter:
        return EdgeMeter()

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[np.ndarray]:
        """int64 (H, W) per image, 1 where there is an edge.

        ``thresh`` is the probability of an edge; ``thinning`` keeps centre lines.
        """
        thresh = as_float(options.get("thresh", 0.5), "thresh", minimum=0, maximum=1)
        with torch.inference_mode():
            found = (torch.sigmoid(self.edge_logits(net, x)) >= thresh).cpu().numpy()
        if as_bool(options.get("thinning", False), "thinning"):
            found = np.stack([thin(one) for one in found])
        return list(found.astype(np.int64))

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        truth = edge_target(torch.as_tensor(item["target"])).numpy()
        for axes, indices in ((ax_truth, truth), (ax_pred, np.asarray(prediction))):
            overlay(axes, indices, self.classes, picture)


class EdgeMeter(ConfusionMeter):
    """Accuracy, and F1 of the edge pixels."""

    def __init__(self) -> None:
        super().__init__(2)

    def compute(self) -> dict[str, float]:
        counts = self.counts()
        return {"accuracy": accuracy(counts), "f1": float(precision_recall_f1(counts)[2][1])}


class ToleranceMeter(Meter):
    """Precision, recall and F1 of thinned edges, right within a distance.

    Parameters
    ----------
    threshold
        Probability from which a pixel is edge.
    tolerance_px
        Distance at which an edge still counts as found.
    """

    def __init__(self, threshold: float, tolerance_px: float) -> None:
        self.threshold, self.tolerance_px = threshold, tolerance_px
        self.counts = EdgeCounts()

    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        found = (result["probability"] >= self.threshold).cpu().numpy()
        targets = edge_target(batch["target"]).cpu().numpy()
        for one, target in zip(found, targets, strict=True):
            counted = target != IGNORE_INDEX
            self.counts += match_edges(thin(one & counted), thin(target == 1), self.tolerance_px)

    def compute(self) -> dict[str, float]:
        counts = self.counts
        return {"precision": counts.precision, "recall": counts.recall, "f1_score": counts.f1}


def edge_target(target: Tensor) -> Tensor:
    """int64, 1 on any class, 0 on background, ``IGNORE_INDEX`` as it is."""
    return torch.where(target > 0, 1, target)


def balanced_loss(logits: Tensor, target: Tensor, edge_weight: float = 1.0) -> Tensor:
    """Cross entropy with the share of the other kind of pixels as each kind's weight (1504.06375,
    equation 2), as a mean over the counted pixels.

    The shares are those of the batch, not of each image as in the paper: chips without an edge,
    which scenes are full of, would weigh nothing, and false edges there would never be unlearned.

    Parameters
    ----------
    logits
        float32 (B, H, W).
    target
        int64 (B, H, W) of 0, 1 and ``IGNORE_INDEX``.
    edge_weight
        Further factor on edge pixels.

    Returns
    -------
    float32 scalar; 0 where no pixel counts.
    """
    counted = target != IGNORE_INDEX
    edge = target == 1
    pixels = counted.sum().clamp(min=1)
    share = edge.sum() / pixels
    weight = torch.where(edge, edge_weight * (1 - share), share) * counted
    each = functional.binary_cross_entropy_with_logits(logits, edge.float(), reduction="none")
    return (each * weight).sum() / pixels
