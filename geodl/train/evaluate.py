"""One pass over a data set without learning."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from geodl.base.errors import DataError
from geodl.tasks.base import Batch, Meter, Task
from geodl.train.device import to_device


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over the items, and the meter with what was gathered."""

    loss: float
    meter: Meter


def evaluate(
    net: nn.Module,
    task: Task,
    loader: Iterable[Batch],
    device: torch.device,
    *,
    meter: Meter | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score a network on all batches of a loader; it is left in eval mode.

    Parameters
    ----------
    meter
        Another one than the task's own.
    progress
        Show a bar where the error stream is a terminal.

    Raises
    ------
    DataError
        The loader gave no batch.
    """
    meter = meter or task.new_meter()
    hidden = None if progress else True
    total, count = 0.0, 0
    net.eval()
    # Not inference_mode: a network may keep what it makes here (anchors) and train with it later.
    with torch.no_grad():
        for batch in tqdm(loader, desc="validate", leave=False, disable=hidden, file=sys.stderr):
            moved = to_device(batch, device)
            result = task.validate(net, moved)
            meter.update(result, moved)
            total += float(result["loss"]) * len(moved["name"])
            count += len(moved["name"])
    if not count:
        raise DataError(
            "There is no validation chip to score; raise val_split_pct in prepare_data."
        )
    return Evaluation(total / count, meter)
