"""``RCNN_Masks``: a folder per class, and in it a raster of instance numbers per chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from geodl.core.classes import ClassTable
from geodl.formats.base import ChipContent, ChipFolder, ChipFrame, ChipRef, LabelKind
from geodl.formats.chip_format import ChipFormat
from geodl.formats.classified_tiles import check_label_size
from geodl.formats.images import chip_size
from geodl.formats.instances import (
    class_of_folder,
    fit_for_folders,
    instances_of,
    masks_of,
    read_numbers,
    write_instances,
)
from geodl.formats.label_types import InstanceLabels, no_instances
from geodl.formats.listing import FileTree, labels_by_class


class RcnnMasks(ChipFormat):
    """Numbers count from 1 in each band of a file; overlapping objects lie in different bands.

    A chip has a file for each class that it holds.
    """

    name = "RCNN_Masks"
    kind: ClassVar[LabelKind] = "instances"
    label_suffixes = (".tif", ".tiff", ".png", ".mrf")
    named_by_label = True

    def label_of(self, content: ChipContent) -> InstanceLabels:
        return instances_of(content)

    def export_classes(self, classes: ClassTable) -> ClassTable:
        return fit_for_folders(classes)

    def label_paths(
        self,
        stem: str,
        label: InstanceLabels | None = None,
        classes: ClassTable | None = None,
    ) -> tuple[PurePosixPath, ...]:
        return class_paths("labels", f"{stem}{self.label_suffixes[0]}", label, classes)

    def write_label(self, frame: ChipFrame, label: InstanceLabels, classes: ClassTable) -> None:
        write_by_class(frame, "labels", label, classes, self.label_suffixes[0])

    def list_labels(self, tree: FileTree) -> dict[str, tuple[Path, ...]]:
        return labels_by_class(tree, ["labels"], self.label_suffixes)

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> InstanceLabels:
        """Read the instances of a chip, by class folder, band and number.

        Raises
        ------
        FormatError
            A folder that is named like no class, a raster that is not of whole numbers or of
            another size than the image; names it.
        """
        return read_by_class(ref.labels, ref, folder, folder.classes)

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The names of the class folders: their values where all are numbers, else 1..n."""
        names = sorted({label.parent.name for ref in chips for label in ref.labels})
        if names and all(name.isdecimal() and int(name) > 0 for name in names):
            return ClassTable.from_mapping({int(n): n for n in sorted(names, key=int)})
        return ClassTable.from_mapping(dict(enumerate(names, start=1)))


def class_paths(
    root: str, file_name: str, label: InstanceLabels | None, classes: ClassTable | None
) -> tuple[PurePosixPath, ...]:
    """A file below ``root`` for each class that a label holds, in the order of the classes."""
    if label is None or classes is None:
        return ()
    present = set(label.values.tolist())
    return tuple(PurePosixPath(root) / e.name / file_name for e in classes if e.value in present)


def write_by_class(
    frame: ChipFrame, root: str, label: InstanceLabels, classes: ClassTable, suffix: str
) -> None:
    """Write the instances of each class to the files of :func:`class_paths`."""
    for entry in classes:
        chosen = label.values == entry.value
        if chosen.any():
            path = frame.folder / root / entry.name / f"{frame.stem}{suffix}"
            write_instances(path, label.masks[chosen], frame.grid)


def read_by_class(
    paths: Sequence[Path], ref: ChipRef, folder: ChipFolder, classes: ClassTable
) -> InstanceLabels:
    """Instances of all class files of a chip. Raises FormatError, which names the file."""
    masks: list[np.ndarray] = []
    values: list[int] = []
    for path in paths:
        value = class_of_folder(path.parent, classes)
        numbers = read_numbers(path)
        check_label_size(path, numbers.shape[1:], ref, folder)
        found = masks_of(numbers)
        masks += found
        values += [value] * len(found)
    if not masks:
        width, height = chip_size(ref, folder)
        return no_instances((height, width))
    return InstanceLabels(np.stack(masks), np.array(values, np.int64))
