"""``COCO_rectangles`` and ``COCO_instances``: one ``labels.json`` for all chips."""

from __future__ import annotations

import functools
import json
import math
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar

import numpy as np

from geodl.base.errors import FormatError
from geodl.base.files import read_json
from geodl.core.classes import ClassTable
from geodl.formats.base import (
    BoxLabels,
    ChipContent,
    ChipFolder,
    ChipFrame,
    ChipRef,
    LabelKind,
)
from geodl.formats.boxes import BoxFormat, inside_chip, no_boxes
from geodl.formats.chip_format import ChipFormat, LabelSource
from geodl.formats.coco_masks import mask_of, run_lengths
from geodl.formats.images import chip_size
from geodl.formats.instances import instances_of
from geodl.formats.label_types import InstanceLabels, no_instances

LABELS_JSON = "labels.json"
# A file of all labels is larger than any other JSON that is read.
_LIMIT_BYTES = 4 * 2**30
_DECIMALS = 4


class _Coco(ChipFormat):
    """What both have in common: category ids are class values, image ids the chips' numbers."""

    label_folders = ()
    label_source: ClassVar[LabelSource] = "root"
    root_files = (LABELS_JSON,)

    def label_paths(
        self, stem: str, label: Any = None, classes: ClassTable | None = None
    ) -> tuple[PurePosixPath, ...]:
        return ()

    def write_label(self, frame: ChipFrame, label: Any, classes: ClassTable) -> None:
        """All labels are written together at the end."""

    @abstractmethod
    def _annotations(self, label: Any) -> list[dict[str, Any]]:
        """Category, box, area and outline of each object."""

    def fragment(self, frame: ChipFrame, label: Any) -> Any:
        image = {"file_name": frame.image, "width": frame.grid.width, "height": frame.grid.height}
        return [image, self._annotations(label)]

    def finalise(
        self,
        folder: Path,
        fragments: Iterable[tuple[int, Any]],
        classes: ClassTable,
        base: Path | None,
    ) -> None:
        before = {} if base is None else _read(base / LABELS_JSON)
        categories = [{"id": e.value, "name": e.name, "supercategory": ""} for e in classes]
        temporary = folder / f".{LABELS_JSON}.{os.getpid()}.part"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.writelines(_text(before, fragments, categories))
            os.replace(temporary, folder / LABELS_JSON)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The categories; where one has the id 0, all are numbered one higher."""
        if not chips[0].labels:
            raise FormatError(f"{path} has no {LABELS_JSON}, which holds the labels of all chips.")
        return ClassTable.from_mapping(_index(chips[0].labels[0]).categories)

    def _found(self, ref: ChipRef, folder: ChipFolder) -> list[tuple[str, int, dict[str, Any]]]:
        """Place in the file, class value and annotation of each object of a chip."""
        if not ref.labels:
            return []
        index = _index(ref.labels[0])
        known = set(folder.classes.values)
        found = []
        for where, value, annotation in index.by_name.get(ref.image.name, ()):
            if value not in known:
                raise FormatError(
                    f"{where} has the category {value}; the export's classes are "
                    f"{', '.join(f'{e.value} ({e.name})' for e in folder.classes)}."
                )
            found.append((where, value, annotation))
        return found


class CocoRectangles(_Coco, BoxFormat):
    """Boxes as x, y, width and height in pixels from the upper left corner."""

    name = "COCO_rectangles"

    def _annotations(self, label: BoxLabels) -> list[dict[str, Any]]:
        return [
            _annotation(value, box, None)
            for box, value in zip(label.boxes.tolist(), label.values.tolist(), strict=True)
        ]

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> BoxLabels:
        """The boxes of a chip.

        Raises
        ------
        FormatError
            JSON that is broken, an annotation whose category does not exist, a box that is empty
            or leaves the chip; names the file and the annotation.
        """
        found = self._found(ref, folder)
        if not found:
            return no_boxes()
        boxes = np.array([_box(annotation, where) for where, _, annotation in found])
        label = BoxLabels(boxes, np.array([value for _, value, _ in found], np.int64))
        return inside_chip(label, chip_size(ref, folder), ref.labels[0])


class CocoInstances(_Coco):
    """Masks as run lengths, which hold every pixel, holes and parts too, and their boxes."""

    name = "COCO_instances"
    kind: ClassVar[LabelKind] = "instances"

    def label_of(self, content: ChipContent) -> InstanceLabels:
        return instances_of(content)

    def _annotations(self, label: InstanceLabels) -> list[dict[str, Any]]:
        return [
            _annotation(value, box, mask)
            for box, value, mask in zip(
                label.boxes().tolist(), label.values.tolist(), label.masks, strict=True
            )
        ]

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> InstanceLabels:
        """The masks of a chip, from run lengths or polygons.

        Raises
        ------
        FormatError
            As for boxes, and a segmentation that does not fit the image.
        """
        width, height = chip_size(ref, folder)
        found = self._found(ref, folder)
        if not found:
            return no_instances((height, width))
        masks = [mask_of(a.get("segmentation"), (height, width), where) for where, _, a in found]
        for (where, _, _), mask in zip(found, masks, strict=True):
            if not mask.any():
                raise FormatError(f"{where}: the segmentation covers no pixel of the image.")
        return InstanceLabels(np.stack(masks), np.array([v for _, v, _ in found], np.int64))


def _annotation(value: int, box: list[float], mask: np.ndarray | None) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(side, _DECIMALS) for side in box)
    size = [round(x1 - x0, _DECIMALS), round(y1 - y0, _DECIMALS)]
    corners = [x0, y0, x1, y0, x1, y1, x0, y1]
    return {
        "category_id": value,
        "bbox": [x0, y0, *size],
        "area": round(size[0] * size[1], _DECIMALS) if mask is None else int(mask.sum()),
        "iscrowd": 0,
        "segmentation": [corners] if mask is None else run_lengths(mask),
    }


def _text(
    before: dict[str, Any], fragments: Iterable[tuple[int, Any]], categories: list[dict[str, Any]]
) -> Iterator[str]:
    """The file piece by piece: images one to a line, then annotations, then categories."""
    images = list(before.get("images", ()))
    annotations = list(before.get("annotations", ()))
    free = max((entry["id"] for entry in annotations), default=0) + 1
    for number, (image, found) in fragments:
        images.append({"id": number, **image})
        for annotation in found:
            annotations.append({"id": free, "image_id": number, **annotation})
            free += 1
    lists = {"images": images, "annotations": annotations, "categories": categories}
    yield "{\n"
    for place, (key, entries) in enumerate(lists.items()):
        yield f'"{key}": [\n' if entries else f'"{key}": ['
        for entry_place, entry in enumerate(entries):
            text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
            yield text + (",\n" if entry_place < len(entries) - 1 else "\n")
        yield "],\n" if place < len(lists) - 1 else "]\n"
    yield "}\n"


# -- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Index:
    """One file: its categories, and annotations with their class values by image name."""

    categories: dict[int, str]
    by_name: dict[str, list[tuple[str, int, dict[str, Any]]]]


def _index(path: Path) -> _Index:
    try:
        facts = path.stat()
    except OSError as error:
        raise FormatError(f"{path} is missing; it holds the labels of all chips.") from error
    return _indexed(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4)
def _indexed(path: Path, _time_ns: int, _size: int) -> _Index:
    value = _read(path)
    names: dict[Any, str] = {}
    for number, image in enumerate(_entries(value, "images", path)):
        where = f"{path}, images[{number}]"
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise FormatError(f"{where} has no file_name.")
        if image.get("id") in names or image.get("id") is None:
            raise FormatError(f"{where}: the id {image.get('id')!r} is missing or not unique.")
        names[image["id"]] = PureWindowsPath(name).name
    categories = _categories(value, path)
    shift = int(0 in categories)
    by_name: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    for number, annotation in enumerate(_entries(value, "annotations", path)):
        where = f"{path}, annotations[{number}]"
        category, image_id = annotation.get("category_id"), annotation.get("image_id")
        if image_id not in names:
            raise FormatError(f"{where}: there is no image with the id {image_id!r}.")
        if category not in categories:
            raise FormatError(f"{where}: there is no category with the id {category!r}.")
        listed = by_name.setdefault(names[image_id], [])
        listed.append((where, int(category) + shift, annotation))
    return _Index({key + shift: name for key, name in categories.items()}, by_name)


def _read(path: Path) -> dict[str, Any]:
    value = read_json(path, limit_bytes=_LIMIT_BYTES)
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds {type(value).__name__}; expected a JSON object.")
    return value


def _entries(value: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = value.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise FormatError(f"{path}: {key} must be a list of JSON objects.")
    return found


def _categories(value: dict[str, Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, entry in enumerate(_entries(value, "categories", path)):
        key = entry.get("id")
        if not isinstance(key, int) or isinstance(key, bool) or key < 0 or key in found:
            raise FormatError(
                f"{path}, categories[{number}]: the id is {key!r}; expected whole numbers from 0, "
                "each once."
            )
        found[key] = str(entry.get("name") or key)
    return found


def _box(annotation: dict[str, Any], where: str) -> list[float]:
    box = annotation.get("bbox")
    good = isinstance(box, list) and len(box) == 4
    if not good or not all(isinstance(n, int | float) and math.isfinite(n) for n in box or ()):
        raise FormatError(f"{where}: bbox is {box!r}; expected [x, y, width, height] in pixels.")
    x, y, width, height = map(float, box or ())
    return [x, y, x + width, y + height]
