"""The XML of VOC labels: boxes of objects, or classes of whole chips."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from geodl.base.errors import FormatError
from geodl.formats.base import ChipFrame
from geodl.formats.boxes import edge

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@functools.cache
def _version() -> str:
    return version("geodl")


def annotation(frame: ChipFrame, names: Iterable[object], boxes: Iterable[Iterable[float]]) -> str:
    """The XML of a chip: names of its objects, and their boxes in pixels, two decimals."""
    parts = [
        '<?xml version="1.0"?>\n<annotation>\n'
        f"    <filename>{escape(frame.image)}</filename>\n"
        f"    <source>\n        <annotation>geodl {_version()}</annotation>\n    </source>\n"
        f"    <size>\n        <width>{frame.grid.width}</width>\n"
        f"        <height>{frame.grid.height}</height>\n"
        f"        <depth>{frame.bands}</depth>\n    </size>\n"
    ]
    for box, name in zip(boxes, names, strict=True):
        sides = "".join(
            f"            <{side}>{number + 0.0:.2f}</{side}>\n"
            for side, number in zip(_SIDES, box, strict=True)
        )
        parts.append(
            f"    <object>\n        <name>{escape(str(name))}</name>\n        <bndbox>\n{sides}"
            "        </bndbox>\n    </object>\n"
        )
    return "".join(parts) + "</annotation>\n"


def read_xml(path: Path) -> Element:
    """The root ``<annotation>`` of a label. Raises FormatError, also for a DTD."""
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


def text_of(node: Element, tag: str, where: str) -> str:
    """The text of a field that must be there. Raises FormatError."""
    text = (node.findtext(tag) or "").strip()
    if not text:
        raise FormatError(f"{where} has no <{tag}>; every object needs a name and a bndbox.")
    return text


def box_of(node: Element, where: str) -> list[float]:
    """Left, upper, right and lower edge of an object in pixels. Raises FormatError."""
    frame = node.find("bndbox")
    if frame is None:
        raise FormatError(f"{where} has no <bndbox>; every object needs a name and a bndbox.")
    return [edge(text_of(frame, side, f"{where}, <bndbox>"), f"<{side}>", where) for side in _SIDES]
