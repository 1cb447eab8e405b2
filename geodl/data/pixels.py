"""A class for each pixel: Classified_Tiles."""

from __future__ import annotations

from typing import ClassVar

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.request import DataRequest
from geodl.data.targets import MaskTargets, TargetKind
from geodl.formats.base import ChipFolder


class ClassifiedTiles(ChipBuilder):
    """Chips whose labels are rasters of class values."""

    kind: ClassVar[TaskKind] = "pixels"
    keywords = CHIP_KEYWORDS | {"stratify"}

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return MaskTargets(classes)

    def fitted(self, request: DataRequest, first: ChipFolder) -> DataRequest:
        # ``3DRCNet`` is given by the caller, whatever the export is.
        if first.kind != self.kind:
            raise FormatError(
                f"{first.path} is an export of {first.metadata_mode}; {request.dataset_type} reads "
                "Classified_Tiles. Leave dataset_type out, or export class tiles."
            )
        return request
