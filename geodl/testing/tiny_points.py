"""A model of points whose answers are known beforehand and cost almost nothing.

``TinyPoints`` tells points above the mean height of their block from those below: its scores depend
on the whole block, so that a block that is cut short gives others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.models import MODELS
from geodl.bundle.schema import definition
from geodl.bundle.weights import write_weights
from geodl.bundle.write import package_files, write_package
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization
from geodl.core.points import PointFeature, PointInput
from geodl.tasks.base import Batch, Meter, Task


class _Heights(Task):
    """Scores from heights; nothing to train."""

    kind = "points"
    metric_names = ()

    def prepare(self, blocks: Sequence[np.ndarray | Tensor], **_: Any) -> Batch:
        tables = [torch.as_tensor(block, dtype=torch.float32) for block in blocks]
        return {
            "points": nn.utils.rnn.pad_sequence(tables, batch_first=True),
            "length": torch.tensor([len(table) for table in tables]),
        }

    def scores(self, net: nn.Module, batch: Batch) -> Tensor:
        points, length = batch["points"], batch["length"]
        mean = points[..., 2].sum(1) / length
        height = points[..., 2] - mean[:, None]
        found: Tensor = net(height[..., None])
        return found

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.scores(net, batch).sum() * 0}

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        return {"loss": torch.zeros(()), "state": None}

    def new_meter(self) -> Meter:
        raise TypeError("TinyPoints are not trained")

    def predict(self, net: nn.Module, x: Any, **options: Any) -> list[np.ndarray]:
        return [row.numpy() for row in self.scores(net, x).argmax(2)]

    def draw(self, *_: Any) -> None:
        raise TypeError("TinyPoints are not drawn")


class TinyPoints:
    """Classes by height over the mean of the block: the first below, the last above."""

    @classmethod
    def build(cls, *, classes: ClassTable, **_: Any) -> tuple[nn.Module, Task, bool]:
        net = nn.Linear(1, len(classes))
        with torch.no_grad():
            net.weight[:] = torch.linspace(-8, 8, len(classes))[:, None]
            net.bias.zero_()
        return net, _Heights(classes), False


def register_tiny_points() -> None:
    """Make ``TinyPoints`` loadable from packages in this process."""
    MODELS.register(TinyPoints.__name__, f"{__name__}:{TinyPoints.__name__}")


def tiny_points(
    folder: Path,
    *,
    classes: Mapping[int, str] | None = None,
    block_size: float = 20.0,
    max_points: int = 512,
    features: Sequence[PointFeature] = (),
) -> Path:
    """Write the package of ``TinyPoints`` into the folder ``folder``; returns it.

    Parameters
    ----------
    classes
        Code to name; by default ``{2: "Ground", 6: "Building"}``.
    """
    register_tiny_points()
    table = ClassTable.from_mapping(classes or {2: "Ground", 6: "Building"})
    contract = ModelContract(
        model_name=TinyPoints.__name__,
        kind="points",
        classes=table,
        extract_bands=(),
        band_names=(),
        source_bands=0,
        tile_px=1,
        normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
        dtype="float32",
        points=PointInput(
            block_size=block_size,
            max_points=max_points,
            scale=block_size / 2,
            features=tuple(features),
            codes=tuple(table.values),
        ),
    )
    net, _, _ = TinyPoints.build(classes=table)
    files = package_files(
        folder.name, definition(contract, {}), write_weights(net), contract=contract
    )
    write_package(folder, files)
    return folder
