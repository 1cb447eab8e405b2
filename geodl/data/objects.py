"""Boxes of objects: PASCAL_VOC_rectangles."""

from __future__ import annotations

from typing import ClassVar

from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.targets import BoxTargets, TargetKind


class PascalVocRectangles(ChipBuilder):
    """Chips whose XML labels hold the bounds and classes of objects."""

    kind: ClassVar[TaskKind] = "objects"
    keywords = CHIP_KEYWORDS | {"stratify"}
    resizable = True

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return BoxTargets(classes)
