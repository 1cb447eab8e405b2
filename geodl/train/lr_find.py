"""The learning rate finder (Smith 2017, 1506.01186): any task, no trace left on the model."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from geodl.base.errors import TrainingError
from geodl.data.figure import ShownFigure, new_figure
from geodl.tasks.base import Task
from geodl.train.device import quiet_engine, to_device
from geodl.train.engine import Loader, named, open_fabric, seed_devices, set_training
from geodl.train.optim import make_optimizer

LOWEST_RATE, HIGHEST_RATE = 1e-5, 1.0
STEPS = 45
SMOOTHING = 0.8
# The sweep ends when the smoothed loss is this many times its least value.
DIVERGED = 3.0
# Rates outside say more about noise than about the model.
SAFE_RATES = (3e-5, 3e-2)
FALLBACK_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class RateSweep:
    """Rates that were tried, the smoothed loss at each, and the rate to use."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_rate(net: nn.Module, task: Task, loader: Loader, seed: int) -> RateSweep:
    """Raise the rate exponentially on a copy of the network, and suggest one.

    The network, the optimiser's state and the caller's random state stay as they were.

    Raises
    ------
    TrainingError
        The loss is not finite at the very lowest rate.
    """
    with quiet_engine(), torch.random.fork_rng(seed_devices()):
        torch.manual_seed(seed)
        rates, losses = _sweep(copy.deepcopy(net), task, loader)
    return RateSweep(tuple(rates), tuple(losses), suggest(rates, losses))


def _sweep(net: nn.Module, task: Task, loader: Loader) -> tuple[list[float], list[float]]:
    fabric = open_fabric()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = len(net.layer_groups())  # type: ignore[operator]
    module, optimizer = fabric.setup(net, make_optimizer(net, (LOWEST_RATE,) * groups))
    set_training(net)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    batches = _endless(loader)
    for step in tqdm(range(STEPS), desc="lr_find", leave=False, disable=None, file=sys.stderr):
        rate = LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = to_device(next(batches), fabric.device)
        loss = task.loss(module, batch)["loss"]
        value = float(loss.detach())
        if not math.isfinite(value):
            if not losses:
                raise TrainingError(
                    f"The loss is {value} before any learning, on the chips "
                    f"{named(batch)}; look at their values."
                )
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        smooth = average / (1 - SMOOTHING ** (step + 1))
        rates.append(rate)
        losses.append(smooth)
        if smooth > DIVERGED * min(losses):
            break
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
    return rates, losses


def _endless(loader: Loader) -> Iterator[Any]:
    while True:
        yield from loader


def suggest(rates: list[float], losses: list[float]) -> float:
    """The middle of the longest descent, in the logarithm of the rate.

    The longest descent is the longest subsequence of falling losses, so that single bumps do not
    cut it.
    """
    length = [1] * len(losses)
    before = [-1] * len(losses)
    for i in range(len(losses)):
        for j in range(i):
            # The latest of equals: a flat stretch before the descent is no part of it.
            if losses[j] > losses[i] and length[j] + 1 >= length[i]:
                length[i], before[i] = length[j] + 1, j
    end = max(range(len(losses)), key=length.__getitem__)
    if length[end] < 3:
        return FALLBACK_RATE
    start = end
    while before[start] >= 0:
        start = before[start]
    rate = math.sqrt(rates[start] * rates[end])
    return float(min(max(rate, SAFE_RATES[0]), SAFE_RATES[1]))


def draw_sweep(sweep: RateSweep) -> ShownFigure:
    """Loss against rate, with the suggestion marked."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    axes.plot(sweep.rates, sweep.losses)
    axes.set_xscale("log")
    axes.axvline(sweep.suggested, color="tab:red", label=f"suggested: {sweep.suggested:.2e}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    return figure
