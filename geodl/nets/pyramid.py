"""Feature pyramid: every level sees the whole image and keeps its own resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class FeaturePyramid(nn.Module):
    """Top-down path with lateral connections (Lin et al. 2017, 1612.03144).

    Parameters
    ----------
    channels
        Of the incoming maps, finest first.
    width
        Channels of each map that comes out.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width))
            for c in channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the sizes that came in, ``width`` channels each, finest first."""
        merged = [layer(m) for layer, m in zip(self.lateral, maps, strict=True)]
        for fine, coarse in zip(
            range(len(merged) - 2, -1, -1), range(len(merged) - 1, 0, -1), strict=True
        ):
            size = merged[fine].shape[-2:]
            merged[fine] = merged[fine] + functional.interpolate(merged[coarse], size=size)
        return [layer(m) for layer, m in zip(self.smooth, merged, strict=True)]
