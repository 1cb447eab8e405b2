"""``YOLO_rectangles``: one text file per chip, boxes as shares of the chip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from geodl.base.errors import FormatError
from geodl.base.files import write_atomic
from geodl.core.classes import ClassTable
from geodl.formats.base import BoxLabels, ChipFolder, ChipFrame, ChipRef
from geodl.formats.boxes import BoxFormat, edge, inside_chip, no_boxes, whole_number
from geodl.formats.images import chip_size, place

_FIELDS = ("class", "x_centre", "y_centre", "width", "height")
_NAMES, _DATA = "classes.txt", "data.yaml"
# Far below the 0.01 px that boxes are kept to, also in chips of 10,000 px.
_DECIMALS = 8


class Yolo(BoxFormat):
    """Rows of class, centre and size; the class is the place in the list of classes, from 0.

    ``classes.txt`` and ``data.yaml`` beside the folders name the classes.
    """

    name = "YOLO_rectangles"
    label_suffixes = (".txt",)
    root_files = (_DATA, _NAMES)

    def write_label(self, frame: ChipFrame, label: BoxLabels, classes: ClassTable) -> None:
        index = {value: number for number, value in enumerate(classes.values)}
        size = np.array([frame.grid.width, frame.grid.height], np.float64)
        low, high = label.boxes[:, :2] / size, label.boxes[:, 2:] / size
        shares = np.concatenate([(low + high) / 2, high - low], axis=1)
        rows = [
            f"{index[value]} {' '.join(f'{number:.{_DECIMALS}f}' for number in row)}\n"
            for row, value in zip(shares.tolist(), label.values.tolist(), strict=True)
        ]
        place(frame.folder / self.label_paths(frame.stem)[0], "".join(rows).encode())

    def finalise(
        self,
        folder: Path,
        fragments: Iterable[tuple[int, Any]],
        classes: ClassTable,
        base: Path | None,
    ) -> None:
        names = classes.names
        write_atomic(folder / _NAMES, "".join(f"{' '.join(name.split())}\n" for name in names))
        lines = (f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(names))
        head = f"path: .\ntrain: images\nval: images\nnc: {len(names)}\nnames:\n"
        write_atomic(folder / _DATA, head + "".join(lines))

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> BoxLabels:
        """Read the boxes of a chip; a sixth field (a score) is passed over.

        Raises
        ------
        FormatError
            A row with too few fields, a class beyond the list, a share that is no number, a box
            that is empty or leaves the chip; names file and line.
        """
        if not ref.labels:
            return no_boxes()
        path = ref.labels[0]
        boxes, values = [], []
        width, height = chip_size(ref, folder)
        for number, fields in _rows(path):
            where = f"{path}, line {number}"
            values.append(_class_at(fields[0], folder.classes, where))
            x, y, w, h = (
                edge(t, name, where) for t, name in zip(fields[1:5], _FIELDS[1:], strict=True)
            )
            boxes.append([(x - w / 2) * width, (y - h / 2) * height,
                          (x + w / 2) * width, (y + h / 2) * height])  # fmt: skip
        if not boxes:
            return no_boxes()
        label = BoxLabels(np.array(boxes, np.float64), np.array(values, np.int64))
        return inside_chip(label, (width, height), path)

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The names in ``data.yaml`` or ``classes.txt``, else the numbers in the labels."""
        names = _named(path)
        if names is None:
            labels = (label for ref in chips for label in ref.labels)
            numbers = [
                _index(row[0], f"{label}, line {line}")
                for label in labels
                for line, row in _rows(label)
            ]
            if not numbers:
                raise FormatError(
                    f"The labels of {path} hold no object; there is nothing to learn."
                )
            names = [str(number) for number in range(max(numbers) + 1)]
        return ClassTable.from_mapping(dict(enumerate(names, start=1)))


def _named(path: Path) -> list[str] | None:
    data, listed = path / _DATA, path / _NAMES
    if data.is_file():
        try:
            value = yaml.safe_load(data.read_text("utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"{data} is no YAML ({error}).") from error
        names = value.get("names") if isinstance(value, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            raise FormatError(f"{data}: names must list the classes, or number them from 0.")
        return [str(name) for name in names]
    if listed.is_file():
        return [line.strip() for line in listed.read_text("utf-8-sig").splitlines() if line.strip()]
    return None


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and fields of each row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as text ({error}).") from error
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    for number, fields in rows:
        if fields and not len(_FIELDS) <= len(fields) <= len(_FIELDS) + 1:
            raise FormatError(
                f"{path}, line {number} has {len(fields)} fields; a YOLO row has {len(_FIELDS)}: "
                f"{', '.join(_FIELDS)}."
            )
    return [row for row in rows if row[1]]


def _index(text: str, where: str) -> int:
    number = whole_number(text)
    if number is None or number < 0:
        raise FormatError(f"{where}: the class is {text!r}; expected a number from 0.")
    return number


def _class_at(text: str, classes: ClassTable, where: str) -> int:
    number = _index(text, where)
    if number >= len(classes):
        raise FormatError(
            f"{where}: there is no class {number}; the export has {len(classes)}, from 0."
        )
    return classes.values[number]
