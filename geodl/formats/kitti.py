"""``KITTI_rectangles``: one text file per chip, one row per object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import BoxLabels, ChipFolder, ChipFrame, ChipRef
from geodl.formats.boxes import (
    BoxFormat,
    class_value,
    classes_of_names,
    edge,
    inside_chip,
    no_boxes,
)
from geodl.formats.images import chip_size, place

_FIELDS = 15
_BOX = slice(4, 8)
_SIDES = ("left", "top", "right", "bottom")


class Kitti(BoxFormat):
    """Rows of 15 fields: the class value, three fillers, the box, and seven fillers.

    All fields are numbers without sign, which other readers of these exports need.
    """

    name = "KITTI_rectangles"
    label_suffixes = (".txt",)

    def write_label(self, frame: ChipFrame, label: BoxLabels, classes: ClassTable) -> None:
        rows = [
            f"{value} 0.0 0 0.0 {' '.join(f'{side + 0.0:.2f}' for side in box)}{' 0.0' * 7}\n"
            for box, value in zip(label.boxes, label.values, strict=True)
        ]
        place(frame.folder / self.label_paths(frame.stem)[0], "".join(rows).encode())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> BoxLabels:
        """Read the boxes of a chip; a sixteenth field (a score) is passed over.

        Raises
        ------
        FormatError
            A row with too few fields, an unknown class, an edge that is no number, a box that is
            reversed, empty or leaves the chip; names file and line.
        """
        if not ref.labels:
            return no_boxes()
        path = ref.labels[0]
        rows = _rows(path)
        if not rows:
            return no_boxes()
        boxes, values = [], []
        for number, fields in rows:
            where = f"{path}, line {number}"
            values.append(class_value(fields[0], folder.classes, where))
            boxes.append(
                [edge(t, side, where) for t, side in zip(fields[_BOX], _SIDES, strict=True)]
            )
        label = BoxLabels(np.array(boxes, np.float64), np.array(values, np.int64))
        return inside_chip(label, chip_size(ref, folder), path)

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The texts of all first fields."""
        labels = (label for ref in chips for label in ref.labels)
        return classes_of_names({row[0] for label in labels for _, row in _rows(label)}, path)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and fields of each row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as text ({error}).") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if fields and len(fields) < _FIELDS:
            raise FormatError(
                f"{path}, line {number} has {len(fields)} fields; a KITTI row has {_FIELDS}: "
                "class, three fillers, left, top, right, bottom, and seven fillers."
            )
        if fields:
            rows.append((number, fields))
    return rows
