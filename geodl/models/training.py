"""Between the façade and the training engine."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from geodl.base.errors import DataWarning
from geodl.data.figure import show
from geodl.data.loaders import SomeBatches
from geodl.models.base import TorchModel
from geodl.models.packaging import save_checkpoint
from geodl.train.engine import FitOptions, train
from geodl.train.lr_find import draw_sweep, find_rate
from geodl.train.optim import group_rates

logger = logging.getLogger(__name__)


def fit_model(
    model: TorchModel,
    data: Any,
    *,
    lr: float | slice | None,
    epochs: int,
    one_cycle: bool,
    early_stopping: bool,
    checkpoint: bool | Literal["all"],
    tensorboard: bool,
    monitor: str,
    iterations: int | None = None,
) -> None:
    """Train a model on a data object; see :meth:`geodl.models.base.TorchModel.fit`."""
    labelled = _has_labels(data)
    if not labelled:
        warnings.warn(
            f"No chip has a label of {', '.join(data.classes)}: all of it is background, and "
            "nothing else can be learned. Check the class values of the export.",
            DataWarning,
            stacklevel=3,
        )
    if lr is None:
        lr = find_model_rate(model, data, plot=False)
    rates = group_rates(lr, len(model.net.layer_groups()))  # type: ignore[operator]
    model.record.rate = rate_text(lr)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    seed = data.seed + len(model.record.rows)
    options = FitOptions(
        epochs=epochs,
        rates=rates,
        one_cycle=one_cycle,
        early_stopping=early_stopping,
        checkpoint=checkpoint,
        monitor=monitor,
        tensorboard=Path(data.working_dir) / "training_log" / stamp if tensorboard else None,
        seed=seed,
        labelled=labelled,
    )
    loader = data.train_loader(
        model.task.train_collate, generator=torch.Generator().manual_seed(seed)
    )
    train(
        model.net,
        model.task,
        loader if iterations is None else SomeBatches(loader, iterations),
        data.valid_loader(model.task.collate),
        options,
        model.record,
        on_epoch=_keep_epochs(model, data, stamp) if checkpoint == "all" else None,
    )


def _has_labels(data: Any) -> bool:
    """False where all chips are background: training runs, and learns that there is nothing."""
    counts = getattr(data, "class_counts", None)
    return not counts or any(counts.values())


def _keep_epochs(model: TorchModel, data: Any, stamp: str) -> Callable[[dict[str, float]], None]:
    folder = Path(data.models_dir) / f"checkpoints_{stamp}"

    def keep(row: dict[str, float]) -> None:
        save_checkpoint(model, folder, int(row["epoch"]))

    return keep


def find_model_rate(model: TorchModel, data: Any, plot: bool) -> float:
    """The suggested learning rate; drawn in a notebook if asked."""
    loader = data.train_loader(
        model.task.train_collate, generator=torch.Generator().manual_seed(data.seed)
    )
    sweep = find_rate(model.net, model.task, loader, data.seed)
    logger.info("learning rate %.2e suggested", sweep.suggested)
    if plot:
        show(draw_sweep(sweep))
    return sweep.suggested


def rate_text(lr: float | slice) -> str:
    """A rate as definitions hold it: ``1.0000e-04``, or the text of a slice of such."""
    if not isinstance(lr, slice):
        return f"{float(lr):.4e}"
    start = None if lr.start is None else f"{float(lr.start):.4e}"
    return str(slice(start, f"{float(lr.stop):.4e}", None))
