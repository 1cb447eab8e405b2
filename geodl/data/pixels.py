"""A class for each pixel: Classified_Tiles."""

from __future__ import annotations

from typing import ClassVar

from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.targets import MaskTargets, TargetKind


class ClassifiedTiles(ChipBuilder):
    """Chips whose labels are rasters of class values."""

    kind: ClassVar[TaskKind] = "pixels"
    keywords = CHIP_KEYWORDS | {"stratify"}

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return MaskTargets(classes)
