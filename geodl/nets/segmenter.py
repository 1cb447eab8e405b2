"""Segmentation networks from an encoder and a head: DeepLab, PSPNet, and PSPNet with a U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPModule
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.encoder import STRIDE, encoder_channels, encoder_halves
from geodl.nets.pointrend import (
    TRAIN_PX_PER_POINT,
    PointHead,
    points_for,
    refine,
    sample_points,
    training_points,
)
from geodl.nets.unet import pad_to_stride

_UNET_CHANNELS = (256, 128, 64, 32, 16)
_PSP_CHANNELS = 512
_ASPP_CHANNELS = 256
# Features that PointRend reads, by place in the encoder's list: stride 4.
_FINE = 2


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, 1706.05587), by
    ``segmentation_models_pytorch``."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.decoder = DeepLabV3Decoder(
            in_channels=channels[-1],
            out_channels=_ASPP_CHANNELS,
            atrous_rates=(12, 24, 36),
            aspp_separable=False,
            aspp_dropout=0.5,
        )
        self.answer = nn.Conv2d(_ASPP_CHANNELS, outputs, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """float (B, outputs, h, w) logits at the stride of the last map."""
        return self.answer(self.decoder(features))


class PyramidHead(nn.Module):
    """Pyramid pooling over the last map (Zhao et al. 2017, 1612.01105).

    Parameters
    ----------
    sizes
        Sides of the grids that the map is pooled to.
    """

    def __init__(self, channels: Sequence[int], outputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.pool = PSPModule(channels[-1], tuple(sizes))
        self.join = Conv2dReLU(pooled_channels(channels[-1], sizes), _PSP_CHANNELS, 1)
        self.dropout = nn.Dropout2d(0.2)
        self.answer = nn.Conv2d(_PSP_CHANNELS, outputs, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """float (B, outputs, h, w) logits at the stride of the last map."""
        return self.answer(self.dropout(self.join(self.pool(features[-1]))))


class PyramidUnetHead(nn.Module):
    """Pyramid pooling over the last map, then a U-Net decoder.

    Parameters
    ----------
    steps
        Doublings of the decoder: 5 reaches the image's own pixels, 3 stride 4.
    """

    def __init__(
        self, channels: Sequence[int], outputs: int, sizes: Sequence[int], steps: int = 5
    ) -> None:
        super().__init__()
        self.pool = PSPModule(channels[-1], tuple(sizes))
        self.join = Conv2dReLU(pooled_channels(channels[-1], sizes), _PSP_CHANNELS, 1)
        self.decoder = UnetDecoder(
            [*channels[:-1], _PSP_CHANNELS], _UNET_CHANNELS[:steps], n_blocks=steps
        )
        self.answer = SegmentationHead(_UNET_CHANNELS[steps - 1], outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """float (B, outputs, h, w) logits at stride 32 / 2**steps."""
        deep = self.join(self.pool(features[-1]))
        return self.answer(self.decoder([*features[:-1], deep]))


class AuxiliaryHead(nn.Sequential):
    """Class scores from the last map but one, for a loss in training only (1612.01105, 3.3)."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        inner = max(16, channels[-2] // 4)
        super().__init__(
            Conv2dReLU(channels[-2], inner, 3, padding=1),
            nn.Dropout2d(0.1),
            nn.Conv2d(inner, outputs, 1),
        )


class Segmenter(nn.Module):
    """Class scores at every pixel of images of any size.

    Parameters
    ----------
    encoder
        Of :func:`geodl.nets.encoder.build_encoder`.
    head
        From the encoder's maps to logits at any stride.
    outputs
        Channels of the answer.
    auxiliary
        Further logits in training.
    pointrend
        Refine the head's answer at points.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        outputs: int,
        *,
        auxiliary: bool = False,
        pointrend: bool = False,
    ) -> None:
        super().__init__()
        channels = encoder_channels(encoder)
        self.encoder = encoder
        self.head = head
        self.auxiliary = AuxiliaryHead(channels, outputs) if auxiliary else None
        self.points = PointHead(channels[_FINE], outputs) if pointrend else None

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.encoder

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the encoder, then the heads."""
        heads = [m for m in (self.head, self.auxiliary, self.points) if m is not None]
        return [*encoder_halves(self.encoder), heads]

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Logits of float (B, bands, H, W).

        Returns
        -------
        In eval mode float (B, outputs, H, W). In train mode the same, or with auxiliary logits or
        points a dict: ``logits``; ``auxiliary`` (B, outputs, H, W); ``points`` int64 (B, N, 2)
        columns and rows, ``point_logits`` (B, outputs, N).
        """
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, STRIDE)
        whole = (padded.shape[-2], padded.shape[-1])
        features = self.encoder(padded)
        coarse = self.head(features)
        if self.points is not None and not self.training:
            return refine(coarse, [features[_FINE]], self.points, whole)[..., :height, :width]
        logits = _grown(coarse, whole)[..., :height, :width]
        if not self.training or (self.points is None and self.auxiliary is None):
            return logits
        answer = {"logits": logits}
        if self.auxiliary is not None:
            grown = _grown(self.auxiliary(features[-2]), whole)
            answer["auxiliary"] = grown[..., :height, :width]
        if self.points is not None:
            reach = (width / whole[1], height / whole[0])
            points = training_points(coarse, points_for(height * width, TRAIN_PX_PER_POINT), reach)
            answer["point_logits"] = self.points(
                sample_points(features[_FINE], points), sample_points(coarse, points)
            )
            answer["points"] = _pixels(points, whole, (height, width))
        return answer


def pooled_channels(channels: int, sizes: Sequence[int]) -> int:
    """Channels after pyramid pooling: the map's own, and a part of them for each size."""
    return channels + channels // len(sizes) * len(sizes)


def _grown(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[-2:] == torch.Size(size):
        return logits
    # As in the library's heads, so that its weights give its answers.
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def _pixels(points: Tensor, whole: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """int64 (B, N, 2), column and row of the pixel that a point lies in."""
    span = torch.tensor([whole[1], whole[0]], device=points.device)
    most = torch.tensor([size[1], size[0]], device=points.device) - 1
    return torch.minimum((points * span).long(), most)
