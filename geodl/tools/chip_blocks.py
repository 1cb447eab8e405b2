"""The two passes over an image: which chips there are, and the chips themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.formats import FORMATS
from geodl.formats.base import ChipContent, ChipFrame
from geodl.formats.chip_format import ChipFormat
from geodl.formats.counts import ExportCounts, count_chip
from geodl.formats.images import SUFFIXES, write_image
from geodl.ops.chip_grid import ChipGrid
from geodl.ops.labels import value_counts
from geodl.tools.chip_labels import FeatureLabels, RasterLabels

# A block's pixels; three blocks are in memory at once: one read, one counted, one written.
_BLOCK_BYTES = 32 * 2**20
# Of each pixel, beside the image's own: a class mask and whether there is data.
_LABEL_BYTES = 5
_BLOCK_MOST_PX = 4096
# Where chips cover less than this share of their block, each is read by itself.
_SPARSE = 0.3
# Rounding of reprojected mask polygons must not lose the chip that ends at their edge.
_MASK_SLACK_PX = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipBlock:
    """Some neighbouring chips with the features that may reach into them.

    Parameters
    ----------
    key
        Position among the blocks.
    chips
        int64 (N, 3): number, grid row, grid column of each chip; the number is -1 while chips are
        still being selected.
    features, values
        In pixels of the image, in the layer's order; None for a class raster.
    """

    key: tuple[int, int]
    chips: np.ndarray
    features: np.ndarray | None
    values: np.ndarray | None

    @property
    def name(self) -> str:
        return f"chip block {self.key[0]},{self.key[1]}"


@dataclass(frozen=True, kw_only=True)
class SelectTask:
    """First pass: which chips of a block have a label, and the classes of a class raster."""

    grid: ChipGrid
    metadata_format: str
    raster: RasterLabels | None
    least_share: float
    every_chip: bool

    def read(self, spec: ChipBlock) -> Any:
        return _read_masks(self.raster, self.grid, spec) if len(spec.chips) else None

    def compute(self, spec: ChipBlock, loaded: Any) -> dict[str, Any]:
        chip_format: ChipFormat = FORMATS[self.metadata_format]()
        values: set[int] = set()
        kept = []
        for position, content in enumerate(_contents(self, spec, loaded)):
            if content.class_mask is not None:
                values.update(value_counts(content.class_mask)[0].tolist())
            if self.every_chip or chip_format.is_labelled(chip_format.label_of(content)):
                kept.append(spec.chips[position, 1:].tolist())
        return {"chips": kept, "values": sorted(values)}

    def write(self, spec: ChipBlock, computed: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        return {"skipped": not computed["chips"]}, json.dumps(computed).encode()


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """Second pass: reads a block's pixels once, writes its chips, returns their counts.

    Parameters
    ----------
    source
        The image.
    folder
        The export, with ``images/`` and ``labels/``.
    image_space
        Outside map space chips are placed by pixels, without a CRS.
    writers
        Chips that are encoded at once; GDAL lets other threads run meanwhile.
    """

    source: RasterSource
    grid: ChipGrid
    metadata_format: str
    chip_format: str
    raster: RasterLabels | None
    least_share: float
    every_chip: bool
    classes: ClassTable
    folder: str
    image_space: str
    writers: int = 1

    def read(self, spec: ChipBlock) -> Any:
        windows = [self.grid.window(row, col) for _, row, col in spec.chips.tolist()]
        return _read_chips(self.source, windows), _read_masks(self.raster, self.grid, spec)

    def compute(self, spec: ChipBlock, loaded: Any) -> list[tuple[RasterBlock, Any]]:
        blocks, masks = loaded
        chip_format: ChipFormat = FORMATS[self.metadata_format]()
        labels = [chip_format.label_of(content) for content in _contents(self, spec, masks)]
        return list(zip(blocks, labels, strict=True))

    def write(
        self, spec: ChipBlock, computed: list[tuple[RasterBlock, Any]]
    ) -> tuple[dict[str, Any], bytes]:
        # Merging is exact, so the order in which chips are done plays no part.
        counts = ExportCounts()
        with ThreadPoolExecutor(self.writers, thread_name_prefix="geodl-chip") as pool:
            for one in pool.map(self._write_chip, spec.chips.tolist(), computed):
                counts = counts + one
        return {"chips": len(computed)}, json.dumps(counts.to_json()).encode()

    def _write_chip(self, chip: list[int], computed: tuple[RasterBlock, Any]) -> ExportCounts:
        (number, row, col), (block, label) = chip, computed
        window = self.grid.window(row, col)
        stem = stem_of(number)
        folder = Path(self.folder)
        image = folder / "images" / f"{stem}{SUFFIXES[self.chip_format]}"
        frame = ChipFrame(
            folder=folder,
            stem=stem,
            image=image.name,
            bands=self.source.count,
            grid=chip_place(self.source.grid, window, self.image_space),
        )
        FORMATS[self.metadata_format]().write_label(frame, label, self.classes)
        write_image(
            image,
            block.data,
            chip_format=self.chip_format,
            grid=frame.grid,
            nodata=self.source.nodata,
            mask=block.mask,
        )
        width, height = self.source.grid.cell_size_xy
        return count_chip(block.data, label, width * height)


def stem_of(number: int) -> str:
    return f"{number:09d}"


def chip_place(grid: GeoGrid, window: Window, image_space: str) -> GeoGrid:
    """Size, transform and CRS of a chip: on the map, or in pixels of its image (y down)."""
    if image_space == "MAP_SPACE":
        return grid.crop(window)
    transform = (1.0, 0.0, float(window.col), 0.0, 1.0, float(window.row))
    return GeoGrid(width=window.width, height=window.height, transform=transform, crs=None)


def default_block_px(source: RasterSource, grid: ChipGrid) -> int:
    """Side of a block that keeps its pixels within memory, at least one tile."""
    side = math.isqrt(_BLOCK_BYTES // (source.count * source.dtype.itemsize + _LABEL_BYTES))
    return max(*grid.tile_yx, min(side, _BLOCK_MOST_PX))


def _read_chips(source: RasterSource, windows: list[Window]) -> list[RasterBlock]:
    """Pixels of chips: one window around them is read, unless they are few in a wide area."""
    around = _around(windows)
    if around is None:
        return [source.read(window) for window in windows]
    block = source.read(around)
    cuts = [window.within(around) for window in windows]
    return [RasterBlock(block.data[:, *cut], block.mask[cut]) for cut in cuts]


def _read_masks(
    raster: RasterLabels | None, grid: ChipGrid, spec: ChipBlock
) -> list[np.ndarray] | None:
    if raster is None:
        return None
    windows = [grid.window(row, col) for _, row, col in spec.chips.tolist()]
    around = _around(windows)
    if around is None:
        return [raster.read(window) for window in windows]
    values = raster.read(around)
    return [values[window.within(around)] for window in windows]


def _around(windows: list[Window]) -> Window | None:
    """The window around all; None where they cover little of it."""
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    around = Window(
        row=row,
        col=col,
        height=max(w.row_stop for w in windows) - row,
        width=max(w.col_stop for w in windows) - col,
    )
    dense = sum(window.pixels for window in windows) >= _SPARSE * around.pixels
    return around if dense else None


def _contents(
    task: SelectTask | WriteTask, spec: ChipBlock, masks: list[np.ndarray] | None
) -> Iterator[ChipContent]:
    """What lies on each chip of a block."""
    tree = None if spec.features is None else shapely.STRtree(spec.features)
    for position, (_, row, col) in enumerate(spec.chips.tolist()):
        window = task.grid.window(row, col)
        if tree is None or spec.values is None or spec.features is None:
            mask = None if masks is None else masks[position]
            yield ChipContent(window=window, class_mask=mask)
            continue
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        found = np.sort(tree.query(frame))
        yield ChipContent(
            window=window,
            features=spec.features[found],
            values=spec.values[found],
            least_share=task.least_share,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipPlan:
    """Blocks of chips over an image.

    Parameters
    ----------
    features
        None for a class raster.
    mask
        Polygons in pixels that chips must lie wholly inside; None is everywhere.
    every_chip
        Whether chips without labels are written.
    """

    grid: ChipGrid
    block_px: int
    features: FeatureLabels | None
    mask: shapely.Geometry | None
    every_chip: bool

    @cached_property
    def _step(self) -> tuple[int, int]:
        rows, cols = next(self.grid.blocks(self.block_px))
        return len(rows), len(cols)

    @cached_property
    def _reached(self) -> list[tuple[range, range]]:
        """Blocks that labels and mask polygons reach."""
        return [
            (rows, cols)
            for rows, cols in self.grid.blocks(self.block_px)
            if self._reaches(self.grid.span(rows, cols))
        ]

    def _reaches(self, span: Window) -> bool:
        frame = shapely.box(span.col, span.row, span.col_stop, span.row_stop)
        if self.mask is not None and not shapely.intersects(self.mask, frame):
            return False
        return self.every_chip or self.features is None or len(self.features.within(span)[1]) > 0

    @property
    def candidate_count(self) -> int:
        return len(self._reached)

    def candidates(self) -> Iterator[ChipBlock]:
        """Blocks of all chips that may be written, not yet numbered."""
        step_y, step_x = self._step
        for rows, cols in self._reached:
            i, j = np.meshgrid(rows, cols, indexing="ij")
            chips = np.stack([np.full(i.size, -1), i.ravel(), j.ravel()], axis=1)
            yield self._spec((rows[0] // step_y, cols[0] // step_x), self._inside(chips))

    def numbered(self, chips: np.ndarray, first: int) -> tuple[int, Iterator[ChipBlock]]:
        """Blocks of the selected chips, and how many there are.

        Parameters
        ----------
        chips
            int64 (N, 2): grid row and column, ordered by them.
        first
            Number of the first chip; the others follow row by row.
        """
        keys = chips // np.array(self._step)
        rows = np.column_stack([np.arange(first, first + len(chips)), chips])
        order = np.lexsort((rows[:, 0], keys[:, 1], keys[:, 0]))
        edges = np.flatnonzero(np.diff(keys[order], axis=0).any(axis=1)) + 1
        parts = np.split(order, edges)
        return len(parts), (
            self._spec((int(keys[part[0], 0]), int(keys[part[0], 1])), rows[part]) for part in parts
        )

    def _spec(self, key: tuple[int, int], chips: np.ndarray) -> ChipBlock:
        features = values = None
        if self.features is not None and len(chips):
            span = self.grid.span(
                range(int(chips[:, 1].min()), int(chips[:, 1].max()) + 1),
                range(int(chips[:, 2].min()), int(chips[:, 2].max()) + 1),
            )
            features, values = self.features.within(span)
        return ChipBlock(key=key, chips=chips, features=features, values=values)

    def _inside(self, chips: np.ndarray) -> np.ndarray:
        """Those wholly inside the mask polygons."""
        if self.mask is None:
            return chips
        windows = [self.grid.window(row, col) for _, row, col in chips.tolist()]
        corners = np.array([[w.col, w.row, w.col_stop, w.row_stop] for w in windows], np.float64)
        slack = np.array([1, 1, -1, -1]) * _MASK_SLACK_PX
        frames = shapely.box(*(corners + slack).T)
        return chips[shapely.covers(self.mask, frames)]
