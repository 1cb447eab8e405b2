"""What watches the epochs: the best weights, early stopping, the TensorBoard log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from geodl.base.errors import MissingPackageError, OutputError

PATIENCE_EPOCHS = 5
LEAST_IMPROVEMENT = 0.001

Rank = tuple[bool, float]
"""Whether the monitored value is defined, and the value that decides; more is better."""
_WORST: Rank = (False, -math.inf)


def smaller_is_better(monitor: str) -> bool:
    """True for losses; every metric of a task grows with quality."""
    return monitor.endswith("_loss")


def rank_epoch(row: Mapping[str, float], monitor: str) -> Rank:
    """How good an epoch is, to be compared with others.

    An epoch in which the monitored value is undefined (NaN) is worse than all that have one;
    among such epochs the validation loss decides.
    """
    defined = not math.isnan(row[monitor])
    column = monitor if defined else "valid_loss"
    value = -row[column] if smaller_is_better(column) else row[column]
    return defined, -math.inf if math.isnan(value) else value


def copy_state(net: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers, copied in their own place."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


class KeptWeights:
    """The weights to fall back on: those before the fit, then of the best or the last epoch.

    Parameters
    ----------
    best_only
        Keep an epoch only when it ranks above all before.
    """

    def __init__(self, net: nn.Module, best_only: bool) -> None:
        self._net = net
        self._best_only = best_only
        self._best = _WORST
        self._state = copy_state(net)
        self.epoch: int | None = None

    def after_epoch(self, epoch: int, rank: Rank) -> None:
        """Take the present weights if they are to be kept."""
        if self._best_only and self.epoch is not None and rank <= self._best:
            return
        # One assignment, so that Ctrl-C in the middle leaves the old state whole.
        self._state = copy_state(self._net)
        self._best = rank
        self.epoch = epoch

    def reload(self) -> None:
        """Put the kept weights back into the network."""
        self._net.load_state_dict(self._state)


class EarlyStopping:
    """Says when epochs have not become better by 0.001 for 5 of them."""

    def __init__(self) -> None:
        self._best = _WORST
        self._waited = 0

    def after_epoch(self, rank: Rank) -> bool:
        """True when training should stop."""
        defined, value = self._best
        if rank > (defined, value + LEAST_IMPROVEMENT) or self._best == _WORST:
            self._best, self._waited = rank, 0
        else:
            self._waited += 1
        return self._waited >= PATIENCE_EPOCHS


class TensorBoardLog:
    """Losses and metrics per epoch, in TensorBoard's format.

    Raises
    ------
    MissingPackageError
        The package ``tensorboard`` is not installed.
    OutputError
        The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(
                "fit(tensorboard=True) needs the package 'tensorboard': pip install tensorboard."
            ) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"fit(tensorboard=True) cannot write its log to {folder}: {error.strerror}. Give "
                "prepare_data another working_dir."
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def after_epoch(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        self._writer.close()
