"""Checking the chips of an export: images, world files, labels, and what formats ask beside."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from affine import Affine

from geodl.base.errors import GeodlError
from geodl.formats.base import ESRI_STATS, ChipFolder, ChipRef, check_shape, counts_pixels
from geodl.formats.fault import Faults
from geodl.formats.images import WORLD_SUFFIXES, open_image
from geodl.formats.instances import read_numbers
from geodl.formats.voc_xml import read_xml

# A line or an object that a reader's message names, after the file.
_PLACE = re.compile(r"^, ((?:line|object) \d+|images\[\d+\]|annotations\[\d+\])")


def check_chips(folder: ChipFolder, stats: dict[str, Any], faults: Faults) -> None:
    """Check every chip of an opened export, and the totals of their labels."""
    totals: Counter[int] = Counter()
    readable = True
    for ref in folder.chips:
        _check_image(ref, folder, faults)
        found = _check_label(ref, folder, faults)
        if found is None:
            readable = False
        else:
            totals.update(found)
    if readable and folder.class_counts is not None:
        _check_totals(totals, folder, faults)
    _check_layout(folder, faults)


def _check_image(ref: ChipRef, folder: ChipFolder, faults: Faults) -> None:
    try:
        with open_image(ref.image) as dataset:
            shape = (dataset.count, dataset.height, dataset.width)
            transform, dtype = dataset.transform, dataset.dtypes[0]
            dataset.read()
    except GeodlError as error:
        faults.error(ref.image, "", str(error))
        return
    try:
        check_shape(ref.image, shape, folder)
    except GeodlError as error:
        faults.error(ref.image, "", str(error))
    if dtype != folder.dtype:
        faults.error(ref.image, "", f"has pixels of {dtype}; the first chip has {folder.dtype}")
    suffix = WORLD_SUFFIXES.get(ref.image.suffix.lower())
    world = ref.image.with_suffix(suffix) if suffix else None
    if world is not None and world.is_file():
        _check_world(world, transform, ref.image.suffix.lower() in (".tif", ".tiff"), faults)


def _check_world(path: Path, transform: Affine, own: bool, faults: Faults) -> None:
    """A world file on its own, and against the georeference inside its image."""
    try:
        numbers = [float(line) for line in path.read_text("utf-8-sig").split()]
    except (OSError, ValueError) as error:
        faults.error(path, "", f"is no list of numbers ({error})")
        return
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        faults.error(path, "", f"has {len(numbers)} numbers; a world file has six finite ones")
        return
    a, d, b, e, x, y = numbers
    if a * e - b * d == 0:
        faults.error(path, "line 1", "the cell size is 0")
        return
    if not own or transform.is_identity:
        return
    cell = max(math.hypot(a, d), math.hypot(b, e))
    centre_x, centre_y = transform @ (0.5, 0.5)
    off = max(abs(centre_x - x), abs(centre_y - y)) / cell
    turned = max(abs(p - q) for p, q in zip((a, b, d, e), _linear(transform), strict=True)) / cell
    if off > 1e-6 * max(1.0, abs(x) / cell * 1e-6) or turned > 1e-6:
        faults.error(path, "", f"lies {off:.6g} cells from the georeference inside the image")


def _linear(transform: Affine) -> tuple[float, float, float, float]:
    return transform.a, transform.b, transform.d, transform.e


def _check_label(ref: ChipRef, folder: ChipFolder, faults: Faults) -> dict[int, int] | None:
    """Counts of a chip's label, or None where it cannot be read."""
    chip_format = folder.chip_format
    if not ref.labels and chip_format.label_source != "none":
        faults.warn(ref.image, "", "has no label file")
        return {}
    try:
        found = chip_format.count(chip_format.read_label(ref, folder))
    except GeodlError as error:
        starts = ((p, (str(p), f"{p.parent} ")) for p in ref.labels)
        path = next((p for p, texts in starts if str(error).startswith(texts)), None)
        path = path or (ref.labels or (ref.image,))[0]
        place = _PLACE.match(str(error).removeprefix(str(path)))
        message = str(error)
        if place:
            message = message.removeprefix(f"{path}, {place[1]}").lstrip(":, ")
        faults.error(path, place[1] if place else "", message)
        return None
    _check_numbers(ref, folder, faults)
    _check_xml(ref, folder, faults)
    return found


