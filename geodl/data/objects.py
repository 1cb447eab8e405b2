"""Boxes of objects: PASCAL_VOC_, KITTI_, COCO_ and YOLO_rectangles."""

from __future__ import annotations

from typing import ClassVar

from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.targets import BoxTargets, TargetKind


class PascalVocRectangles(ChipBuilder):
    """Chips whose labels hold the bounds and classes of objects.

    An item's ``target`` is ``{"boxes": float32 (N, 4) x0, y0, x1, y1 in pixels of the item,
    "labels": int64 (N,) 1..K}``.
    """

    kind: ClassVar[TaskKind] = "objects"
    keywords = CHIP_KEYWORDS | {"stratify"}
    resizable = True

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return BoxTargets(classes)
