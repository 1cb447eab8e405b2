"""``PASCAL_VOC_rectangles``: one XML file per chip with boxes in pixels of the chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import BoxLabels, ChipFolder, ChipFrame, ChipRef
from geodl.formats.boxes import (
    BoxFormat,
    class_value,
    classes_of_names,
    inside_chip,
    no_boxes,
    whole_number,
)
from geodl.formats.images import chip_size, place
from geodl.formats.voc_xml import annotation, box_of, read_xml, text_of


class PascalVoc(BoxFormat):
    """Boxes with two decimals; ``name`` holds the class value, as ArcGIS writes it."""

    name = "PASCAL_VOC_rectangles"
    label_suffixes = (".xml",)

    def write_label(self, frame: ChipFrame, label: BoxLabels, classes: ClassTable) -> None:
        path = frame.folder / self.label_paths(frame.stem)[0]
        place(path, annotation(frame, label.values.tolist(), label.boxes).encode())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> BoxLabels:
        """Read the boxes of a chip. Elements that geodl does not know are passed over.

        Raises
        ------
        FormatError
            XML that is broken or declares a DTD, a missing field, an unknown class, a box that is
            reversed, empty or leaves the chip; names the file.
        """
        if not ref.labels:
            return no_boxes()
        path = ref.labels[0]
        root = read_xml(path)
        boxes, values = [], []
        for position, node in enumerate(root.iter("object"), start=1):
            where = f"{path}, object {position}"
            values.append(class_value(text_of(node, "name", where), folder.classes, where))
            boxes.append(box_of(node, where))
        if folder.fixed_size:
            _check_size(root, folder, path)
        if not boxes:
            return no_boxes()
        label = BoxLabels(np.array(boxes, np.float64), np.array(values, np.int64))
        return inside_chip(label, chip_size(ref, folder), path)

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The texts of all ``name`` elements."""
        names: set[str] = set()
        for ref in chips:
            for label in ref.labels:
                root = read_xml(label)
                names |= {text_of(node, "name", str(label)) for node in root.iter("object")}
        return classes_of_names(names, path)


def _check_size(root: Element, folder: ChipFolder, path: Path) -> None:
    """Refuse a label that says it belongs to a chip of another size."""
    stated = [
        whole_number((root.findtext(f"size/{side}") or "").strip()) for side in ("width", "height")
    ]
    # Some tools leave zeros here; they say nothing.
    if all(stated) and tuple(stated) != folder.tile_size:
        raise FormatError(
            f"{path} is for a chip of {stated[0]} x {stated[1]} pixels; the chips of the export "
            f"have {folder.tile_size[0]} x {folder.tile_size[1]}."
        )
