"""PointRend: sharp borders from predictions at few, uncertain points (Kirillov et al. 2020,
1912.08193).

Points are (x, y) in shares of the map's width and height, thus the same for maps of all strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

# 3.1: candidates per training point, and the share of points taken from the most uncertain ones.
OVERSAMPLE = 3
UNCERTAIN_SHARE = 0.75
# 4.2: 2048 points on crops of 512 x 1024 in training. Refinement takes more than the paper's share,
# since tiles of maps hold more border than street scenes.
TRAIN_PX_PER_POINT = 256
REFINE_PX_PER_POINT = 64
_LEAST_POINTS = 16


class PointHead(nn.Module):
    """A small network over single points; its layers see the coarse prediction again each time.

    Parameters
    ----------
    fine
        Channels of the fine features.
    outputs
        Channels of the coarse prediction and of the answer.
    hidden, layers
        3.3 of the paper: 3 layers of 256 channels.
    """

    def __init__(self, fine: int, outputs: int, hidden: int = 256, layers: int = 3) -> None:
        super().__init__()
        widths = [fine, *[hidden] * layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(before + outputs, after, 1) for before, after in pairwise(widths)
        )
        self.answer = nn.Conv1d(hidden + outputs, outputs, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """float (B, outputs, N) logits of (B, fine, N) features and (B, outputs, N) logits."""
        x = fine
        for layer in self.layers:
            x = functional.relu(layer(torch.cat([x, coarse], dim=1)))
        return self.answer(torch.cat([x, coarse], dim=1))


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of float (B, C, H, W) at float (B, N, 2): float (B, C, N)."""
    grid = (2 * points - 1).unsqueeze(2)
    values = functional.grid_sample(
        maps, grid.to(maps.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values.squeeze(3)


def uncertainty(logits: Tensor) -> Tensor:
    """(B, ...) of (B, K, ...): larger where the two best classes lie closer; 0 at most.

    With K = 1, of the logit of one class against the rest.
    """
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def training_points(coarse: Tensor, count: int, reach: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Points to learn from: most where the coarse prediction is uncertain, the rest anywhere.

    Parameters
    ----------
    coarse
        float (B, K, h, w) logits.
    count
        N.
    reach
        Shares of the width and height that points may lie in, from the left and the top.

    Returns
    -------
    float32 (B, N, 2)
    """
    batch, device = len(coarse), coarse.device
    span = torch.tensor(reach, device=device)
    candidates = torch.rand(batch, OVERSAMPLE * count, 2, device=device) * span
    with torch.no_grad():
        doubt = uncertainty(sample_points(coarse.detach().float(), candidates))
    chosen = int(UNCERTAIN_SHARE * count)
    places = doubt.topk(chosen, dim=1).indices.unsqueeze(2).expand(-1, -1, 2)
    others = torch.rand(batch, count - chosen, 2, device=device) * span
    return torch.cat([candidates.gather(1, places), others], dim=1)


def points_for(area_px: int, px_per_point: int) -> int:
    """How many points a map of that many pixels gets."""
    return min(area_px, max(_LEAST_POINTS, area_px // px_per_point))


def refine(
    coarse: Tensor, fine: Sequence[Tensor], head: nn.Module, size: tuple[int, int]
) -> Tensor:
    """Grow a prediction to ``size``, predicting anew at the most uncertain points of every step.

    Parameters
    ----------
    coarse
        float (B, K, h, w) logits.
    fine
        Maps that the head's features come from, joined along the channels.
    head
        A :class:`PointHead`.
    size
        Height and width, no less than the coarse prediction's.

    Returns
    -------
    float (B, K, H, W) logits
    """
    grown = coarse
    while grown.shape[-2:] != torch.Size(size):
        height, width = (min(2 * now, end) for now, end in zip(grown.shape[-2:], size, strict=True))
        grown = functional.interpolate(
            grown, size=(height, width), mode="bilinear", align_corners=False
        )
        count = points_for(height * width, REFINE_PX_PER_POINT)
        places = uncertainty(grown).flatten(1).topk(count, dim=1).indices
        points = torch.stack(
            [(places % width + 0.5) / width, (places // width + 0.5) / height], dim=2
        )
        features = torch.cat([sample_points(maps, points) for maps in fine], dim=1)
        found = head(features, sample_points(coarse, points)).to(grown.dtype)
        where = places.unsqueeze(1).expand(-1, grown.shape[1], -1)
        grown = grown.flatten(2).scatter(2, where, found).view_as(grown)
    return grown