def _check_xml(ref: ChipRef, folder: ChipFolder, faults: Faults) -> None:
    """What other readers ask of XML labels and geodl's own passes over."""
    if not ref.labels or ref.labels[0].suffix.lower() != ".xml":
        return
    path = ref.labels[0]
    root = read_xml(path)
    named = (root.findtext("filename") or "").strip()
    if named and PureWindowsPath(named).stem != ref.image.stem:
        faults.warn(path, "filename", f"is {named!r}; the image is {ref.image.name}")
    node = root.find("object")
    if node is None or folder.metadata_mode not in ("Labeled_Tiles", "MultiLabeled_Tiles"):
        return
    if node.find("bndbox") is None:
        faults.warn(path, "object 1", "has no <bndbox>; ArcGIS reads no label without one")
    classes = (node.findtext("name") or "").split(",")
    if folder.metadata_mode == "MultiLabeled_Tiles" and any(c != c.strip() for c in classes):
        faults.warn(path, "object 1", "has blanks beside its commas; ArcGIS takes them for names")


def _check_numbers(ref: ChipRef, folder: ChipFolder, faults: Faults) -> None:
    """Numbers of instances count from 1 without gaps in each band."""
    if folder.metadata_mode not in ("RCNN_Masks", "Panoptic_Segmentation"):
        return
    for path in ref.labels if folder.metadata_mode == "RCNN_Masks" else ref.labels[1:]:
        for number, band in enumerate(read_numbers(path), start=1):
            ids = np.unique(band[band != 0])
            if not np.array_equal(ids, np.arange(1, len(ids) + 1)):
                faults.warn(path, f"band {number}", "instances are not numbered from 1 on")


def _check_totals(totals: Counter[int], folder: ChipFolder, faults: Faults) -> None:
    unit = "pixels" if counts_pixels(folder.kind) else "objects"
    for value in folder.classes.values:
        stated = (folder.class_counts or {}).get(value, 0)
        if stated != totals[value]:
            faults.error(
                folder.path / ESRI_STATS,
                f"class {value}",
                f"counts {stated} {unit}; the labels hold {totals[value]}",
            )


def _check_layout(folder: ChipFolder, faults: Faults) -> None:
    """What some formats ask of their folders."""
    root = folder.path
    if folder.metadata_mode == "Imagenet":
        names = sorted({ref.image.parent.name for ref in folder.chips})
        for ref in folder.chips:
            if ref.image.parent == root / "images":
                faults.error(ref.image, "", "lies in no folder of a class")
        if len(names) < 2:
            faults.warn(root / "images", "", "has one class only; a classifier needs two")
        for name in names:
            if "." in name:
                faults.warn(root / "images" / name, "", "some readers cut the name at its dot")
    second = root / "images2"
    if second.is_dir():
        _check_second(folder, second, faults)


def _check_second(folder: ChipFolder, second: Path, faults: Faults) -> None:
    """Chips of the second raster: of the same names, one size, whole times finer."""
    suffixes = {ref.image.suffix for ref in folder.chips}
    there = {p.stem: p for p in second.iterdir() if p.suffix in suffixes and p.name[0] != "."}
    for ref in folder.chips:
        path = there.pop(ref.image.stem, None)
        if path is None:
            faults.error(second / ref.image.name, "", f"is missing; {ref.image.name} needs it")
            continue
        try:
            with open_image(path) as dataset:
                width, height, bands = dataset.width, dataset.height, dataset.count
        except GeodlError as error:
            faults.error(path, "", str(error))
            continue
        if folder.metadata_mode == "Classified_Tiles" and bands != folder.bands:
            faults.warn(path, "", f"has {bands} bands, its image {folder.bands}: no pair in time")
        times = max(1, width // folder.tile_size[0])
        if (width, height) != (folder.tile_size[0] * times, folder.tile_size[1] * times):
            faults.error(path, "", f"has {width} x {height} pixels, no multiple of its image's")
    for path in there.values():
        faults.error(path, "", "has no image of its name in images/")
