"""Where training runs and how a batch gets there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_ENGINE_LOGGER = "lightning_fabric"


def pick_device() -> torch.device:
    """The first CUDA device, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def net_device(net: nn.Module) -> torch.device:
    """Where the network's parameters lie."""
    return next(net.parameters()).device


@contextmanager
def quiet_engine() -> Iterator[None]:
    """Keep the engine's own notices from the user: they name classes that geodl does not show."""
    logger = logging.getLogger(_ENGINE_LOGGER)
    level = logger.level
    try:
        logger.setLevel(logging.WARNING)
        yield
    finally:
        logger.setLevel(level)


def to_device(value: Any, device: torch.device) -> Any:
    """Move the tensors in a batch; images become channels-last, as the network's weights are."""
    if isinstance(value, Tensor):
        moved = value.to(device, non_blocking=True)
        if moved.ndim == 4 and moved.is_floating_point():
            return moved.contiguous(memory_format=torch.channels_last)
        return moved
    if isinstance(value, dict):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(part, device) for part in value)
    return value
