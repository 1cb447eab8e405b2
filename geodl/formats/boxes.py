"""What formats of boxes share: labels from features, class lookup, checks of what was read."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import numpy as np

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import BoxLabels, ChipContent, LabelKind
from geodl.formats.chip_format import ChipFormat
from geodl.ops.labels import boxes_of, boxes_of_regions

# Boxes are written with two decimals.
_TOLERANCE_PX = 0.01


class BoxFormat(ChipFormat):
    """Boxes as the bounds of each label's part in the chip.

    From a class raster, every connected region of one class (8 neighbours) is an object.
    """

    kind: ClassVar[LabelKind] = "objects"

    def label_of(self, content: ChipContent) -> BoxLabels:
        if content.class_mask is not None:
            return BoxLabels(*boxes_of_regions(content.class_mask))
        parts, values = content.parts
        boxes, kept = boxes_of(parts)
        return BoxLabels(boxes[kept], values[kept])


def no_boxes() -> BoxLabels:
    return BoxLabels(np.zeros((0, 4)), np.zeros(0, np.int64))


def whole_number(text: str) -> int | None:
    """The whole number that a text states, or None."""
    try:
        return int(text)
    except ValueError:
        return None


def class_value(name: str, classes: ClassTable, where: str) -> int:
    """The class value that a label's text states: the value itself, or the class's name.

    Raises
    ------
    FormatError
        Neither; names ``where`` and the classes.
    """
    value = whole_number(name)
    if value is not None and value in classes.values:
        return value
    for entry in classes:
        if entry.name.strip() == name:
            return entry.value
    known = ", ".join(f"{entry.value} ({entry.name})" for entry in classes)
    remedy = (
        "Value 0 is the background: export that class with another one."
        if value == 0
        else ("Correct the label, or add the class to the export's metadata.")
    )
    raise FormatError(f"{where} has the class {name!r}; the export's classes are {known}. {remedy}")


def edge(text: str, side: str, where: str) -> float:
    """One edge of a box in pixels. Raises FormatError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"{where}: {side} is {text!r}; expected a number of pixels.")
    return number


def classes_of_names(names: Collection[str], path: Path) -> ClassTable:
    """Classes from the texts in labels: values where all are whole numbers, else names.

    Raises
    ------
    FormatError
        There is none.
    """
    if not names:
        raise FormatError(f"The labels of {path} hold no object; there is nothing to learn.")
    if all(whole_number(name) is not None for name in names):
        return ClassTable.from_mapping({int(name): name for name in sorted(names, key=int)})
    return ClassTable.from_mapping(dict(enumerate(sorted(names), start=1)))


def inside_chip(label: BoxLabels, size: tuple[int, int], path: Path) -> BoxLabels:
    """The boxes clipped by what rounding has left over.

    Raises
    ------
    FormatError
        A box that is reversed, empty, or leaves the chip; names file, object and box.
    """
    low, high = label.boxes[:, :2], label.boxes[:, 2:]
    limits = np.array(size, np.float64)
    bad = (high <= low) | (low < -_TOLERANCE_PX) | (high > limits + _TOLERANCE_PX)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        x0, y0, x1, y1 = label.boxes[rows[0]].tolist()
        raise FormatError(
            f"{path}, object {rows[0] + 1}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) must lie "
            f"inside the chip of {size[0]} x {size[1]} pixels, with xmin < xmax and ymin < ymax."
        )
    clipped = np.concatenate([np.clip(low, 0, limits), np.clip(high, 0, limits)], axis=1)
    return BoxLabels(clipped, label.values)
