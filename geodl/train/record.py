"""What training left behind besides the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matplotlib.ticker import MaxNLocator
from torch import Tensor

from geodl.base.errors import TrainingError
from geodl.data.figure import ShownFigure, new_figure


@dataclass(slots=True)
class TrainingRecord:
    """The history of all fits of one model.

    Parameters
    ----------
    rows
        One per epoch: ``epoch`` (from 1, over all fits), ``train_loss``, ``valid_loss``, the
        task's metrics, ``time`` in seconds.
    rate
        What ``lr`` the last fit ran with, as text for the model's definition.
    optimizer
        The moments of the last fit by parameter name, for the next one.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    rate: str | None = None
    optimizer: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"epochs": self.rows, "rate": self.rate}


def draw_losses(record: TrainingRecord) -> ShownFigure:
    """Training and validation loss over the epochs.

    Raises
    ------
    TrainingError
        No epoch was finished yet.
    """
    if not record.rows:
        raise TrainingError("There is no loss to draw yet; call fit() first.")
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in record.rows]
    for name, label in (("train_loss", "training"), ("valid_loss", "validation")):
        axes.plot(epochs, [row[name] for row in record.rows], label=label, marker=".")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure
