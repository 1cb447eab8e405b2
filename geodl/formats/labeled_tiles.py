"""``Labeled_Tiles`` and ``MultiLabeled_Tiles``: one class, or several, for a whole chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element

import shapely

from geodl.base.errors import FormatError
from geodl.core.classes import ClassEntry, ClassTable
from geodl.formats.base import ChipContent, ChipFolder, ChipFrame, ChipRef, LabelKind
from geodl.formats.boxes import class_value, classes_of_names
from geodl.formats.chip_format import ChipFormat
from geodl.formats.images import place
from geodl.formats.label_types import TileLabels
from geodl.formats.voc_xml import annotation, read_xml, text_of
from geodl.ops.labels import boxes_of


class LabeledTiles(ChipFormat):
    """One XML object per chip: its class value, and the box of the whole chip."""

    name = "Labeled_Tiles"
    kind: ClassVar[LabelKind] = "tiles"
    label_suffixes = (".xml",)
    one_per_feature = True

    def label_of(self, content: ChipContent) -> TileLabels:
        return TileLabels.of([] if content.own_value is None else [content.own_value])

    def write_label(self, frame: ChipFrame, label: TileLabels, classes: ClassTable) -> None:
        path = frame.folder / self.label_paths(frame.stem)[0]
        box = (0.0, 0.0, float(frame.grid.width), float(frame.grid.height))
        names = label.values.tolist()
        place(path, annotation(frame, names, [box] * len(names)).encode())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> TileLabels:
        """Read the class of a chip.

        Raises
        ------
        FormatError
            XML that is broken, no object or several, an unknown class; names the file.
        """
        if not ref.labels:
            return TileLabels.of([])
        path = ref.labels[0]
        name = _only_name(path, read_xml(path))
        return TileLabels.of([class_value(name, folder.classes, str(path))])

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The texts of all ``name`` elements."""
        labels = (label for ref in chips for label in ref.labels)
        return classes_of_names({_only_name(p, read_xml(p)) for p in labels}, path)


class MultiLabeledTiles(ChipFormat):
    """One XML object per chip, whose name lists the chip's classes with commas between."""

    name = "MultiLabeled_Tiles"
    kind: ClassVar[LabelKind] = "tiles"
    label_suffixes = (".xml",)

    def label_of(self, content: ChipContent) -> TileLabels:
        if content.class_mask is not None:
            return TileLabels.of(content.class_mask)
        parts, values = content.parts
        # Points and lines have no extent to be too small.
        thin = (shapely.get_dimensions(parts) < 2) & ~shapely.is_empty(parts)
        return TileLabels.of(values[boxes_of(parts)[1] | thin])

    def write_label(self, frame: ChipFrame, label: TileLabels, classes: ClassTable) -> None:
        entries = {entry.value: entry for entry in classes}
        names = [_text_of_class(entries[value], classes) for value in label.values.tolist()]
        box = (0.0, 0.0, float(frame.grid.width), float(frame.grid.height))
        joined = [",".join(names)] if names else []
        path = frame.folder / self.label_paths(frame.stem)[0]
        place(path, annotation(frame, joined, [box] * len(joined)).encode())

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> TileLabels:
        """Read the classes of a chip; none where the label has no object.

        Raises
        ------
        FormatError
            XML that is broken, an empty or unknown class between commas; names the file.
        """
        if not ref.labels:
            return TileLabels.of([])
        path = ref.labels[0]
        names = _listed(path, read_xml(path))
        return TileLabels.of([class_value(n, folder.classes, str(path)) for n in names])

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The texts between the commas of all ``name`` elements."""
        labels = (label for ref in chips for label in ref.labels)
        return classes_of_names({n for p in labels for n in _listed(p, read_xml(p))}, path)


def _only_name(path: Path, root: Element) -> str:
    found = root.findall("object")
    if len(found) != 1:
        raise FormatError(f"{path} has {len(found)} objects; the label of a chip has exactly one.")
    return text_of(found[0], "name", f"{path}, object 1")


def _listed(path: Path, root: Element) -> list[str]:
    found = root.find("object")
    if found is None:
        return []
    names = [name.strip() for name in text_of(found, "name", f"{path}, object 1").split(",")]
    if not all(names):
        raise FormatError(f"{path}: <name> has an empty class between its commas ({names}).")
    return names


def _text_of_class(entry: ClassEntry, classes: ClassTable) -> str:
    """The class's name, or its value where the name could not be read back."""
    name = entry.name
    if "," in name or name != name.strip() or not name:
        return str(entry.value)
    return name if class_value(name, classes, "") == entry.value else str(entry.value)
