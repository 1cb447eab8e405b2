"""``Imagenet``: a folder of images per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

from geodl.core.classes import ClassTable
from geodl.formats.base import ChipContent, ChipFolder, ChipFrame, ChipRef, LabelKind
from geodl.formats.chip_format import ChipFormat, LabelSource
from geodl.formats.instances import class_of_folder, fit_for_folders
from geodl.formats.label_types import TileLabels


class Imagenet(ChipFormat):
    """The class of a chip is the name of the folder that its image lies in."""

    name = "Imagenet"
    kind: ClassVar[LabelKind] = "tiles"
    label_folders = ()
    label_source: ClassVar[LabelSource] = "image"
    one_per_feature = True
    nested_images = True
    named_by_label = True

    def label_of(self, content: ChipContent) -> TileLabels:
        return TileLabels.of([] if content.own_value is None else [content.own_value])

    def export_classes(self, classes: ClassTable) -> ClassTable:
        return fit_for_folders(classes, dots=False)

    def image_path(
        self,
        file_name: str,
        label: TileLabels | None = None,
        classes: ClassTable | None = None,
    ) -> PurePosixPath:
        names = {} if classes is None else {e.value: e.name for e in classes}
        values = [] if label is None else label.values.tolist()
        return PurePosixPath("images", *(names[value] for value in values), file_name)

    def label_paths(
        self, stem: str, label: TileLabels | None = None, classes: ClassTable | None = None
    ) -> tuple[PurePosixPath, ...]:
        return ()

    def write_label(self, frame: ChipFrame, label: TileLabels, classes: ClassTable) -> None:
        """The image's place says it."""

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> TileLabels:
        """The class of the image's folder.

        Raises
        ------
        FormatError
            The folder is named like no class; names it.
        """
        return TileLabels.of([class_of_folder(ref.image.parent, folder.classes)])

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The names of the folders, numbered from 1 in their order."""
        names = sorted({ref.image.parent.name for ref in chips})
        return ClassTable.from_mapping(dict(enumerate(names, start=1)))
