"""Edge detectors with answers at every stage: HED and BDCN."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.encoder import STRIDE, encoder_halves
from geodl.nets.unet import pad_to_stride

# 1902.10903, 3.3: filters of a scale enhancement module, its branches, and its dilations' step.
_SCALE_CHANNELS = 32
_SCALE_BRANCHES = 3
_SCALE_STEP = 4
_SIDE_CHANNELS = 21


class EdgeNet(nn.Module):
    """What both detectors share: an encoder with maps at up to five strides, and frozen parts.

    Parameters
    ----------
    encoder
        Of :func:`geodl.nets.encoder.build_encoder`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.encoder

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the encoder, then the rest."""
        rest = [m for m in self.children() if m is not self.encoder]
        return [*encoder_halves(self.encoder), rest]

    def stages(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps of a padded image, finest first; not the image itself."""
        return [m for m in self.encoder(x) if m is not x and m.shape[1]]


def stage_channels(encoder: nn.Module) -> list[int]:
    """Channels of the maps that :meth:`EdgeNet.stages` gives."""
    return [int(channels) for channels in cast("Any", encoder).model.feature_info.channels()]


class HED(EdgeNet):
    """Holistically nested edge detection (Xie and Tu 2015, 1504.06375).

    Parameters
    ----------
    encoder
        VGG gives maps at strides 1 to 16 as in the paper, others at 2 or 4 to 32.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        self.sides = nn.ModuleList(_blank(c) for c in stage_channels(encoder))
        self.fuse = _mean(len(self.sides))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Edge logits of float (B, bands, H, W).

        Returns
        -------
        In eval mode float (B, 1, H, W), of the mean over the probabilities of fusion and sides
        (equation 5). In train mode a dict: ``logits`` (B, 1, H, W) of the fusion and ``sides``
        (B, S, H, W).
        """
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, STRIDE)
        maps = [
            _grown(side(stage), padded)
            for side, stage in zip(self.sides, self.stages(padded), strict=True)
        ]
        sides = torch.cat(maps, dim=1)[..., :height, :width]
        fused = self.fuse(sides)
        if self.training:
            return {"logits": fused, "sides": sides}
        mean = torch.sigmoid(torch.cat([fused, sides], dim=1).float()).mean(dim=1, keepdim=True)
        return torch.logit(mean, eps=1e-6)


class ScaleEnhancement(nn.Module):
    """Convolutions of growing dilation over one map, summed (1902.10903, 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, _SCALE_CHANNELS, 3, padding=1)
        self.branches = nn.ModuleList(
            nn.Conv2d(_SCALE_CHANNELS, _SCALE_CHANNELS, 3, padding=rate, dilation=rate)
            for rate in (_SCALE_STEP * (i + 1) for i in range(_SCALE_BRANCHES))
        )
        self.last = nn.Conv2d(_SCALE_CHANNELS, _SIDE_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 21, H, W)"""
        x = functional.relu(self.first(x))
        for branch in self.branches:
            x = x + functional.relu(branch(x))
        return self.last(x)


class BDCN(EdgeNet):
    """Bi-directional cascade network (He et al. 2019, 1902.10903).

    Every stage gives two maps: one adds to those of the shallower stages, one to those of the
    deeper stages, so that each stage learns what the others on its side leave over. One scale
    enhancement module reads the stage's last map; the paper has one per convolution of VGG, which
    other backbones have no counterpart of.

    Parameters
    ----------
    encoder
        As for :class:`HED`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        channels = stage_channels(encoder)
        self.scales = nn.ModuleList(ScaleEnhancement(c) for c in channels)
        self.to_deep = nn.ModuleList(nn.Conv2d(_SIDE_CHANNELS, 1, 1) for _ in channels)
        self.to_shallow = nn.ModuleList(nn.Conv2d(_SIDE_CHANNELS, 1, 1) for _ in channels)
        self.fuse = _mean(2 * len(channels))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Edge logits of float (B, bands, H, W).

        Returns
        -------
        In eval mode float (B, 1, H, W). In train mode a dict: ``logits`` of the fusion, and
        ``sides`` (B, 2 S, H, W): each stage's map with those it adds to.
        """
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, STRIDE)
        deep, shallow = [], []
        for i, stage in enumerate(self.stages(padded)):
            features = self.scales[i](stage)
            deep.append(_grown(self.to_deep[i](features), padded)[..., :height, :width])
            shallow.append(_grown(self.to_shallow[i](features), padded)[..., :height, :width])
        cascades = [*cascade(deep), *cascade(shallow[::-1])]
        sides = torch.cat(cascades, dim=1)
        fused = self.fuse(sides)
        return {"logits": fused, "sides": sides} if self.training else fused


def cascade(maps: list[Tensor]) -> list[Tensor]:
    """Each map plus all before it, which get no gradient from the sum (equations 5 to 7)."""
    summed = [maps[0]]
    for one in maps[1:]:
        summed.append(one + summed[-1].detach())
    return summed


def _blank(channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that gives 0 until it learns (1504.06375, 4.1)."""
    conv = nn.Conv2d(channels, 1, 1, bias=True)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def _mean(channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that gives the mean of its channels until it learns."""
    conv = _blank(channels)
    nn.init.constant_(conv.weight, 1 / channels)
    return conv


def _grown(logits: Tensor, image: Tensor) -> Tensor:
    size = image.shape[-2:]
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
