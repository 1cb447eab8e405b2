"""What differs by kind of problem: batches, losses, metrics, predictions and how they are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.options import check_known
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind

Item = dict[str, Any]
Batch = dict[str, Any]


class Meter(ABC):
    """Metrics of one pass over a data set, gathered batch by batch; its memory does not grow."""

    @abstractmethod
    def update(self, result: Mapping[str, Any], batch: Batch) -> None:
        """Take in what :meth:`Task.validate` returned for a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The task's ``metric_names`` with their values so far."""

    def saw_labels(self) -> bool:
        """Whether the truth held anything besides background.

        Without it neither loss nor metrics tell a network that finds nothing from a good one.
        """
        return True


class Task(ABC):
    """One kind of problem. Holds options, never data or weights; picklable.

    Parameters
    ----------
    classes
        Classes in network order; output 0 is background.
    **options
        The names in ``option_defaults``; plain JSON values, so that a package can store them.

    Raises
    ------
    UnknownOptionError
        A name that the task does not read.
    """

    kind: ClassVar[TaskKind]
    metric_names: ClassVar[tuple[str, ...]]
    """Columns of the training table after ``train_loss`` and ``valid_loss``; larger is better."""
    option_defaults: ClassVar[Mapping[str, Any]] = {}
    predict_defaults: ClassVar[Mapping[str, Any]] = {}
    """Keywords of :meth:`predict`, thus of ``show_results``."""

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        check_known(options, self.option_defaults, type(self).__name__)
        self.classes = classes
        self.options: dict[str, Any] = {**self.option_defaults, **options}

    def collate(self, items: Sequence[Item]) -> Batch:
        """Join items to ``{"image": float32 (B, C, H, W), "target": ..., "name": [str, ...]}``.

        Targets stay a list; tasks whose targets have one shape stack them.
        """
        return {
            "image": torch.stack([item["image"] for item in items]),
            "target": [item["target"] for item in items],
            "name": [item["name"] for item in items],
        }

    def train_collate(self, items: Sequence[Item]) -> Batch:
        """As :meth:`collate`, for training; may draw on torch's random state."""
        return self.collate(items)

    @abstractmethod
    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Run the net, in train mode, on a batch that lies on its device.

        The net is called as ``net(x)`` and by no other method: the engine may wrap it.

        Returns
        -------
        0-d tensors; ``"loss"`` is the one to minimise, others are its parts.
        """

    @abstractmethod
    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        """Run the net, in eval mode and without gradients, on a batch with targets.

        Returns
        -------
        ``{"loss": 0-d tensor, "state": what this task's Meter takes}``
        """

    @abstractmethod
    def new_meter(self) -> Meter:
        """An empty meter of this task's metrics."""

    @abstractmethod
    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[Any]:
        """One prediction per image, as :meth:`draw` takes it, from an eval-mode net.

        Parameters
        ----------
        x
            float32 (B, C, H, W), normalised, on the net's device.
        **options
            The names in ``predict_defaults``.
        """

    @abstractmethod
    def draw(
        self, ax_truth: Any, ax_pred: Any, item: Item, prediction: Any, picture: np.ndarray
    ) -> None:
        """Draw truth and prediction of one item into two matplotlib axes.

        Parameters
        ----------
        ax_truth, ax_pred
            Axes that are empty.
        item
            As the data set gives it.
        prediction
            Of :meth:`predict`, for this item.
        picture
            uint8 (H, W, 3), the item's image made visible.
        """
