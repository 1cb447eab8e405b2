"""Classes of whole chips: Labeled_Tiles, Imagenet and MultiLabeled_Tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.core.grid import Window
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.request import DataRequest
from geodl.data.targets import TargetKind
from geodl.formats.base import ChipFolder


class LabeledTiles(ChipBuilder):
    """Chips with one class each.

    An item's ``target`` is an int64 scalar, the place of the class in ``data.classes`` (0..K-1).
    Chips are resized to the items' size rather than cut: their class is that of all of them.
    """

    kind: ClassVar[TaskKind] = "tiles"
    keywords = CHIP_KEYWORDS | {"stratify"}
    resizable = True
    several: ClassVar[bool] = False

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return TileTargets(classes, several=self.several)

    def fitted(self, request: DataRequest, first: ChipFolder) -> DataRequest:
        if request.resize_to is not None:
            return request
        whole = request.transforms is False
        shorter = min(first.tile_size)
        side = shorter if whole else request.chip_size
        side = min(side, shorter) if first.fixed_size else side
        if first.fixed_size and first.tile_size == (side, side):
            return request
        return replace(request, resize_to=(side, side))


class MultiLabeledTiles(LabeledTiles):
    """Chips with any number of classes.

    An item's ``target`` is float32 (K,): 1 for each class that the chip has, else 0.
    """

    several: ClassVar[bool] = True


class TileTargets:
    """Classes of a chip; encoded as bool (K,)."""

    def __init__(self, classes: ClassTable, *, several: bool) -> None:
        self.values = tuple(classes.values)
        self.several = several

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> np.ndarray:
        values = label.values.tolist()
        unknown = sorted(set(values) - set(self.values))
        if unknown:
            raise FormatError(
                f"{where} holds the class value {', '.join(map(str, unknown))}; the classes are "
                f"{', '.join(map(str, self.values))}. Correct the label, or add the class."
            )
        if not self.several and len(values) != 1:
            raise FormatError(f"{where} names {len(values)} classes; a chip has exactly one.")
        return np.isin(self.values, values)

    def resized(self, encoded: np.ndarray, scale_yx: tuple[float, float]) -> np.ndarray:
        return encoded

    def cut(
        self, encoded: np.ndarray, window: Window, side_px: int, visible: float
    ) -> dict[str, Any]:
        return {"present": torch.from_numpy(encoded)}

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> Tensor:
        present: Tensor = sample["present"]
        return present.float() if self.several else present.nonzero()[0, 0]
