"""``PASCAL_VOC_rectangles``: one XML file per chip with boxes in pixels of the chip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import (
    BoxLabels,
    ChipContent,
    ChipFolder,
    ChipFormat,
    ChipFrame,
    ChipRef,
    LabelKind,
)
from geodl.formats.images import open_image, place
from geodl.ops.labels import boxes_of, boxes_of_regions

# Boxes are written with two decimals.
_TOLERANCE_PX = 0.01
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class PascalVoc(ChipFormat):
    """Boxes as the bounds of each label's part in the chip; ``name`` holds the class value.

    From a class raster, every connected region of one class (8 neighbours) is an object.
    """

    name = "PASCAL_VOC_rectangles"
    kind: ClassVar[LabelKind] = "objects"
    label_suffixes = (".xml",)

    def label_of(self, content: ChipContent) -> BoxLabels:
        if content.class_mask is not None:
            return BoxLabels(*boxes_of_regions(content.class_mask))
        parts, values = content.parts
        boxes, kept = boxes_of(parts)
        return BoxLabels(boxes[kept], values[kept])

    def is_labelled(self, label: BoxLabels) -> bool:
        return len(label) > 0

    def write_label(self, frame: ChipFrame, label: BoxLabels, classes: ClassTable) -> None:
        path = frame.folder / self.label_paths(frame.stem)[0]
        place(path, _annotation(frame, label).encode())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> BoxLabels:
        """Read the boxes of a chip. Elements that geodl does not know are passed over.

        Raises
        ------
        FormatError
            XML that is broken or declares a DTD, a missing field, an unknown class, a box that is
            reversed, empty or leaves the chip; names the file.
        """
        if not ref.labels:
            return BoxLabels(np.zeros((0, 4)), np.zeros(0, np.int64))
        path = ref.labels[0]
        root = _read_xml(path)
        boxes, values = [], []
        for position, node in enumerate(root.iter("object"), start=1):
            where = f"{path}, object {position}"
            values.append(_value(_text(node, "name", where), folder.classes, where))
            boxes.append(_box(node, where))
        label = BoxLabels(np.array(boxes, np.float64).reshape(-1, 4), np.array(values, np.int64))
        if boxes:
            _check_inside(label, _size(root, ref, folder), path)
        return label

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The texts of all ``name`` elements: values where all are whole numbers, else names."""
        names: set[str] = set()
        for ref in chips:
            for label in ref.labels:
                root = _read_xml(label)
                names |= {_text(node, "name", str(label)) for node in root.iter("object")}
        if not names:
            raise FormatError(f"The labels of {path} hold no object; there is nothing to learn.")
        if all(_whole(name) is not None for name in names):
            return ClassTable.from_mapping({int(name): name for name in sorted(names, key=int)})
        return ClassTable.from_mapping(dict(enumerate(sorted(names), start=1)))


def _annotation(frame: ChipFrame, label: BoxLabels) -> str:
    parts = [
        '<?xml version="1.0"?>\n<annotation>\n'
        f"    <filename>{escape(frame.image)}</filename>\n"
        f"    <source>\n        <annotation>geodl {version('geodl')}</annotation>\n    </source>\n"
        f"    <size>\n        <width>{frame.grid.width}</width>\n"
        f"        <height>{frame.grid.height}</height>\n"
        f"        <depth>{frame.bands}</depth>\n    </size>\n"
    ]
    for box, value in zip(label.boxes, label.values, strict=True):
        sides = "".join(
            f"            <{side}>{edge + 0.0:.2f}</{side}>\n"
            for side, edge in zip(_SIDES, box, strict=True)
        )
        parts.append(
            f"    <object>\n        <name>{value}</name>\n        <bndbox>\n{sides}"
            "        </bndbox>\n    </object>\n"
        )
    return "".join(parts) + "</annotation>\n"


def _read_xml(path: Path) -> Element:
    try:
        root: Element = parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise FormatError(
            f"{path} declares a DTD or an entity ({error}); labels are plain XML. Remove it."
        ) from error
    except (ParseError, UnicodeError, LookupError, ValueError) as error:
        raise FormatError(
            f"{path} is not well-formed XML ({error}); export the chip again, or remove it."
        ) from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}).") from error
    if root.tag != "annotation":
        raise FormatError(f"{path} has the root <{root.tag}>; a VOC label has <annotation>.")
    return root


def _text(node: Element, tag: str, where: str) -> str:
    text = (node.findtext(tag) or "").strip()
    if not text:
        raise FormatError(f"{where} has no <{tag}>; every object needs a name and a bndbox.")
    return text


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _value(name: str, classes: ClassTable, where: str) -> int:
    """The class value that a ``name`` states: the value itself, or the class's name."""
    value = _whole(name)
    if value is not None and value in classes.values:
        return value
    for entry in classes:
        if entry.name.strip() == name:
            return entry.value
    known = ", ".join(f"{entry.value} ({entry.name})" for entry in classes)
    raise FormatError(f"{where} has the class {name!r}; the export's classes are {known}.")


def _box(node: Element, where: str) -> list[float]:
    frame = node.find("bndbox")
    if frame is None:
        raise FormatError(f"{where} has no <bndbox>; every object needs a name and a bndbox.")
    return [_edge(_text(frame, side, f"{where}, <bndbox>"), side, where) for side in _SIDES]


def _edge(text: str, side: str, where: str) -> float:
    try:
        edge = float(text)
    except ValueError:
        edge = math.nan
    if not math.isfinite(edge):
        raise FormatError(f"{where}: <{side}> is {text!r}; expected a number of pixels.")
    return edge


def _size(root: Element, ref: ChipRef, folder: ChipFolder) -> tuple[int, int]:
    """Width and height of the chip: the export's, or in a plain folder the image's own."""
    if folder.fixed_size:
        stated = [
            _whole((root.findtext(f"size/{side}") or "").strip()) for side in ("width", "height")
        ]
        if None not in stated and tuple(stated) != folder.tile_size and min(map(_int, stated)) > 0:
            raise FormatError(
                f"{ref.labels[0]} is for a chip of {stated[0]} x {stated[1]} pixels; the chips of "
                f"the export have {folder.tile_size[0]} x {folder.tile_size[1]}."
            )
        return folder.tile_size
    with open_image(ref.image) as dataset:
        return dataset.width, dataset.height


def _int(value: Any) -> int:
    return int(value)


def _check_inside(label: BoxLabels, size: tuple[int, int], path: Path) -> None:
    """Refuse boxes that are reversed, empty or outside; clip what rounding has left over."""
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
    np.clip(low, 0, limits, out=low)
    np.clip(high, 0, limits, out=high)
