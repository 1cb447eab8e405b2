"""Classes of whole chips: Labeled_Tiles, Imagenet and MultiLabeled_Tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import ChipCut, TaskKind
from geodl.core.grid import Window
from geodl.data.builder import ChipBuilder
from geodl.data.chips import ChipData
from geodl.data.dataset import ChipDataset
from geodl.data.folders import label_counts
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.request import DataRequest
from geodl.data.targets import TargetKind
from geodl.formats.base import BUFFER_KEY, ChipFolder


class LabeledTiles(ChipBuilder):
    """Chips with one class each.

    An item's ``target`` is an int64 scalar, the place of the class in ``data.classes`` (0..K-1).
    Chips are resized to the items' size rather than cut: their class is that of all of them.
    """

    kind: ClassVar[TaskKind] = "tiles"
    keywords = CHIP_KEYWORDS | {"stratify"}
    resizable = True
    stratified = True
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

    stratified = False
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


def chip_cut(data: ChipData) -> ChipCut:
    """How the chips of a data object were cut around features, by the first export's word."""
    folder = data.train_ds.store.chips[0].folder
    width, height = folder.tile_size
    radius = folder.emd.get(BUFFER_KEY)
    return ChipCut(
        size_yx=(height, width),
        fixed=folder.fixed_size,
        blacken=folder.emd.get("BlackenAroundFeature") is True,
        buffer_radius=float(radius) if isinstance(radius, int | float) and radius > 0 else None,
    )


def oversampled(data: ChipData) -> ChipData:
    """The same data with training chips of rare classes repeated; the caller's own is unchanged.

    Every class that has training chips then has as many as the most frequent one; its chips take
    turns. Chips have one class each.

    Raises
    ------
    FormatError
        A label that cannot be read; names its file.
    """
    chips = data.train_ds
    places: dict[int, list[int]] = {}
    for index, position in enumerate(chips.positions):
        (value,) = label_counts(chips.store.chips[position])
        places.setdefault(value, []).append(index)
    most = max(len(own) for own in places.values())
    order = [own[turn % len(own)] for own in places.values() for turn in range(most)]
    train = ChipDataset(
        chips.store,
        [chips.positions[i] for i in order],
        [chips.names[i] for i in order],
        targets=chips.targets,
        side_px=chips.side_px,
        bands=chips.bands,
        normalization=chips.normalization,
        augmentation=chips.augmentation,
    )
    return replace(data, train_ds=train)
