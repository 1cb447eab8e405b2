"""The training loop: Lightning Fabric inside, none of it outside.

Fabric brings devices, mixed precision and (later) several processes. Its loop is ours, because
tasks with two optimisers must fit in, and because an interrupted or failed epoch has to leave the
network usable.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from geodl.base.errors import DataWarning, TrainingError
from geodl.runtime.memory import keep_freed_memory
from geodl.tasks.base import Batch, Task
from geodl.train.callbacks import EarlyStopping, KeptWeights, TensorBoardLog, rank_epoch
from geodl.train.device import pick_device, quiet_engine, to_device
from geodl.train.evaluate import evaluate
from geodl.train.optim import make_optimizer, make_schedule, named_state, restore_state
from geodl.train.record import TrainingRecord
from geodl.train.table import EpochTable

_SHOWN_CHIPS = 16


class Loader(Protocol):
    """Batches of one epoch, as many each time."""

    def __iter__(self) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to train; checked by the caller.

    Parameters
    ----------
    rates
        One learning rate per layer group of the network, backbone first.
    checkpoint
        True keeps the best epoch's weights, ``"all"`` also hands every epoch to ``on_epoch``,
        False keeps the last epoch's.
    monitor
        A column of the table.
    tensorboard
        Folder of the log, or None for no log.
    labelled
        False where no chip at all holds a label, of which the caller has warned.
    """

    epochs: int
    rates: tuple[float, ...]
    one_cycle: bool = True
    early_stopping: bool = False
    checkpoint: bool | Literal["all"] = True
    monitor: str = "valid_loss"
    tensorboard: Path | None = None
    seed: int = 42
    labelled: bool = True


@dataclass(slots=True)
class _Stepper:
    """Everything one optimisation step touches."""

    fabric: Fabric
    net: nn.Module
    module: Any
    task: Task
    optimizer: Any
    schedule: OneCycleLR | None

    def step(self, batch: Batch) -> float:
        """One batch; returns its loss.

        Raises
        ------
        TrainingError
            The loss is not finite; names the chips.
        """
        loss = self.task.loss(self.module, batch)["loss"]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss became {value} on the chips {named(batch)}. The last good weights are "
                "kept. Look at these chips for values far outside the others, or train at a "
                "lower rate."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return value


def named(batch: Batch) -> str:
    """The names of a batch's chips, for messages."""
    names = list(batch["name"])
    more = f" and {len(names) - _SHOWN_CHIPS} more" if len(names) > _SHOWN_CHIPS else ""
    return ", ".join(names[:_SHOWN_CHIPS]) + more


def set_training(net: nn.Module) -> None:
    """Train mode, but for a frozen backbone: its normalisation statistics stay as they are."""
    net.train()
    backbone = net.backbone
    if isinstance(backbone, nn.Module) and not any(p.requires_grad for p in backbone.parameters()):
        backbone.eval()


def open_fabric() -> Fabric:
    """The engine on one device: bfloat16 where the tensor cores have it, else float32."""
    device = pick_device()
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return Fabric(
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed" if half else "32-true",
        # In a job of a batch system with several tasks it would take itself for one of many.
        plugins=[LightningEnvironment()],
    )


def seed_devices() -> list[int]:
    """CUDA devices whose random state has to be put back after a seeded section."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def train(
    net: nn.Module,
    task: Task,
    train_loader: Loader,
    valid_loader: Iterable[Batch],
    options: FitOptions,
    record: TrainingRecord,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    table: EpochTable | None = None,
) -> None:
    """Train a network in place and add to the record.

    The best weights are in the network at the end, also after Ctrl-C and after a loss that is not
    finite. The same seed, data and threads give the same weights; the caller's random state is
    left as it was.

    Raises
    ------
    TrainingError
        A loss that is not finite.
    """
    keep_freed_memory()
    with quiet_engine(), torch.random.fork_rng(seed_devices()):
        torch.manual_seed(options.seed)
        fabric = open_fabric()
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(net, options.rates)
        restore_state(net, optimizer, record.optimizer)
        schedule = make_schedule(optimizer, options.epochs * len(train_loader), options.one_cycle)
        module, wrapped = fabric.setup(net, optimizer)
        stepper = _Stepper(fabric, net, module, task, wrapped, schedule)
        kept = KeptWeights(net, best_only=bool(options.checkpoint))
        try:
            _run_epochs(stepper, train_loader, valid_loader, options, record, kept, on_epoch, table)
        except TrainingError:
            kept.reload()
            raise
        finally:
            _settle(net, optimizer, options, record, kept)


def _settle(
    net: nn.Module, optimizer: AdamW, options: FitOptions, record: TrainingRecord, kept: KeptWeights
) -> None:
    """Leave the network as promised, however the epochs ended."""
    if options.checkpoint and kept.epoch is not None:
        kept.reload()
    record.optimizer = named_state(net, optimizer)
    net.eval()


def _run_epochs(
    stepper: _Stepper,
    train_loader: Loader,
    valid_loader: Iterable[Batch],
    options: FitOptions,
    record: TrainingRecord,
    kept: KeptWeights,
    on_epoch: Callable[[dict[str, float]], None] | None,
    table: EpochTable | None,
) -> None:
    table = table or EpochTable(("train_loss", "valid_loss", *stepper.task.metric_names))
    stopper = EarlyStopping() if options.early_stopping else None
    log = TensorBoardLog(options.tensorboard) if options.tensorboard else None
    monitor = ""
    try:
        for _ in range(options.epochs):
            row, labelled = _run_epoch(stepper, train_loader, valid_loader, len(record.rows) + 1)
            monitor = monitor or _deciding_column(options, labelled)
            rank = rank_epoch(row, monitor)
            record.rows.append(row)
            kept.after_epoch(int(row["epoch"]), rank)
            table.write(row)
            if log is not None:
                log.after_epoch(row)
            if on_epoch is not None:
                on_epoch(row)
            if stopper is not None and stopper.after_epoch(rank):
                table.note(f"Stopped: {monitor} no longer improves.")
                break
    finally:
        if log is not None:
            log.close()


def _run_epoch(
    stepper: _Stepper, train_loader: Loader, valid_loader: Iterable[Batch], number: int
) -> tuple[dict[str, float], bool]:
    """The row of the table, and whether the validation chips held a label."""
    started = time.perf_counter()
    set_training(stepper.net)
    total, count = 0.0, 0
    bar = tqdm(train_loader, desc=f"epoch {number}", leave=False, disable=None, file=sys.stderr)
    for batch in bar:
        moved = to_device(batch, stepper.fabric.device)
        total += stepper.step(moved) * len(moved["name"])
        count += len(moved["name"])
    scored = evaluate(stepper.module, stepper.task, valid_loader, stepper.fabric.device)
    row = {
        "epoch": number,
        "train_loss": total / max(count, 1),
        "valid_loss": scored.loss,
        **scored.meter.compute(),
        "time": time.perf_counter() - started,
    }
    return row, scored.meter.saw_labels()


def _deciding_column(options: FitOptions, labelled: bool) -> str:
    """The column of the table that tells which epoch is best.

    Where no validation chip holds a label, a network that finds nothing is the best by validation,
    often that of the first epoch; the training loss decides then.
    """
    if labelled:
        return options.monitor
    if options.labelled and (options.checkpoint or options.early_stopping):
        warnings.warn(
            "No validation chip holds a label, so validation cannot tell which epoch is best; the "
            f"training loss decides in place of {options.monitor!r}. Raise val_split_pct, or give "
            "prepare_data another seed.",
            DataWarning,
            stacklevel=6,
        )
    return "train_loss"
