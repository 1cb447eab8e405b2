"""``PASCAL_VOC_rectangles``: one XML file per chip with boxes in pixels of the chip."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

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
    whole_number,
)
from geodl.formats.images import chip_size, place

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class PascalVoc(BoxFormat):
    """Boxes with two decimals; ``name`` holds the class value, as ArcGIS writes it."""

    name = "PASCAL_VOC_rectangles"
    label_suffixes = (".xml",)

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
            return no_boxes()
        path = ref.labels[0]
        root = _read_xml(path)
        boxes, values = [], []
        for position, node in enumerate(root.iter("object"), start=1):
            where = f"{path}, object {position}"
            values.append(class_value(_text(node, "name", where), folder.classes, where))
            boxes.append(_box(node, where))
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
                root = _read_xml(label)
                names |= {_text(node, "name", str(label)) for node in root.iter("object")}
        return classes_of_names(names, path)


@functools.cache
def _version() -> str:
    return version("geodl")


def _annotation(frame: ChipFrame, label: BoxLabels) -> str:
    parts = [
        '<?xml version="1.0"?>\n<annotation>\n'
        f"    <filename>{escape(frame.image)}</filename>\n"
        f"    <source>\n        <annotation>geodl {_version()}</annotation>\n    </source>\n"
        f"    <size>\n        <width>{frame.grid.width}</width>\n"
        f"        <height>{frame.grid.height}</height>\n"
        f"        <depth>{frame.bands}</depth>\n    </size>\n"
    ]
    for box, value in zip(label.boxes, label.values, strict=True):
        sides = "".join(
            f"            <{side}>{number + 0.0:.2f}</{side}>\n"
            for side, number in zip(_SIDES, box, strict=True)
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


def _box(node: Element, where: str) -> list[float]:
    frame = node.find("bndbox")
    if frame is None:
        raise FormatError(f"{where} has no <bndbox>; every object needs a name and a bndbox.")
    return [edge(_text(frame, side, f"{where}, <bndbox>"), f"<{side}>", where) for side in _SIDES]


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
