"""Networks that learn lines and their orientation together (Batra et al. 2019,
10.1109/CVPR.2019.01063): LinkNet and stacked hourglass, with a branch for each task."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from torch import Tensor, nn
from torch.nn import functional

from geodl.nets.encoder import STRIDE, encoder_channels, encoder_halves
from geodl.nets.unet import pad_to_stride

_LINK_CHANNELS = 32
_HOURGLASS_DEPTH = 3
_STACKS = 2
_BOTTLENECK = 2


class LinkRoads(nn.Module):
    """LinkNet (Chaurasia and Culurciello 2017, 1707.03718): one encoder, a decoder for each task.

    Parameters
    ----------
    encoder
        Of :func:`geodl.nets.encoder.build_encoder`.
    outputs
        Channels of the segmentation.
    bins
        Channels of the orientation, that of no line included.
    """

    def __init__(self, encoder: nn.Module, outputs: int, bins: int) -> None:
        super().__init__()
        channels = encoder_channels(encoder)
        self.encoder = encoder
        self.lines, self.turns = (
            LinknetDecoder(channels, prefinal_channels=_LINK_CHANNELS) for _ in range(2)
        )
        # Each task's answer reads both decoders.
        self.segment = nn.Conv2d(2 * _LINK_CHANNELS, outputs, 3, padding=1)
        self.orient = nn.Conv2d(2 * _LINK_CHANNELS, bins, 3, padding=1)

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.encoder

    def layer_groups(self) -> list[list[nn.Module]]:
        """Early and late half of the encoder, then decoders and heads."""
        heads = [self.lines, self.turns, self.segment, self.orient]
        return [*encoder_halves(self.encoder), heads]

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Logits of float (B, bands, H, W).

        Returns
        -------
        In eval mode float (B, outputs, H, W). In train mode a dict: that as ``logits``, and
        ``orientation`` (B, bins, H, W).
        """
        height, width = x.shape[-2:]
        features = self.encoder(pad_to_stride(x, STRIDE))
        both = torch.cat([self.lines(features), self.turns(features)], dim=1)
        both = both[..., :height, :width]
        logits = self.segment(both)
        return {"logits": logits, "orientation": self.orient(both)} if self.training else logits


class Residual(nn.Module):
    """Bottleneck with normalisation first (He et al. 2016, 1603.05027)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        inner = after // _BOTTLENECK
        self.body = nn.Sequential(
            *_normed(before), nn.Conv2d(before, inner, 1, bias=False),
            *_normed(inner), nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            *_normed(inner), nn.Conv2d(inner, after, 1),
        )  # fmt: skip
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, after, H, W)"""
        return self.skip(x) + self.body(x)


class Hourglass(nn.Module):
    """Down and up again, with a branch that stays at each size (Newell et al. 2016, 1603.06937)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stay = Residual(channels, channels)
        self.down = Residual(channels, channels)
        deeper = Hourglass(channels, depth - 1) if depth > 1 else Residual(channels, channels)
        self.deeper: nn.Module = deeper
        self.up = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, channels, H, W); any H and W."""
        low = self.down(functional.max_pool2d(x, 2, ceil_mode=True))
        low = self.up(self.deeper(low))
        return self.stay(x) + functional.interpolate(low, size=x.shape[-2:], mode="nearest")


class Branch(nn.Module):
    """One task of one stack: its features and its logits, and what the next stack gets of them."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Residual(channels, channels), *_normed(channels))
        self.answer = nn.Conv2d(channels, outputs, 1)
        self.pass_features = nn.Conv2d(channels, channels, 1)
        self.pass_answer = nn.Conv2d(outputs, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features, logits and contribution to the next stack, all at stride 4."""
        features = self.body(x)
        logits = self.answer(features)
        return features, logits, self.pass_features(features) + self.pass_answer(logits)


class HourglassRoads(nn.Module):
    """Stacked hourglasses, each with a branch per task whose answers feed the next stack.

    Parameters
    ----------
    bands
        Of the image.
    outputs, bins
        As for :class:`LinkRoads`.
    channels
        Of all maps from stride 4 on.
    """

    def __init__(self, bands: int, outputs: int, bins: int, channels: int = 128) -> None:
        super().__init__()
        half = channels // 2
        self.fine = nn.Sequential(
            nn.Conv2d(bands, half, 7, padding=3, stride=2, bias=False), *_normed(half)
        )
        self.stem = nn.Sequential(
            Residual(half, channels), nn.MaxPool2d(2), Residual(channels, channels)
        )
        self.glasses = nn.ModuleList(Hourglass(channels, _HOURGLASS_DEPTH) for _ in range(_STACKS))
        self.lines = nn.ModuleList(Branch(channels, outputs) for _ in range(_STACKS))
        self.turns = nn.ModuleList(Branch(channels, bins) for _ in range(_STACKS))
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(2 * channels, half, 4, stride=2, padding=1), *_normed(half)
        )
        self.finish = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 4, stride=2, padding=1), *_normed(half)
        )
        self.segment = nn.Conv2d(half, outputs, 3, padding=1)
        self.orient = nn.Conv2d(half, bins, 3, padding=1)

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes."""
        return self.stem

    def layer_groups(self) -> list[list[nn.Module]]:
        """Stem, hourglasses, then branches and heads."""
        heads = [self.lines, self.turns, self.grow, self.finish, self.segment, self.orient]
        return [[self.fine, self.stem], [self.glasses], heads]

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """As :meth:`LinkRoads.forward`; in train mode also the first stack's logits as
        ``auxiliary`` and ``auxiliary_orientation``."""
        height, width = x.shape[-2:]
        fine = self.fine(pad_to_stride(x, STRIDE))
        trunk = self.stem(fine)
        answers = []
        for i, glass in enumerate(self.glasses):
            deep = glass(trunk)
            line, line_logits, line_share = self.lines[i](deep)
            turn, turn_logits, turn_share = self.turns[i](deep)
            answers.append((line_logits, turn_logits))
            trunk = trunk + line_share + turn_share
        grown = torch.cat([self.grow(torch.cat([line, turn], dim=1)), fine], dim=1)
        last = self.finish(grown)[..., :height, :width]
        logits = self.segment(last)
        if not self.training:
            return logits
        return {
            "logits": logits,
            "orientation": self.orient(last),
            "auxiliary": _whole(answers[0][0], height, width),
            "auxiliary_orientation": _whole(answers[0][1], height, width),
        }


def _normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _whole(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits at stride 4 at the image's own pixels."""
    grown = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    return grown[..., :height, :width]
