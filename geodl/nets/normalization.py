"""Normalisation layers for batches too small for batch statistics."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MOST_GROUPS = 32
# Deep maps of small tiles have a pixel or two, so a group's statistics need several channels.
LEAST_CHANNELS = 8


def groups_for(channels: int) -> int:
    """The largest divisor of ``channels`` up to 32 that leaves 8 channels in a group, or 1."""
    most = max(1, min(channels // LEAST_CHANNELS, MOST_GROUPS))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def batch_to_group_norm(module: nn.Module, keep: nn.Module | None = None) -> None:
    """Replace every BatchNorm below ``module`` by GroupNorm (Wu and He 2018, 1803.08494).

    The replacement has the same scale and shift; layers that join an activation to the
    normalisation keep it.

    Parameters
    ----------
    keep
        A part that is left as it is, for instance a pretrained backbone.
    """
    for name, child in module.named_children():
        if child is keep:
            continue
        if isinstance(child, _BatchNorm):
            setattr(module, name, _group_norm_like(child))
        else:
            batch_to_group_norm(child, keep)


def _group_norm_like(norm: _BatchNorm) -> nn.Module:
    group_norm = nn.GroupNorm(groups_for(norm.num_features), norm.num_features, eps=norm.eps)
    if norm.affine:
        group_norm.weight.data.copy_(norm.weight.data)
        group_norm.bias.data.copy_(norm.bias.data)
    # timm's BatchNormAct2d is a BatchNorm that holds its dropout and activation.
    extra = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part]
    return nn.Sequential(group_norm, *extra) if extra else group_norm
