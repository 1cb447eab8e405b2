"""The two passes over the images: which chips there are, and the chips themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodl.core.blocks import RasterBlock
from geodl.core.classes import ClassTable
from geodl.formats import FORMATS
from geodl.formats.base import ChipFrame
from geodl.formats.chip_format import ChipFormat
from geodl.formats.counts import ExportCounts, count_chip
from geodl.formats.esri import map_line
from geodl.formats.images import SUFFIXES, image_environment, write_image
from geodl.io.ground import Ground
from geodl.ops.chip_turns import Turn
from geodl.ops.labels import value_counts
from geodl.runtime.preflight import read_one_pixel
from geodl.tools.chip_cut import (
    BlockLabels,
    Part,
    chip_grid,
    read_image_ground,
    turned_block,
)
from geodl.tools.chip_plan import Chip, ChipBlock


@dataclass(frozen=True, kw_only=True)
class SelectTask:
    """First pass: which chips of a block have a label, and the classes of a class raster.

    Parameters
    ----------
    least_share
        Features of which a chip holds a smaller share are no label of it, 0..1.
    """

    parts: tuple[Part, ...]
    turns: tuple[Turn, ...]
    metadata_format: str
    least_share: float
    every_chip: bool

    def read(self, spec: ChipBlock) -> Any:
        if not spec.chips:
            return None
        return BlockLabels.read(spec, self.parts[spec.key[0]], self.turns, self.least_share)

    def compute(self, spec: ChipBlock, loaded: BlockLabels | None) -> dict[str, Any]:
        kept: list[list[int]] = []
        values: set[int] = set()
        if loaded is not None:
            for chip, found in self._chosen(spec, loaded):
                kept.append([chip.turn, spec.key[0], *chip.place])
                values |= found
        return {"chips": kept, "values": sorted(values)}

    def _chosen(self, spec: ChipBlock, labels: BlockLabels) -> Iterator[tuple[Chip, set[int]]]:
        """Chips to write with the values of a class raster; copies only of such chips."""
        chip_format: ChipFormat = FORMATS[self.metadata_format]()
        kept: set[tuple[int, int]] = set()
        for position, chip in enumerate(spec.chips):
            if chip.turn and chip.place not in kept:
                continue
            content = labels.content(position)
            values: set[int] = set()
            if content.class_mask is not None:
                values = set(value_counts(content.class_mask)[0].tolist())
            if self.every_chip or chip_format.is_labelled(chip_format.label_of(content)):
                kept.add(chip.place)
                yield chip, values

    def write(self, spec: ChipBlock, computed: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        return {"skipped": not computed["chips"]}, json.dumps(computed).encode()


@dataclass(frozen=True, eq=False)
class LoadedBlock:
    """What a block of chips is cut from."""

    image: Ground
    second: Ground | None
    labels: BlockLabels


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """Second pass: reads a block's pixels once, writes its chips, returns their counts.

    Parameters
    ----------
    folder
        The export, with its folders.
    image_space
        Outside map space chips are placed by pixels, without a CRS.
    blacken
        Whether pixels outside the feature that a chip is cut for become 0.
    writers
        Chips that are cut, labelled and encoded at once; GDAL lets other threads run meanwhile.
    """

    parts: tuple[Part, ...]
    turns: tuple[Turn, ...]
    metadata_format: str
    chip_format: str
    least_share: float
    every_chip: bool
    classes: ClassTable
    folder: str
    image_space: str
    blacken: bool = False
    writers: int = 1

    def probe(self) -> None:
        for part in self.parts:
            read_one_pixel(part.source)
            if part.second is not None:
                read_one_pixel(part.second.source)

    def read(self, spec: ChipBlock) -> LoadedBlock:
        part = self.parts[spec.key[0]]
        second = None
        if part.second is not None:
            times = part.second.window
            ground = [self.turns[chip.turn].reach(times(chip.window)) for chip in spec.chips]
            second = read_image_ground(part.second, ground)
        reaches = [self.turns[chip.turn].reach(chip.window) for chip in spec.chips]
        return LoadedBlock(
            read_image_ground(part.source, reaches),
            second,
            BlockLabels.read(spec, part, self.turns, self.least_share),
        )

    def compute(self, spec: ChipBlock, loaded: LoadedBlock) -> LoadedBlock:
        # Labels are made chip by chip as they are written: all at once would fill the memory.
        return loaded

    def write(self, spec: ChipBlock, computed: LoadedBlock) -> tuple[dict[str, Any], bytes]:
        # Threads take the next chip that is left. Merging is exact: the order plays no part.
        left = iter(range(len(spec.chips)))
        with ThreadPoolExecutor(self.writers, thread_name_prefix="geodl-chip") as pool:
            jobs = [
                pool.submit(self._write_chips, spec, computed, left) for _ in range(self.writers)
            ]
            counts, entries = ExportCounts(), []
            for job in jobs:
                some, listed = job.result()
                counts = counts + some
                entries += listed
        payload = {"counts": counts.to_json(), "entries": entries}
        return {"chips": len(spec.chips)}, json.dumps(payload).encode()

    def _write_chips(
        self, spec: ChipBlock, loaded: LoadedBlock, positions: Iterator[int]
    ) -> tuple[ExportCounts, list[list[Any]]]:
        """Write chips until none is left; their counts and their entries."""
        counts, entries = ExportCounts(), []
        with image_environment():
            for position in positions:
                one, entry = self._write_chip(spec, loaded, position)
                counts = counts + one
                entries += [] if entry is None else [entry]
        return counts, entries

    def _write_chip(
        self, spec: ChipBlock, loaded: LoadedBlock, position: int
    ) -> tuple[ExportCounts, list[Any] | None]:
        """Write a chip; its counts, and its number, line and fragment if the format needs them."""
        chip, part = spec.chips[position], self.parts[spec.key[0]]
        turn = self.turns[chip.turn]
        chip_format: ChipFormat = FORMATS[self.metadata_format]()
        label = chip_format.label_of(loaded.labels.content(position))
        block = turned_block(loaded.image, position, chip, turn, 1)
        if self.blacken:
            outside = loaded.labels.outside_own(position)
            block = RasterBlock(np.where(outside, block.data.dtype.type(0), block.data), block.mask)
        stem = stem_of(chip.number)
        frame = ChipFrame(
            folder=Path(self.folder),
            stem=stem,
            image=f"{stem}{SUFFIXES[self.chip_format]}",
            bands=part.source.count,
            grid=chip_grid(part.source.grid, chip, turn, self.image_space),
        )
        chip_format.write_label(frame, label, self.classes)
        image = chip_format.image_path(frame.image, label, self.classes)
        self._write_image(frame.folder / image, block, frame, part.source.nodata)
        second = self._write_second(spec, loaded, position, frame)
        width, height = part.source.grid.cell_size_xy
        counts = count_chip(block.data, label, width * height, second)
        fragment = chip_format.fragment(frame, label)
        if fragment is None and not chip_format.named_by_label:
            return counts, None
        paths = [image, *chip_format.label_paths(stem, label, self.classes)]
        return counts, [chip.number, map_line(paths), fragment]

    def _write_second(
        self, spec: ChipBlock, loaded: LoadedBlock, position: int, frame: ChipFrame
    ) -> np.ndarray | None:
        """Write the chip of the second raster; its pixels."""
        chip, part = spec.chips[position], self.parts[spec.key[0]]
        if part.second is None or loaded.second is None:
            return None
        turn, times = self.turns[chip.turn], part.second.factor
        block = turned_block(loaded.second, position, chip, turn, times)
        grid = part.second.grid(part.source.grid)
        frame = ChipFrame(
            folder=frame.folder,
            stem=frame.stem,
            image=frame.image,
            bands=part.second.source.count,
            grid=chip_grid(grid, chip, turn, self.image_space, times),
        )
        path = frame.folder / "images2" / frame.image
        self._write_image(path, block, frame, part.second.source.nodata)
        return block.data

    def _write_image(
        self, path: Path, block: RasterBlock, frame: ChipFrame, nodata: float | None
    ) -> None:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
        write_image(
            path,
            block.data,
            chip_format=self.chip_format,
            grid=frame.grid,
            nodata=nodata,
            mask=block.mask,
        )


def stem_of(number: int) -> str:
    return f"{number:09d}"
