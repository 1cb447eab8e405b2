"""Learning rates by layer group, the optimiser and its schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from geodl.base.errors import OptionError
from geodl.base.options import as_float

# Loshchilov and Hutter 2019 (1711.05101); the decay is applied to weights of layers only.
WEIGHT_DECAY = 0.01
# Earlier groups learn this much slower when only the last group's rate is given.
EARLY_GROUP_FACTOR = 10.0
# Smith and Topin 2017 (1708.07120): share of the steps that the rate rises, and its ends.
WARM_UP_SHARE = 0.3
START_DIVISOR, END_DIVISOR = 25.0, 1e4


def group_rates(lr: float | slice, groups: int) -> tuple[float, ...]:
    """One rate per layer group, backbone first.

    Parameters
    ----------
    lr
        A number: the same for all groups. ``slice(low, high)``: spread evenly in the logarithm
        from the first group to the last. ``slice(high)``: a tenth of it for all but the last.

    Raises
    ------
    OptionError
        Not positive numbers, or a slice with a step or without an end.
    """
    if isinstance(lr, (list, tuple)):
        raise OptionError(
            f"lr={lr!r}: for rates that rise through the layers give slice(low, high)."
        )
    if not isinstance(lr, slice):
        return (_rate(lr, "lr"),) * groups
    if lr.stop is None or lr.step is not None:
        raise OptionError(f"lr={lr!r}: give slice(low, high) or slice(high).")
    high = _rate(lr.stop, "the end of lr")
    if lr.start is None:
        return (high / EARLY_GROUP_FACTOR,) * (groups - 1) + (high,)
    low = _rate(lr.start, "the start of lr")
    if groups == 1:
        return (high,)
    return tuple(low * (high / low) ** (i / (groups - 1)) for i in range(groups))


def _rate(value: Any, name: str) -> float:
    rate = as_float(value, name)
    if rate <= 0:
        raise OptionError(f"{name}={rate:g}: a learning rate is above 0.")
    return rate


def parameter_groups(net: nn.Module, rates: Sequence[float]) -> list[dict[str, Any]]:
    """Trainable parameters with their rate and decay; frozen ones are left out.

    Parameters of one dimension (biases, normalisation) are not decayed.

    Raises
    ------
    OptionError
        Nothing is trainable.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for modules, rate in zip(net.layer_groups(), rates, strict=True):  # type: ignore[operator]
        fresh = [
            p for m in modules for p in m.parameters() if p.requires_grad and id(p) not in seen
        ]
        seen.update(map(id, fresh))
        for decay, params in (
            (WEIGHT_DECAY, [p for p in fresh if p.ndim > 1]),
            (0.0, [p for p in fresh if p.ndim <= 1]),
        ):
            if params:
                groups.append({"params": params, "lr": rate, "weight_decay": decay})
    if not groups:
        raise OptionError("All layers are frozen, so there is nothing to train; call unfreeze().")
    return groups


def make_optimizer(net: nn.Module, rates: Sequence[float]) -> AdamW:
    """AdamW over the trainable parameters, one fused kernel per group."""
    return AdamW(parameter_groups(net, rates), betas=(0.9, 0.99), fused=True)


def make_schedule(optimizer: AdamW, steps: int, one_cycle: bool) -> OneCycleLR | None:
    """The one-cycle schedule over ``steps``, or None for constant rates."""
    if not one_cycle or steps < 2:
        return None
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=WARM_UP_SHARE,
        div_factor=START_DIVISOR,
        final_div_factor=END_DIVISOR,
    )


def named_state(net: nn.Module, optimizer: AdamW) -> dict[str, dict[str, Tensor]]:
    """The optimiser's moments by parameter name."""
    return {
        name: {k: v for k, v in optimizer.state[p].items() if isinstance(v, Tensor)}
        for name, p in net.named_parameters()
        if p in optimizer.state
    }


def restore_state(net: nn.Module, optimizer: AdamW, state: dict[str, dict[str, Tensor]]) -> None:
    """Give parameters of the same name and shape their moments back."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        moments = state.get(name)
        fits = moments is not None and all(
            v.ndim == 0 or v.shape == parameter.shape for v in moments.values()
        )
        if fits and moments is not None and id(parameter) in trained:
            # A step count of another device breaks the fused kernel.
            optimizer.state[parameter] = {
                k: v.detach().to(parameter.device, torch.float32).clone()
                for k, v in moments.items()
            }
