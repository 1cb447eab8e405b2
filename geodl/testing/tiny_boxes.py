"""A detector among points whose answers are known beforehand and cost almost nothing.

``TinyBoxes`` boxes every group of points that stand more than a metre above the median of their
block: square, along the axes, of class 1 where it is at most five metres long, else of class 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from geodl.base.models import MODELS
from geodl.bundle.schema import definition
from geodl.bundle.weights import write_weights
from geodl.bundle.write import package_files, write_package
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization
from geodl.core.oriented import OrientedBoxes
from geodl.core.points import PointInput
from geodl.tasks.base import Batch, Meter, Task

_ABOVE_M, _GAP_M, _LONG_M = 1.0, 1.0, 5.0


class _Groups(Task):
    """Groups of high points; nothing to train."""

    kind = "boxes3d"
    metric_names = ()

    def prepare(self, blocks: Sequence[np.ndarray | Tensor], **_: Any) -> Batch:
        return {"blocks": [torch.as_tensor(block, dtype=torch.float32) for block in blocks]}

    def detect(
        self, net: nn.Module, batch: Batch, *, threshold: float, nms_overlap: float
    ) -> list[OrientedBoxes]:
        return [self._one(net(block).numpy()[:, :3], threshold) for block in batch["blocks"]]

    def _one(self, xyz: np.ndarray, threshold: float) -> OrientedBoxes:
        high = xyz[xyz[:, 2] > np.median(xyz[:, 2]) + _ABOVE_M].astype(np.float64)
        if not len(high):
            return OrientedBoxes.none()
        cells = np.floor((high[:, :2] - high[:, :2].min(axis=0)) / _GAP_M).astype(int)
        taken = np.zeros(cells.max(axis=0) + 1, bool)
        taken[tuple(cells.T)] = True
        groups, count = ndimage.label(taken, np.ones((3, 3)))
        own = groups[tuple(cells.T)]
        boxes = []
        for number in range(1, count + 1):
            low, top = high[own == number].min(axis=0), high[own == number].max(axis=0)
            boxes.append([*(low + top)[:2] / 2, low[2], *(top - low), 0.0])
        table = np.array(boxes)
        found = OrientedBoxes(
            table,
            np.full(len(table), 0.9, np.float32),
            np.where(table[:, 3] <= _LONG_M, 1, 2).astype(np.int64),
        )
        return found.take(found.scores >= threshold)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.zeros(())}

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        return {"loss": torch.zeros(()), "state": []}

    def new_meter(self) -> Meter:
        raise TypeError("TinyBoxes are not trained")

    def predict(self, net: nn.Module, x: Any, **options: Any) -> list[OrientedBoxes]:
        return self.detect(net, x, threshold=0.0, nms_overlap=1.0)

    def draw(self, *_: Any) -> None:
        raise TypeError("TinyBoxes are not drawn")


class _Same(nn.Module):
    """Gives what it takes; has a weight, as every network has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class TinyBoxes:
    """Boxes around groups of high points."""

    @classmethod
    def build(cls, *, classes: ClassTable, **_: Any) -> tuple[nn.Module, Task, bool]:
        return _Same(), _Groups(classes), False


def register_tiny_boxes() -> None:
    """Make the model known to this process."""
    MODELS.register(TinyBoxes.__name__, f"{__name__}:{TinyBoxes.__name__}")


def tiny_boxes(folder: Path, *, block_size: float = 32.0, max_points: int = 100_000) -> Path:
    """Write the package of ``TinyBoxes`` into the folder ``folder``; returns it."""
    register_tiny_boxes()
    table = ClassTable.from_mapping({1: "Car", 7: "House"})
    contract = ModelContract(
        model_name=TinyBoxes.__name__,
        kind="boxes3d",
        classes=table,
        extract_bands=(),
        band_names=(),
        source_bands=0,
        tile_px=1,
        normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
        dtype="float32",
        points=PointInput(block_size=block_size, max_points=max_points, scale=1.0),
    )
    net, _, _ = TinyBoxes.build(classes=table)
    files = package_files(
        folder.name, definition(contract, {}), write_weights(net), contract=contract
    )
    write_package(folder, files)
    return folder
