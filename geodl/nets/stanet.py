"""STANet: change between two images by distance of features that attend to each other (Chen and
Shi 2020, 10.3390/rs12101662)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.encoder import STRIDE, encoder_channels, encoder_halves
from geodl.nets.unet import pad_to_stride

# Sections 2.2 and 2.3 of the paper.
_REDUCED = 96
_FEATURES = 64
_KEY_SHARE = 8
PYRAMID = (1, 2, 4, 8)
# Stages from stride 4 on.
_FIRST_STAGE = 2


class Attention(nn.Module):
    """Every place of both dates attends to all places of both dates, within regions (BAM).

    Parameters
    ----------
    channels
        Of the features.
    regions
        The map is cut into as many rows and columns of regions; 1 is the whole map.
    """

    def __init__(self, channels: int, regions: int = 1) -> None:
        super().__init__()
        self.regions = regions
        self.query = nn.Conv2d(channels, channels // _KEY_SHARE, 1)
        self.key = nn.Conv2d(channels, channels // _KEY_SHARE, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, pair: Tensor) -> Tensor:
        """float (2 B, C, H, W) of the same, before and after in the two halves; without the
        residual. H and W are whole multiples of the regions."""
        count, channels, height, width = pair.shape
        parts = [self._cut(conv(pair)) for conv in (self.query, self.key, self.value)]
        # Zeros change no product of query and key; with one width for all, attention needs
        # memory for the places and not for their pairs.
        query, key = (functional.pad(p, (0, channels - p.shape[-1])) for p in parts[:2])
        scale = (channels // _KEY_SHARE) ** -0.5
        found = functional.scaled_dot_product_attention(query, key, parts[2], scale=scale)
        return self._join(found, count, height, width)

    def _cut(self, maps: Tensor) -> Tensor:
        """(B * regions^2, 1, 2 * places, C)"""
        count, channels, height, width = maps.shape
        r, batch = self.regions, count // 2
        cut = maps.reshape(2, batch, channels, r, height // r, r, width // r)
        return cut.permute(1, 3, 5, 0, 4, 6, 2).reshape(batch * r * r, 1, -1, channels)

    def _join(self, cut: Tensor, count: int, height: int, width: int) -> Tensor:
        r, channels = self.regions, cut.shape[-1]
        maps = cut.reshape(count // 2, r, r, 2, height // r, width // r, channels)
        return maps.permute(3, 0, 6, 1, 4, 2, 5).reshape(count, channels, height, width)


class BasicAttention(nn.Module):
    """BAM: attention over the whole map, added to the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = Attention(channels)

    def forward(self, pair: Tensor) -> Tensor:
        """float (2 B, C, H, W)"""
        return pair + self.attention(pair)


class PyramidAttention(nn.Module):
    """PAM: attention within regions of several sizes, joined and added to the features."""

    def __init__(self, channels: int, pyramid: Sequence[int] = PYRAMID) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Attention(channels, regions) for regions in pyramid)
        self.join = nn.Conv2d(len(pyramid) * channels, channels, 1, bias=False)

    def forward(self, pair: Tensor) -> Tensor:
        """float (2 B, C, H, W); H and W are whole multiples of the finest regions."""
        return pair + self.join(torch.cat([scale(pair) for scale in self.scales], dim=1))


class PairDropout(nn.Dropout):
    """Dropout that leaves out the same features of both dates.

    With a mask for each date, ground that has not changed would differ in training; networks then
    learn distances that fall below the threshold as soon as nothing is left out.
    """

    def forward(self, pair: Tensor) -> Tensor:
        """float (2 B, C, H, W), before and after in the two halves."""
        if not self.training:
            return pair
        kept = functional.dropout(torch.ones_like(pair[: len(pair) // 2]), self.p)
        return pair * torch.cat([kept, kept])


class STANet(nn.Module):
    """Distance of two images at every pixel.

    Parameters
    ----------
    encoder
        Of :func:`geodl.nets.encoder.build_encoder`, for one image's bands.
    pyramid
        Attention over regions of several sizes; else over the whole map.
    """

    def __init__(self, encoder: nn.Module, pyramid: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        stages = encoder_channels(encoder)[_FIRST_STAGE:]
        self.reduce = nn.ModuleList(Conv2dReLU(c, _REDUCED, 1) for c in stages)
        self.join = nn.Sequential(
            Conv2dReLU(_REDUCED * len(stages), 4 * _FEATURES, 3, padding=1),
            PairDropout(0.5),
            nn.Conv2d(4 * _FEATURES, _FEATURES, 1, bias=False),
        )
        self.attend: nn.Module = (
            PyramidAttention(_FEATURES) if pyramid else BasicAttention(_FEATURES)
        )

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.encoder

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the encoder, then the rest."""
        return [*encoder_halves(self.encoder), [self.reduce, self.join, self.attend]]

    def features(self, x: Tensor) -> Tensor:
        """float (B, 64, H / 4, W / 4) of one image each, H and W multiples of 32."""
        maps = self.encoder(x)[_FIRST_STAGE:]
        size = maps[0].shape[-2:]
        grown = [
            functional.interpolate(reduce(m), size=size, mode="bilinear", align_corners=False)
            for reduce, m in zip(self.reduce, maps, strict=True)
        ]
        return self.join(torch.cat(grown, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """float (B, 1, H, W), 0 and more, of float (B, 2 * bands, H, W): before, then after."""
        height, width = x.shape[-2:]
        padded = pad_to_stride(x, STRIDE)
        both = torch.cat(padded.chunk(2, dim=1))
        pair = self.attend(self.features(both))
        grown = functional.interpolate(
            pair, size=padded.shape[-2:], mode="bilinear", align_corners=True
        )
        before, after = grown[..., :height, :width].float().chunk(2)
        return (before - after).square().sum(dim=1, keepdim=True).add(_TINY).sqrt()


# The root of 0 has no gradient.
_TINY = 1e-8
