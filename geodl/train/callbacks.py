"""What watches the epochs: the best weights, early stopping, the TensorBoard log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from geodl.base.errors import MissingPackageError

PATIENCE_EPOCHS = 5
LEAST_IMPROVEMENT = 0.001


def smaller_is_better(monitor: str) -> bool:
    """True for losses; every metric of a task grows with quality."""
    return monitor.endswith("_loss")


def _goodness(row: Mapping[str, float], monitor: str) -> float:
    """The monitored value, turned so that more is better; NaN is worst."""
    value = row[monitor]
    if math.isnan(value):
        return -math.inf
    return -value if smaller_is_better(monitor) else value


def copy_state(net: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers, copied in their own place."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


class KeptWeights:
    """The weights to fall back on: those before the fit, then of the best or the last epoch.

    Parameters
    ----------
    best_only
        Keep an epoch only when its monitored value beats all before.
    """

    def __init__(self, net: nn.Module, monitor: str, best_only: bool) -> None:
        self._net = net
        self._monitor = monitor
        self._best_only = best_only
        self._best = -math.inf
        self._state = copy_state(net)
        self.epoch: int | None = None

    def after_epoch(self, row: Mapping[str, float]) -> None:
        """Take the present weights if they are to be kept."""
        goodness = _goodness(row, self._monitor)
        if self._best_only and self.epoch is not None and goodness <= self._best:
            return
        # One assignment, so that Ctrl-C in the middle leaves the old state whole.
        self._state = copy_state(self._net)
        self._best = goodness
        self.epoch = int(row["epoch"])

    def reload(self) -> None:
        """Put the kept weights back into the network."""
        self._net.load_state_dict(self._state)


class EarlyStopping:
    """Says when the monitored value has not improved by 0.001 for 5 epochs."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._best = -math.inf
        self._waited = 0

    def after_epoch(self, row: Mapping[str, float]) -> bool:
        """True when training should stop."""
        goodness = _goodness(row, self._monitor)
        if goodness > self._best + LEAST_IMPROVEMENT or self._best == -math.inf:
            self._best, self._waited = goodness, 0
        else:
            self._waited += 1
        return self._waited >= PATIENCE_EPOCHS


class TensorBoardLog:
    """Losses and metrics per epoch, in TensorBoard's format.

    Raises
    ------
    MissingPackageError
        The package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(
                "fit(tensorboard=True) needs the package 'tensorboard': pip install tensorboard."
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = SummaryWriter(str(folder))

    def after_epoch(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        self._writer.close()
