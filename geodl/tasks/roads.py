"""Roads and other lines: a class for every pixel, learned together with orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import OptionError
from geodl.base.options import as_float, as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.ops.line_targets import line_targets, orientation_bins
from geodl.tasks.base import Batch, Item
from geodl.tasks.pixel_metrics import confusion
from geodl.tasks.pixels import AUXILIARY_WEIGHT, PixelTask


class RoadTask(PixelTask):
    """Cross entropy and dice of lines plus cross entropy of their orientation; mean IoU.

    Lines to learn and orientations are made from the mask of each batch; metrics are of the mask
    itself.

    Options
    -------
    gaussian_thresh
        Above 0 and below 1; 0.76 keeps the mask's own width, less is wider.
    orient_bin_size
        Degrees of a bin of orientations.
    orient_theta
        Width in pixels of the band around centre lines where orientation is learned.

    Others as :class:`geodl.tasks.pixels.PixelTask`, with dice as half of the loss, since lines
    are few among all pixels.
    """

    option_defaults: ClassVar[Mapping[str, Any]] = {
        **PixelTask.option_defaults,
        "dice_loss_fraction": 0.5,
        "dice_loss_average": "macro",
        "gaussian_thresh": 0.76,
        "orient_bin_size": 20,
        "orient_theta": 8,
    }

    def __init__(self, classes: ClassTable, **options: Any) -> None:
        super().__init__(classes, **options)
        own = self.options
        thresh = as_float(own["gaussian_thresh"], "gaussian_thresh", minimum=0, maximum=1)
        if thresh in (0, 1):
            raise OptionError(f"gaussian_thresh={thresh:g}: it must lie between 0 and 1.")
        self.gaussian_thresh = thresh
        self.bin_deg = as_int(own["orient_bin_size"], "orient_bin_size", minimum=1)
        self.theta_px = as_int(own["orient_theta"], "orient_theta", minimum=1)
        self.bins = orientation_bins(self.bin_deg) + 1
        """Outputs of orientation; 0 is no line."""

    def collate(self, items: Sequence[Item]) -> Batch:
        """Also ``lines`` and ``orientation``, int64 (B, H, W) as ``target``."""
        batch = super().collate(items)
        pairs = [
            line_targets(
                np.asarray(item["target"]),
                gaussian_thresh=self.gaussian_thresh,
                bin_deg=self.bin_deg,
                theta_px=self.theta_px,
            )
            for item in items
        ]
        lines, turned = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return {**batch, "lines": lines, "orientation": turned}

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        answer = net(batch["image"])
        segmentation = self._loss_of_answer(answer, batch["lines"])
        orientation = _orientation_loss(answer["orientation"], batch["orientation"])
        if "auxiliary_orientation" in answer:
            first = _orientation_loss(answer["auxiliary_orientation"], batch["orientation"])
            orientation = orientation + AUXILIARY_WEIGHT * first
        return {
            "loss": segmentation + orientation,
            "segmentation": segmentation,
            "orientation": orientation,
        }

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        logits = self.logits(net, batch["image"])
        target = self._counted(batch["target"])
        return {
            "loss": self._loss_of(logits, batch["lines"]),
            "state": confusion(target, logits.argmax(dim=1), self.outputs),
        }


def _orientation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy over the counted pixels; 0 where none counts."""
    total = functional.cross_entropy(logits.float(), target, reduction="sum")
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)
