"""Boxes of whatever looks like a whole, in place of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from geodl.base.options import as_int
from geodl.ops.region_proposals import propose_regions
from geodl.tasks.base import Batch, Item
from geodl.tasks.objects import ObjectTask


class RegionTask(ObjectTask):
    """Object detection of one class, region; the labels of the chips are not looked at.

    Options
    -------
    regions
        Most proposals of an image, largest first.
    """

    option_defaults: ClassVar[Mapping[str, Any]] = {
        **ObjectTask.option_defaults,
        "nms_overlap": 0.7,
        "regions": 30,
    }

    def __init__(self, classes: Any, **options: Any) -> None:
        super().__init__(classes, **options)
        self.regions = as_int(self.options["regions"], "regions", minimum=1)

    def collate(self, items: Sequence[Item]) -> Batch:
        """As every task, with ``boxes`` of proposals and ``labels`` 1."""
        return super().collate([{**item, "target": self._target(item)} for item in items])

    def _target(self, item: Item) -> dict[str, torch.Tensor]:
        boxes = torch.from_numpy(propose_regions(item["image"].numpy(), self.regions))
        return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}
