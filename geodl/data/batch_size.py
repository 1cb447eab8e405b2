"""Batch sizes that fit the device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geodl.base.errors import ModelDataError, NotSupportedError
from geodl.base.options import check_choice, check_known
from geodl.data.memory import free_bytes, peak_tensor_bytes

logger = logging.getLogger(__name__)

# Documented caps: of the largest batch in both modes, and of the recommended one in training.
MAX_BATCH = 1024
TRAIN_RECOMMENDED = 64
# Share of the free memory that a batch may take: other processes, fragments and the allocator's
# rounding need the rest. A CPU shares its memory with everything else.
_SHARE = {"cuda": 0.9, "cpu": 0.5}
# Activations of the forward pass are measured; their gradients come on top while they are freed.
_BACKWARD_FACTOR = 1.25
# Gradients and the optimiser's two moments, per weight.
_TRAINED_COPIES = 3
# Before there is a model: a ResNet-34 U-Net keeps about 1000 bytes per pixel of its input when it
# trains (measured at 128 and 224 px); larger backbones three times that.
_TYPICAL_BYTES_PER_PIXEL = 3000
_TYPICAL_FIXED_BYTES = 2**29


class BatchSizes(NamedTuple):
    """Batch sizes for one model on the device at hand."""

    recommended_batchsize: int
    max_batchsize: int


def estimate_batch_size(model: Any, mode: str = "train", **kwargs: Any) -> BatchSizes:
    """Estimate batch sizes from the memory at hand, the model and its data.

    Measured on the model's device: on a GPU by running batches, larger and larger, until its
    memory is full; on a CPU from the memory that two small batches take. The model itself is left
    as it was.

    Parameters
    ----------
    model
        A model that trains on image chips.
    mode
        ``train`` (forward and backward) or ``eval`` (forward only).

    Returns
    -------
    BatchSizes
        ``max_batchsize``, at most 1024, and ``recommended_batchsize``, the power of two at or
        below it, at most 64 for training.

    Raises
    ------
    OptionError, UnknownOptionError
        Another mode, or a keyword that nothing reads.
    NotSupportedError
        A model that is no network on image chips.
    ModelDataError
        ``mode="train"`` for a model without data, or not even one sample fits the memory.
    """
    check_known(kwargs, (), "estimate_batch_size()")
    check_choice(mode, ("train", "eval"), "mode")
    net, task = getattr(model, "_net", None), getattr(model, "_task", None)
    if not isinstance(net, nn.Module) or task is None:
        raise NotSupportedError(
            f"estimate_batch_size() measures networks on image chips; {type(model).__name__} is "
            "none. Text, tabular, time series and tracking models are not supported."
        )
    data = getattr(model, "_data", None)
    if mode == "eval":
        contract = model._contract
        shape = (len(contract.extract_bands), contract.tile_px, contract.tile_px)
        return measure_batch_size(net, lambda probe, x: probe(x), _zeros(shape), train=False)
    if data is None:
        raise ModelDataError(
            "estimate_batch_size(mode='train') needs the model's data; open it with "
            "from_model(path, data=prepare_data(...)), or use mode='eval'."
        )
    item = data.train_ds[0]
    return measure_batch_size(
        net, lambda probe, batch: task.loss(probe, batch)["loss"], _repeated(task, item), train=True
    )


def _zeros(shape: tuple[int, int, int]) -> Callable[[int], Tensor]:
    return lambda size: torch.zeros(size, *shape)


def _repeated(task: Any, item: dict[str, Any]) -> Callable[[int], Any]:
    return lambda size: task.collate([item] * size)


def measure_batch_size(
    net: nn.Module,
    forward: Callable[[nn.Module, Any], Any],
    make_batch: Callable[[int], Any],
    *,
    train: bool,
) -> BatchSizes:
    """The largest batch that a network bears on its device.

    Parameters
    ----------
    net
        Is copied; its weights, gradients and running statistics stay as they are.
    forward
        ``forward(net, batch)`` gives the loss in training, anything in evaluation.
    make_batch
        A batch of a given size on the CPU.
    train
        With gradients, in train mode.

    Raises
    ------
    ModelDataError
        Not even the smallest batch fits.
    """
    device = next(net.parameters()).device
    probe = copy.deepcopy(net).train(train)

    def run(size: int, backward: bool) -> None:
        with torch.set_grad_enabled(train):
            loss = forward(probe, _moved(make_batch(size), device))
        if backward:
            loss.backward()

    with torch.random.fork_rng():
        if device.type == "cuda":
            largest = _by_trying(lambda size: run(size, train), 2 if train else 1)
        else:
            largest = _by_measuring(lambda size: run(size, False), probe, train)
    cap = TRAIN_RECOMMENDED if train else MAX_BATCH
    return BatchSizes(min(cap, _power_of_two(largest)), largest)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(part, device) for part in value)
    return value


def _by_measuring(run: Callable[[int], None], net: nn.Module, train: bool) -> int:
    """On a CPU: bytes per sample from two batches, and what fits the free memory."""
    small, large = 2, 4
    peaks = [peak_tensor_bytes(partial(run, size)) for size in (small, large)]
    each = max(1.0, (peaks[1] - peaks[0]) / (large - small))
    fixed = max(0.0, peaks[0] - each * small)
    if train:
        each *= _BACKWARD_FACTOR
        weights = sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
        fixed += _TRAINED_COPIES * weights
    room = free_bytes(torch.device("cpu")) * _SHARE["cpu"] - fixed
    return _clamped(int(room / each))


def _by_trying(run: Callable[[int], None], start: int) -> int:
    """On a GPU: double until the memory is full, then once halfway back."""
    best, size = 0, start
    while size <= MAX_BATCH and _fits(run, size):
        best, size = size, size * 2
    halfway = best + best // 2
    if 0 < best < MAX_BATCH and _fits(run, halfway):
        best = halfway
    return _clamped(best)


def _fits(run: Callable[[int], None], size: int) -> bool:
    device = torch.device("cuda", torch.cuda.current_device())
    limit = free_bytes(device) * _SHARE["cuda"] + torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        run(size)
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.empty_cache()
    return peak <= limit


def _clamped(size: int) -> int:
    if size < 1:
        raise ModelDataError(
            "Not even the smallest batch fits the free memory; use a smaller chip_size or "
            "backbone, or a device with more memory."
        )
    return min(size, MAX_BATCH)


def _power_of_two(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def typical_batch_size(bands: int, chip_size: int) -> int:
    """A training batch that fits the device for a usual network, before there is one.

    Parameters
    ----------
    bands
        Of the network's input.
    chip_size
        Side of the items in pixels.

    Returns
    -------
    A power of two in 2..64.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    room = free_bytes(device) * _SHARE[device.type] - _TYPICAL_FIXED_BYTES
    each = chip_size**2 * (_TYPICAL_BYTES_PER_PIXEL + 4 * bands)
    return min(TRAIN_RECOMMENDED, max(2, _power_of_two(max(1, int(room / each)))))
