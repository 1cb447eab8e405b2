"""Classification of whole images: one class of K, or any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.options import as_bool, as_float
from geodl.core.classes import ClassTable
from geodl.tasks.base import Batch, Item, Meter, Task

# Zhang et al. 2018 (1710.09412), section 3: 0.1 to 0.4 for images.
MIXUP_ALPHA = 0.4
THRESHOLD = 0.5


class LabelTask(Task):
    """Cross entropy, or with ``multilabel`` binary cross entropy; accuracy and mean F1.

    A network has one output per class; there is no background.

    Options
    -------
    multilabel
        An image has any number of classes.
    mixup
        Mix pairs of images in training.
    """

    kind: ClassVar[Literal["tiles"]] = "tiles"
    metric_names = ("accuracy", "f1")
    option_defaults: ClassVar[Mapping[str, Any]] = {"multilabel": False, "mixup": False}
    predict_defaults: ClassVar[Mapping[str, Any]] = {"thresh": THRESHOLD}

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        super().__init__(classes, **options)
        self.outputs = len(classes)
        self.multilabel = as_bool(self.options["multilabel"], "multilabel")
        self.mixup = as_bool(self.options["mixup"], "mixup")

    def collate(self, items: Sequence[Item]) -> Batch:
        batch = super().collate(items)
        return {**batch, "target": torch.stack(batch["target"])}

    # ---- loss

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x, target = batch["image"], batch["target"]
        if not self.mixup or len(x) < 2:
            return {"loss": self.losses(net(x), target).mean()}
        share = torch.distributions.Beta(MIXUP_ALPHA, MIXUP_ALPHA).sample().to(x.device)
        order = torch.randperm(len(x)).to(x.device)
        answer = net(torch.lerp(x[order], x, share))
        own = self.losses(answer, target).mean()
        other = self.losses(answer, target[order]).mean()
        return {"loss": torch.lerp(other, own, share)}

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """float32 (B,): the loss of each image.

        Parameters
        ----------
        logits
            (B, K).
        target
            int64 (B,) of 0..K-1; with ``multilabel`` float32 (B, K) of 0 and 1.
        """
        if not self.multilabel:
            return functional.cross_entropy(logits.float(), target, reduction="none")
        each = functional.binary_cross_entropy_with_logits(
            logits.float(), target.float(), reduction="none"
        )
        return each.mean(dim=1)

    # ---- scores

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        logits = net(batch["image"]).float()
        return {
            "loss": self.losses(logits, batch["target"]).mean(),
            "state": label_counts(self.chosen(self.scores_of(logits)), self.truth(batch)),
        }

    def new_meter(self) -> LabelMeter:
        return LabelMeter(self.outputs, self.multilabel)

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
        float32 (B, K); they sum to 1 unless ``multilabel``.
        """
        return self.scores_of(net(x).float())

    def scores_of(self, logits: Tensor) -> Tensor:
        """Probabilities of float32 (B, K) logits."""
        return torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)

    def truth(self, batch: Batch) -> Tensor:
        """bool (B, K)."""
        target: Tensor = batch["target"]
        if self.multilabel:
            return target > 0.5
        return functional.one_hot(target, self.outputs).bool()

    def chosen(self, scores: Tensor, threshold: float = THRESHOLD) -> Tensor:
        """bool (B, K): the classes that scores stand for."""
        if self.multilabel:
            return scores >= threshold
        return functional.one_hot(scores.argmax(dim=1), self.outputs).bool()

    def decode(self, scores: np.ndarray, threshold: float = THRESHOLD) -> list[int]:
        """Places (0..K-1) of the classes that float (K,) scores stand for, best first."""
        if not self.multilabel:
            return [int(scores.argmax())]
        chosen = np.flatnonzero(scores >= threshold)
        return [int(place) for place in chosen[np.argsort(-scores[chosen], kind="stable")]]

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[np.ndarray]:
        """float32 (K,) scores per image; those below ``thresh`` count as 0 with ``multilabel``."""
        limit = as_float(options.get("thresh", THRESHOLD), "thresh", minimum=0, maximum=1)
        with torch.inference_mode():
            found = self.scores(net, x).cpu().numpy()
        return [np.where(row >= limit, row, 0.0) if self.multilabel else row for row in found]

    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        target = np.asarray(item["target"])
        places = np.flatnonzero(target).tolist() if self.multilabel else [int(target)]
        scores = np.asarray(prediction)
        found = self.decode(scores, float(np.finfo(np.float32).tiny))
        for axes, text in (
            (ax_truth, self.names(places)),
            (ax_pred, ", ".join(f"{self.classes.names[k]} {scores[k]:.0%}" for k in found)),
        ):
            axes.imshow(picture)
            axes.set_xlabel(text or "no class", fontsize=8)

    def names(self, places: Sequence[int]) -> str:
        """Class names at places, with commas between."""
        return ", ".join(self.classes.names[place] for place in places)


def label_counts(chosen: Tensor, truth: Tensor) -> Tensor:
    """int64 (K, K + 2): images by true and chosen class, then true ones and chosen ones.

    Entry (i, j) counts images of class i for which j was chosen.
    """
    pairs = truth.float().T @ chosen.float()
    columns = torch.stack([truth.sum(dim=0), chosen.sum(dim=0)], dim=1)
    return torch.cat([pairs.round().long(), columns.long()], dim=1)


class LabelMeter(Meter):
    """Adds counts; accuracy and mean F1 come from the sum.

    Attributes
    ----------
    counts
        int64 (K, K + 2) of :func:`label_counts`.
    images
        How many.
    """

    def __init__(self, classes: int, multilabel: bool) -> None:
        self.counts = torch.zeros(classes, classes + 2, dtype=torch.int64)
        self.multilabel = multilabel
        self.images = 0

    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        self.counts = self.counts + result["state"].to(self.counts.device)
        self.images += len(batch["name"])

    def compute(self) -> dict[str, float]:
        counts = self.counts.cpu().numpy()
        both, true, chosen = np.diag(counts), counts[:, -2], counts[:, -1]
        wrong = (true + chosen - 2 * both).sum()
        cells = self.images * len(counts) if self.multilabel else 2 * self.images
        occurs = (true + chosen) > 0
        f1 = np.divide(2 * both, true + chosen, out=np.zeros(len(counts)), where=occurs)
        return {
            "accuracy": float(1 - wrong / cells) if cells else 0.0,
            "f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        }

    def matrix(self) -> np.ndarray:
        """int64 (K, K): images by true and predicted class, of one class each."""
        return self.counts[:, :-2].cpu().numpy()

    def binary(self) -> np.ndarray:
        """int64 (K, 2, 2) for each class: true down, predicted across, absence first."""
        counts = self.counts.cpu().numpy()
        both, true, chosen = np.diag(counts), counts[:, -2], counts[:, -1]
        neither = self.images - true - chosen + both
        return np.stack([neither, chosen - both, true - both, both], axis=1).reshape(-1, 2, 2)
