"""Small exports written by the formats themselves, without the tool."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest

from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.formats import (
    FORMATS,
    BoxLabels,
    InstanceLabels,
    MaskLabels,
    NoLabel,
    PanopticLabels,
    TileLabels,
)
from geodl.formats.base import ESRI_EMD, ESRI_MAP, ESRI_STATS, ESRI_TEXT, ChipFrame
from geodl.formats.counts import ExportCounts, count_chip
from geodl.formats.esri import ExportFacts, accumulated_stats, data_emd, map_line, stats_text
from geodl.formats.images import SUFFIXES, write_image

CLASSES = ClassTable.from_mapping({1: "Water", 4: "Crop land"})
GRID = GeoGrid(
    width=400,
    height=300,
    transform=(0.5, 0.0, 432100.0, 0.0, -0.5, 4567900.0),
    crs=pyproj.CRS.from_epsg(32633).to_wkt(),
)
HEIGHT, WIDTH = 24, 32


@dataclass
class Written:
    """What went into an export."""

    path: Path
    images: list[np.ndarray]
    labels: list[Any]
    counts: ExportCounts


def some_label(mode: str, number: int) -> Any:
    """A label of the format with ``number`` objects, or a random class mask."""
    rng = np.random.default_rng([7, number])
    kind = FORMATS[mode].kind
    if kind == "objects":
        low = rng.uniform(0, 12, (number, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.5, 12, (number, 2))], axis=1)
        return BoxLabels(boxes, rng.choice([1, 4], number))
    if kind == "instances":
        return some_instances(rng, number)
    if kind == "tiles":
        several = mode == "MultiLabeled_Tiles" and number % 2
        return TileLabels.of([1, 4] if several else [int(rng.choice([1, 4]))])
    if kind == "images":
        return NoLabel()
    values = rng.choice([0, 1, 4], (HEIGHT, WIDTH))
    if kind == "panoptic":
        return PanopticLabels(values, some_instances(rng, number))
    return MaskLabels(values)


def some_instances(rng: np.random.Generator, number: int) -> InstanceLabels:
    """Rectangles that overlap each other, with holes."""
    masks = np.zeros((number, HEIGHT, WIDTH), bool)
    for mask in masks:
        row, col = rng.integers(0, 10, 2)
        mask[row : row + 9, col : col + 12] = True
        mask[row + 2 : row + 4, col + 2 : col + 4] = False
    return InstanceLabels(masks, rng.choice([1, 4], number))


def same_label(one: Any, other: Any) -> bool:
    """Whether two labels say the same; the order of instances plays no part."""
    if isinstance(one, InstanceLabels):

        def known(label: InstanceLabels) -> list[tuple[int, bytes]]:
            pairs = zip(label.values.tolist(), label.masks, strict=True)
            return sorted((value, np.packbits(mask).tobytes()) for value, mask in pairs)

        return known(one) == known(other)
    if isinstance(one, PanopticLabels) and not same_label(one.instances, other.instances):
        return False
    if isinstance(one, BoxLabels) and np.abs(one.boxes - other.boxes).max(initial=0) > 0.00501:
        return False
    return one.values.tolist() == other.values.tolist()


WriteExport = Callable[..., Written]


@pytest.fixture
def write_export(tmp_path: Path) -> WriteExport:
    """``write_export(mode, chip_format="TIFF", bands=3, dtype="uint8", chips=3)``."""

    def write(
        mode: str,
        chip_format: str = "TIFF",
        bands: int = 3,
        dtype: str = "uint8",
        chips: int = 3,
        nodata: float | None = None,
    ) -> Written:
        folder = tmp_path / "export"
        kind = FORMATS[mode]()
        for name in ("images", *kind.label_folders):
            (folder / name).mkdir(parents=True)
        rng = np.random.default_rng(3)
        classes = kind.export_classes(CLASSES)
        images, labels, lines, fragments = [], [], [], []
        for number in range(chips):
            window = Window(row=number * 10, col=number * 20, height=HEIGHT, width=WIDTH)
            stem = f"{number:09d}"
            data = (rng.random((bands, HEIGHT, WIDTH)) * 200).astype(dtype)
            label = some_label(mode, number + 1)
            frame = ChipFrame(
                folder=folder,
                stem=stem,
                image=stem + SUFFIXES[chip_format],
                bands=bands,
                grid=GRID.crop(window),
            )
            kind.write_label(frame, label, classes)
            image = kind.image_path(frame.image, label, classes)
            (folder / image).parent.mkdir(exist_ok=True)
            write_image(
                folder / image,
                data,
                chip_format=chip_format,
                grid=frame.grid,
                nodata=nodata,
            )
            images.append(data)
            labels.append(label)
            lines.append(map_line([image, *kind.label_paths(stem, label, classes)]))
            fragments.append((number, kind.fragment(frame, label)))
        counts = functools.reduce(
            operator.add, (count_chip(d, lb, 0.25) for d, lb in zip(images, labels, strict=True))
        )
        facts = ExportFacts(
            chip_format=kind,
            classes=classes,
            tile_size=(WIDTH, HEIGHT),
            band_names=tuple(f"B{n}" for n in range(bands)),
            cell_size=((0.5, 0.5), (0.5, 0.5)),
            crs=GRID.crs,
        )
        kind.finalise(folder, fragments, classes, None)
        (folder / ESRI_MAP).write_text("".join(lines))
        (folder / ESRI_TEXT).write_text(stats_text(facts, counts))
        (folder / ESRI_STATS).write_text(json.dumps(accumulated_stats(facts, counts)))
        (folder / ESRI_EMD).write_text(json.dumps(data_emd(facts, counts)))
        return Written(folder, images, labels, counts)

    return write
