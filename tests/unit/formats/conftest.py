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
from geodl.formats import FORMATS, BoxLabels, MaskLabels
from geodl.formats.base import ESRI_EMD, ESRI_MAP, ESRI_STATS, ESRI_TEXT, ChipFrame
from geodl.formats.counts import ExportCounts, count_chip
from geodl.formats.esri import ExportFacts, accumulated_stats, data_emd, map_text, stats_text
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


def some_label(mode: str, number: int) -> BoxLabels | MaskLabels:
    rng = np.random.default_rng([7, number])
    if FORMATS[mode].kind == "objects":
        low = rng.uniform(0, 12, (number, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.5, 12, (number, 2))], axis=1)
        return BoxLabels(boxes, rng.choice([1, 4], number))
    return MaskLabels(rng.choice([0, 1, 4], (HEIGHT, WIDTH)))


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
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        kind = FORMATS[mode]()
        rng = np.random.default_rng(3)
        images, labels, stems = [], [], []
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
            kind.write_label(frame, label, CLASSES)
            write_image(
                folder / "images" / frame.image,
                data,
                chip_format=chip_format,
                grid=frame.grid,
                nodata=nodata,
            )
            images.append(data)
            labels.append(label)
            stems.append(stem)
        counts = functools.reduce(
            operator.add, (count_chip(d, lb, 0.25) for d, lb in zip(images, labels, strict=True))
        )
        facts = ExportFacts(
            chip_format=kind,
            classes=CLASSES,
            tile_size=(WIDTH, HEIGHT),
            band_names=tuple(f"B{n}" for n in range(bands)),
            cell_size=((0.5, 0.5), (0.5, 0.5)),
            crs=GRID.crs,
        )
        (folder / ESRI_MAP).write_text(map_text(kind, stems, SUFFIXES[chip_format]))
        (folder / ESRI_TEXT).write_text(stats_text(facts, counts))
        (folder / ESRI_STATS).write_text(json.dumps(accumulated_stats(facts, counts)))
        (folder / ESRI_EMD).write_text(json.dumps(data_emd(facts, counts)))
        return Written(folder, images, labels, counts)

    return write
