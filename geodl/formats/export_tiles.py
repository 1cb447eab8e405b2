"""``Export_Tiles`` and ``CycleGAN``: images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from geodl.core.classes import ClassTable
from geodl.formats.base import ChipContent, ChipFolder, ChipFrame, ChipRef, LabelKind
from geodl.formats.chip_format import ChipFormat, LabelSource
from geodl.formats.label_types import NoLabel


class ExportTiles(ChipFormat):
    """Images, and with a second raster chips of the same ground in ``images2``."""

    name = "Export_Tiles"
    kind: ClassVar[LabelKind] = "images"
    label_folders = ()
    label_source: ClassVar[LabelSource] = "none"
    needs_labels = False
    second_raster = True

    def label_of(self, content: ChipContent) -> NoLabel:
        if content.class_mask is not None:
            return NoLabel(bool(content.class_mask.any()))
        return NoLabel(len(content.parts[0]) > 0)

    def is_labelled(self, label: NoLabel) -> bool:
        return label.covered

    def label_paths(
        self, stem: str, label: NoLabel | None = None, classes: ClassTable | None = None
    ) -> tuple[PurePosixPath, ...]:
        return ()

    def write_label(self, frame: ChipFrame, label: NoLabel, classes: ClassTable) -> None:
        """There is none."""

    def export_classes(self, classes: ClassTable) -> ClassTable:
        return ClassTable(())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> NoLabel:
        return NoLabel()

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        return ClassTable(())


class CycleGan(ExportTiles):
    """One side of a pair of image domains; ``A`` and ``B`` are an export each."""

    name = "CycleGAN"
    second_raster = False
