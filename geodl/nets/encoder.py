"""Encoders for dense prediction: a feature map at every power of two, dilated where wanted."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, cast

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from geodl.base.errors import NotSupportedError
from geodl.nets.backbones import FAMILIES, TIMM_PREFIX, maps_only
from geodl.nets.weights import with_pretrained

STRIDE = 32
# What timm raises, by model, where an output stride is not offered.
_NO_STRIDE = (TypeError, ValueError, AttributeError, NotImplementedError, AssertionError)


def build_encoder(
    name: str,
    bands: int,
    pretrained: bool = False,
    output_stride: int = STRIDE,
    deepest: int = STRIDE,
) -> nn.Module:
    """An encoder of ``segmentation_models_pytorch`` over a backbone of timm.

    Its answer is a list: the image, then maps at strides 2, 4, 8, 16 and 32, with the channels
    that ``out_channels`` lists. Stages beyond ``output_stride`` keep that stride and are dilated
    instead (Yu and Koltun 2016, 1511.07122). Backbones that timm cannot dilate, other than VGG
    and DenseNet, keep their own strides.

    Parameters
    ----------
    name
        As :func:`geodl.nets.backbones.check_backbone` returns it.
    bands
        Of the image.
    pretrained
        Load timm's default weights.
    output_stride
        8, 16 or 32.
    deepest
        Stride of the last map of the list, a power of two.

    Raises
    ------
    NotSupportedError
        A backbone whose feature maps lie at other strides.
    """
    bare = name.removeprefix(TIMM_PREFIX)
    by_pools = bare in (*FAMILIES["VGG"], *FAMILIES["DenseNet"])
    strided = not by_pools and output_stride < STRIDE and _dilates(bare)
    try:
        encoder: nn.Module = smp.encoders.get_encoder(
            f"tu-{bare}",
            in_channels=bands,
            weights=True if pretrained else None,
            depth=deepest.bit_length() - 1,
            output_stride=output_stride if strided else STRIDE,
            **maps_only(bare, pretrained),
        )
    except (ValueError, AttributeError) as error:
        raise NotSupportedError(
            f"The backbone {name!r} suits no dense prediction ({error}); take one that "
            "backbones() lists."
        ) from error
    if by_pools and output_stride < STRIDE:
        dilate_pools(encoder, output_stride)
    return encoder


def make_encoder(
    name: str, bands: int, pretrained: bool, output_stride: int = STRIDE, deepest: int = STRIDE
) -> tuple[nn.Module, bool]:
    """An encoder, and whether pretrained weights are in it, by the rule of ``nets.weights``."""
    has_weights = timm.is_model_pretrained(name.removeprefix(TIMM_PREFIX))
    build = partial(build_encoder, name, bands, output_stride=output_stride, deepest=deepest)
    return with_pretrained(build, name, pretrained and has_weights)


def encoder_channels(encoder: nn.Module) -> list[int]:
    """Channels of the maps that an encoder gives, the image's own first."""
    return [int(channels) for channels in cast("Any", encoder.out_channels)]


def encoder_layers(encoder: nn.Module) -> list[nn.Module]:
    """The encoder's stages in order; what holds no weights is left out."""
    parts = [p for p in encoder.children() if _has_weights(p)]
    while len(parts) == 1:
        parts = [p for p in parts[0].children() if _has_weights(p)]
    return [
        stage
        for part in parts
        for stage in (
            part.children() if isinstance(part, nn.ModuleList | nn.Sequential) else [part]
        )
        if _has_weights(stage)
    ]


def encoder_halves(encoder: nn.Module) -> list[list[nn.Module]]:
    """Early and late half of the encoder, for rates by layer group."""
    parts = encoder_layers(encoder)
    half = (len(parts) + 1) // 2
    return [parts[:half], parts[half:]]


def dilate_pools(body: nn.Module, output_stride: int) -> None:
    """Take out the pools beyond a stride and dilate the convolutions behind them, in place.

    For networks whose modules are run in the order they were registered in, as VGG and DenseNet.
    """
    reached, dilation = 1, 1
    for path, module in list(body.named_modules()):
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            stride = _side(module.stride)
            if reached < output_stride:
                reached *= stride
                continue
            dilation *= stride
            parent, _, name = path.rpartition(".")
            setattr(body.get_submodule(parent), name, nn.Identity())
        elif isinstance(module, nn.Conv2d):
            reached *= _side(module.stride)
            side = _side(module.kernel_size)
            if dilation > 1 and side > 1:
                module.dilation = (dilation, dilation)
                module.padding = (dilation * (side // 2),) * 2


def _side(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


@cache
def _dilates(bare: str) -> bool:
    """Whether timm builds this backbone with an output stride."""
    try:
        with torch.device("meta"):
            timm.create_model(bare, features_only=True, pretrained=False, output_stride=8)
    except _NO_STRIDE:
        return False
    return True


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
