"""``Panoptic_Segmentation``: a class for every pixel, and numbers for the objects among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from geodl.base.errors import DataError, FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import (
    ESRI_EMD,
    ChipContent,
    ChipFolder,
    ChipFrame,
    ChipRef,
    LabelKind,
)
from geodl.formats.chip_format import ChipFormat
from geodl.formats.classified_tiles import classes_in, read_classes, write_classes
from geodl.formats.images import chip_size
from geodl.formats.instances import fit_for_folders, instances_of
from geodl.formats.label_types import PanopticLabels, no_instances
from geodl.formats.listing import FileTree, labels_by_class, labels_by_stem
from geodl.formats.rcnn_masks import class_paths, read_by_class, write_by_class

INSTANCE_KEY = "Panoptic_Segmentation_Instance_Classes"


class Panoptic(ChipFormat):
    """Class tiles in ``labels``, and instances by class below ``labels2``."""

    name = "Panoptic_Segmentation"
    kind: ClassVar[LabelKind] = "panoptic"
    label_suffixes = (".tif", ".tiff", ".png", ".mrf")
    label_folders = ("labels", "labels2")
    named_by_label = True

    def label_of(self, content: ChipContent) -> PanopticLabels:
        size = content.window.height, content.window.width
        instances = no_instances(size)
        if content.instances is not None:
            instances = instances_of(content.instances)
        return PanopticLabels(content.mask(), instances)

    def is_labelled(self, label: PanopticLabels) -> bool:
        return bool(label.values.any()) or len(label.instances) > 0

    def export_classes(self, classes: ClassTable) -> ClassTable:
        return fit_for_folders(classes)

    def label_paths(
        self,
        stem: str,
        label: PanopticLabels | None = None,
        classes: ClassTable | None = None,
    ) -> tuple[PurePosixPath, ...]:
        file_name = f"{stem}{self.label_suffixes[0]}"
        instances = None if label is None else label.instances
        return (
            PurePosixPath("labels") / file_name,
            *class_paths("labels2", file_name, instances, classes),
        )

    def write_label(self, frame: ChipFrame, label: PanopticLabels, classes: ClassTable) -> None:
        suffix = self.label_suffixes[0]
        path = frame.folder / "labels" / f"{frame.stem}{suffix}"
        write_classes(path, label.values, classes, frame.grid)
        write_by_class(frame, "labels2", label.instances, classes, suffix)

    def list_labels(self, tree: FileTree) -> dict[str, tuple[Path, ...]]:
        found = labels_by_stem(tree, ["labels"], self.label_suffixes)
        instances = labels_by_class(tree, ["labels2"], self.label_suffixes)
        return {stem: files + instances.get(stem, ()) for stem, files in found.items()}

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> PanopticLabels:
        """Read the classes and instances of a chip.

        Raises
        ------
        FormatError
            As for ``Classified_Tiles`` and ``RCNN_Masks``; names the file.
        """
        if not ref.labels:
            width, height = chip_size(ref, folder)
            size = height, width
            return PanopticLabels(np.zeros(size, np.int64), no_instances(size))
        values = read_classes(ref.labels[0], ref, folder)
        things = instance_classes(folder)
        return PanopticLabels(values, read_by_class(ref.labels[1:], ref, folder, things))

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The values in all class tiles; folders of objects are then named by these."""
        return classes_in((ref.labels[0] for ref in chips if ref.labels), path)


def instance_classes(folder: ChipFolder) -> ClassTable:
    """The classes whose objects are told apart; all of them where the EMD does not say.

    Raises
    ------
    FormatError
        The EMD lists what is no class of the export.
    """
    listed: Any = folder.emd.get(INSTANCE_KEY)
    if not listed:
        return folder.classes
    where = folder.path / ESRI_EMD
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise FormatError(f"{where}: {INSTANCE_KEY} is no list of JSON objects.")
    try:
        found = ClassTable.from_json(listed)
    except DataError as error:
        raise FormatError(f"{where}: {INSTANCE_KEY}: {error}") from error
    strange = sorted(set(found.values) - set(folder.classes.values))
    if strange:
        raise FormatError(
            f"{where}: {INSTANCE_KEY} holds the value {strange[0]}, which is none of the Classes "
            f"({', '.join(map(str, folder.classes.values))})."
        )
    return found
