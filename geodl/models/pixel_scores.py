"""What all pixel classifiers share: their scores on the validation set, and class balancing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from geodl.base.errors import OptionError
from geodl.base.options import as_bool
from geodl.core.contract import IGNORE_INDEX, ModelContract
from geodl.models.contracts import check_data_fits
from geodl.tasks.pixel_metrics import (
    ConfusionMeter,
    accuracy,
    class_iou,
    mean_iou,
    occurring,
    precision_recall_f1,
)
from geodl.tasks.pixels import PixelTask

# Frequencies of a larger set are measured on this many of its chips.
_MOST_COUNTED_CHIPS = 2000
_BACKGROUND_NAMES = ("NoData", "Background", "Class 0")


class PixelScores:
    """Scores of a TorchModel with one class per pixel, by scikit-learn's conventions.

    Background is a class of its own in the scores, named ``NoData`` as in saved definitions,
    where it occurs in the truth or is predicted. Pixels outside the image's mask, and of
    ``ignore_classes``, do not count.
    """

    task: PixelTask
    contract: ModelContract

    def mIOU(self, mean: bool = False, show_progress: bool = True) -> dict[str, float] | float:
        """Intersection over union on the validation set.

        Parameters
        ----------
        mean
            False: a dict by class name; True: the mean over the classes that occur in truth or
            prediction.
        show_progress
            Show a bar where the error stream is a terminal.
        """
        counts = self._validation_counts(as_bool(show_progress, "show_progress"))
        if as_bool(mean, "mean"):
            return mean_iou(counts)
        return dict(zip(self._names(counts), self._shown(counts, class_iou(counts)), strict=True))

    def accuracy(self) -> float:
        """Share of the validation pixels with the right class."""
        return accuracy(self._validation_counts())

    def per_class_metrics(self, ignore_classes: Sequence[int] = []) -> pd.DataFrame:
        """Precision, recall and F1 on the validation set.

        Parameters
        ----------
        ignore_classes
            Class values left out: neither in the table, nor do pixels that truly are of them
            count.

        Returns
        -------
        One column per class name, with the rows ``precision``, ``recall`` and ``f1``.

        Raises
        ------
        OptionError
            A value that is no class.
        """
        return self._class_table(self._validation_counts(), self._outputs(ignore_classes))

    def score_for_package(self) -> dict[str, Any]:
        counts = self._validation_counts()
        return {
            "accuracy": f"{accuracy(counts):.4e}",
            "mIoU": mean_iou(counts),
            "per_class_metrics": self._class_table(counts, ()).to_json(),
        }

    def _validation_counts(self, progress: bool = False) -> np.ndarray:
        """int64 (K + 1, K + 1) over the validation set, truth down."""
        meter: ConfusionMeter = self._score(progress=progress).meter  # type: ignore[attr-defined]
        return meter.counts()

    def _outputs(self, values: Sequence[int]) -> tuple[int, ...]:
        table = self.contract.classes.index_by_value
        unknown = [v for v in values or () if v not in table]
        if unknown:
            raise OptionError(
                f"ignore_classes names {unknown}; the class values are {sorted(table)}."
            )
        return tuple(table[v] for v in values or ())

    def _class_table(self, counts: np.ndarray, left_out: Sequence[int]) -> pd.DataFrame:
        kept = counts.copy()
        kept[list(left_out)] = 0
        rows = np.stack(precision_recall_f1(kept))
        named = self._names(counts)
        shown = self._which(counts)
        use = [i for i, output in enumerate(shown) if output not in left_out]
        return pd.DataFrame(
            rows[:, [shown[i] for i in use]],
            index=["precision", "recall", "f1"],
            columns=[named[i] for i in use],
        )

    def _which(self, counts: np.ndarray) -> list[int]:
        """Outputs that are reported: background where it occurs, and every class not ignored."""
        seen = occurring(counts)
        outputs = [o for o in range(len(counts)) if o not in self.task.ignored]
        return [o for o in outputs if o > 0 or seen[0]]

    def _names(self, counts: np.ndarray) -> list[str]:
        own = self.contract.classes.names
        background = next((n for n in _BACKGROUND_NAMES if n not in own), "0")
        return [own[o - 1] if o else background for o in self._which(counts)]

    def _shown(self, counts: np.ndarray, values: np.ndarray) -> list[float]:
        return [float(values[o]) for o in self._which(counts)]


def balancing_weights(data: Any, ignore_classes: Sequence[int]) -> list[float]:
    """Weights of the classes by inverse pixel frequency, background first; their mean over the
    training pixels is 1.

    Classes without pixels weigh 1.

    Parameters
    ----------
    data
        A data object of pixel labels.
    ignore_classes
        Class values whose pixels do not count.
    """
    check_data_fits(data, "class_balancing", "pixels", ())
    counts = _pixel_counts(data)
    table = data.class_table.index_by_value
    counts[[table[v] for v in ignore_classes if v in table]] = 0
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return [float(w) for w in weights]


def _pixel_counts(data: Any) -> np.ndarray:
    """int64 (K + 1,): training pixels by network output."""
    outputs = len(data.class_table) + 1
    chips = len(data.train_ds)
    step = max(1, -(-chips // _MOST_COUNTED_CHIPS))
    total = np.zeros(outputs, np.int64)
    with torch.random.fork_rng([]):
        torch.manual_seed(data.seed)
        for i in range(0, chips, step):
            target = np.asarray(data.train_ds[i]["target"])
            total += np.bincount(target[target != IGNORE_INDEX], minlength=outputs)
    return total
