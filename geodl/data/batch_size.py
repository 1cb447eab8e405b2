"""Batch sizes that fit the device."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geodl.base.errors import GeodlWarning, ModelDataError, NotSupportedError
from geodl.base.options import check_choice, check_known
from geodl.nets.memory import free_bytes, peak_tensor_bytes

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
# Before there is a model: a ResNet-34 U-Net keeps about 1500 bytes per pixel of its input when it
# trains (measured at 224 px), which this doubles for larger backbones.
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
        A model that trains on image chips or on blocks of points.
    mode
        ``train`` (forward and backward) or ``eval`` (forward only). Points need the model's data
        in both: how dense they lie decides about their memory.

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
        A model that is no network on image chips or points.
    ModelDataError
        The model has no data where they are needed, or not even one sample fits the memory.
    """
    check_known(kwargs, (), "estimate_batch_size()")
    check_choice(mode, ("train", "eval"), "mode")
    net, task = getattr(model, "net", None), getattr(model, "task", None)
    if not isinstance(net, nn.Module) or task is None:
        raise NotSupportedError(
            "estimate_batch_size() measures networks on image chips and points; "
            f"{type(model).__name__} is none. Text, tabular, time series and tracking models are "
            "not supported."
        )
    if mode == "eval":
        largest = _largest(_forward(net, task, model))
        return BatchSizes(_power_of_two(largest), largest)
    largest = _largest(training_step(net, task, _data_of(model, mode)))
    return BatchSizes(min(TRAIN_RECOMMENDED, _power_of_two(largest)), largest)


def _forward(net: nn.Module, task: Any, model: Any) -> Step:
    """A forward pass of the model on what it reads: zeros of its tile, or a block of its data."""
    contract = model.contract
    if contract.points is None:
        return evaluation_step(
            net, (len(contract.extract_bands), contract.tile_px, contract.tile_px)
        )
    probe = copy.deepcopy(net).eval()
    block = _data_of(model, "eval").valid_ds[0]["points"]
    return Step(probe, probe, lambda size: task.prepare([block] * size))


def _data_of(model: Any, mode: str) -> Any:
    if model.data is None:
        raise ModelDataError(
            f"estimate_batch_size(mode={mode!r}) needs the model's data; open it with "
            "from_model(path, data=prepare_data(...))"
            + (", or use mode='eval'." if mode == "train" else ".")
        )
    return model.data


def fitting_batch_size(net: nn.Module, task: Any, data: Any) -> int:
    """The data's batch size, or the largest below it that fits the device, with a warning.

    Parameters
    ----------
    net, task, data
        As in a model that is about to train.

    Raises
    ------
    ModelDataError
        Not even the smallest batch fits.
    """
    wanted: int = data.batch_size
    largest = _largest(training_step(net, task, data), wanted)
    if largest < wanted:
        warnings.warn(
            f"A batch of {wanted} does not fit the free memory; {largest} is used. A smaller "
            "chip_size or backbone allows larger batches.",
            GeodlWarning,
            stacklevel=3,
        )
    return largest


@dataclass(frozen=True, slots=True)
class Step:
    """One step on a batch of any size, on a copy of a network: nothing of the network changes.

    Parameters
    ----------
    net
        The copy, in train or eval mode.
    forward
        ``forward(batch)`` runs it; in train mode it gives the loss.
    make_batch
        A batch of a given size, on the CPU.
    """

    net: nn.Module
    forward: Callable[[Any], Any]
    make_batch: Callable[[int], Any]

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def run(self, size: int, backward: bool) -> None:
        """Forward, and backward if asked; the caller's random state is left as it was."""
        cuda = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda), torch.set_grad_enabled(self.net.training):
            loss = self.forward(_moved(self.make_batch(size), self.device))
            if backward:
                loss.backward()
                self.net.zero_grad(set_to_none=True)


def training_step(net: nn.Module, task: Any, data: Any) -> Step:
    """A step on copies of the first training item."""
    probe, item = copy.deepcopy(net).train(), data.train_ds[(0, data.seed)]
    return Step(
        probe,
        lambda batch: task.loss(probe, batch)["loss"],
        lambda size: task.collate([item] * size),
    )


def evaluation_step(net: nn.Module, shape: tuple[int, int, int]) -> Step:
    """A forward pass on zeros; ``shape`` is (bands, height, width)."""
    probe = copy.deepcopy(net).eval()
    return Step(probe, probe, lambda size: torch.zeros(size, *shape))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(part, device) for part in value)
    return value


def _largest(step: Step, most: int = MAX_BATCH) -> int:
    """The largest batch up to ``most`` that the step's device bears."""
    if step.device.type == "cuda":
        return _by_trying(step, most)
    return _by_measuring(step, most)


def _by_measuring(step: Step, most: int) -> int:
    """On a CPU: bytes per sample from two batches, and what fits the free memory."""
    small, large = 2, 4
    train = step.net.training
    # Without the backward pass, whose peak does not grow evenly with the batch.
    peaks = [peak_tensor_bytes(partial(step.run, size, False)) for size in (small, large)]
    each = max(1.0, (peaks[1] - peaks[0]) / (large - small))
    fixed = max(0.0, peaks[0] - each * small)
    if train:
        each *= _BACKWARD_FACTOR
        trained = (p for p in step.net.parameters() if p.requires_grad)
        fixed += _TRAINED_COPIES * sum(p.numel() * p.element_size() for p in trained)
    room = free_bytes(torch.device("cpu")) * _SHARE["cpu"] - fixed
    return _clamped(int(room / each), most)


def _by_trying(step: Step, most: int) -> int:
    """On a GPU: ``most`` if it fits, else doubled from below until the memory is full."""
    if most < MAX_BATCH and _fits(step, most):
        return most
    best, size = 0, 2 if step.net.training else 1
    while size <= most and _fits(step, size):
        best, size = size, size * 2
    halfway = min(most, best + best // 2)
    if best < halfway and _fits(step, halfway):
        best = halfway
    return _clamped(best, most)


def _fits(step: Step, size: int) -> bool:
    device = step.device
    limit = free_bytes(device) * _SHARE["cuda"] + torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step.run(size, step.net.training)
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.empty_cache()
    return peak <= limit


def _clamped(size: int, most: int) -> int:
    if size < 1:
        raise ModelDataError(
            "Not even the smallest batch fits the free memory; use a smaller chip_size or "
            "backbone, or a device with more memory."
        )
    return min(size, most)


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
