"""Change between two images: the distance of their features, small where nothing has changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geodl.core.contract import IGNORE_INDEX
from geodl.tasks.base import Batch
from geodl.tasks.pixel_metrics import confusion
from geodl.tasks.pixels import PixelTask

MARGIN = 2.0
"""Distance that change should have at least (10.3390/rs12101662, 2.4); half of it decides."""
# Makes distances of 0 and of the margin probabilities of 0.02 and 0.98.
_STEEPNESS = 4.0


class ChangeTask(PixelTask):
    """Batch-balanced contrastive loss; accuracy and mean IoU.

    The images of an item lie in one stack of bands, before first. There is one class.
    """

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": contrastive_loss(net(batch["image"])[:, 0], batch["target"])}

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, 2, H, W): no change, change."""
        return self._logits_of(net(x))

    def _logits_of(self, distance: Tensor) -> Tensor:
        change = _STEEPNESS * (distance.float() - MARGIN / 2)
        return torch.cat([torch.zeros_like(change), change], dim=1)

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        distance, target = net(batch["image"]), batch["target"]
        found = self._logits_of(distance).argmax(dim=1)
        return {
            "loss": contrastive_loss(distance[:, 0], target),
            "state": confusion(target, found, self.outputs),
        }


def contrastive_loss(distance: Tensor, target: Tensor) -> Tensor:
    """Half the mean distance of unchanged pixels, and half the mean of what changed ones lack of
    the margin (10.3390/rs12101662, equation 7).

    Parameters
    ----------
    distance
        float (B, H, W), 0 and more.
    target
        int64 (B, H, W) of 0, 1 and ``IGNORE_INDEX``.

    Returns
    -------
    float32 scalar; a kind of pixel that the batch has none of adds nothing.
    """
    distance = distance.float()
    same, changed = target == 0, (target != 0) & (target != IGNORE_INDEX)
    near = (distance * same).sum() / same.sum().clamp(min=1)
    lacking = ((MARGIN - distance).clamp(min=0) * changed).sum() / changed.sum().clamp(min=1)
    return 0.5 * near + 0.5 * lacking
