"""Pixels and labels of single chips, cut from what was read for their block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import shapely

from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.formats.base import ChipContent
from geodl.io.ground import Ground, read_ground
from geodl.io.raster_view import read_padded
from geodl.ops.chip_turns import Turn
from geodl.ops.labels import outside_part, parts_inside, share_inside
from geodl.tools.chip_labels import RasterLabels
from geodl.tools.chip_plan import Chip, ChipBlock
from geodl.tools.chip_second import SecondRaster


@dataclass(frozen=True, kw_only=True)
class Part:
    """One image and what lies on its pixels; features come with the blocks.

    Parameters
    ----------
    classes
        A class raster as labels, or None.
    numbers
        A raster of object numbers for panoptic labels, or None.
    second
        The second raster, or None.
    """

    source: RasterSource
    classes: RasterLabels | None
    numbers: RasterLabels | None
    second: SecondRaster | None


def read_image_ground(source: RasterSource | SecondRaster, reaches: list[Window]) -> Ground:
    """The ground of a block's chips, of the image or the second raster."""
    if isinstance(source, SecondRaster):
        return read_ground(source.read, reaches)
    return read_ground(partial(read_padded, source), reaches)


def read_mask_ground(raster: RasterLabels, reaches: list[Window]) -> Ground:
    """The same for a raster of labels, as int32 of one band."""

    def read(window: Window) -> RasterBlock:
        values = raster.read(window)
        return RasterBlock(values[None], values != 0)

    return read_ground(read, reaches)


def turned_block(ground: Ground, position: int, chip: Chip, turn: Turn, times: int) -> RasterBlock:
    """Pixels of a chip, by nearest neighbour where it is turned: values stay the raster's own.

    Parameters
    ----------
    times
        How much finer than the image the raster is.
    """
    window = scaled(chip.window, times)
    if turn.still:
        return ground.cut(position, window)
    reach = turn.reach(window)
    block = ground.cut(position, reach)
    rows, cols = turn.pixels(window)
    rows, cols = rows - reach.row, cols - reach.col
    return RasterBlock(block.data[:, rows, cols], block.mask[rows, cols])


def scaled(window: Window, times: int) -> Window:
    return Window(
        row=window.row * times,
        col=window.col * times,
        height=window.height * times,
        width=window.width * times,
    )


@dataclass(frozen=True, eq=False)
class BlockLabels:
    """Labels of a block's chips: its features by place, and rasters that were read.

    Parameters
    ----------
    classes, numbers
        Of the label rasters, or None.
    least_share
        Features of which a chip holds less are no label of it.
    """

    spec: ChipBlock
    turns: tuple[Turn, ...]
    classes: Ground | None
    numbers: Ground | None
    least_share: float
    tree: shapely.STRtree | None
    thing_tree: shapely.STRtree | None

    @classmethod
    def read(
        cls, spec: ChipBlock, part: Part, turns: tuple[Turn, ...], least_share: float
    ) -> BlockLabels:
        reaches = [turns[chip.turn].reach(chip.window) for chip in spec.chips]
        return cls(
            spec,
            turns,
            None if part.classes is None else read_mask_ground(part.classes, reaches),
            None if part.numbers is None else read_mask_ground(part.numbers, reaches),
            least_share,
            None if spec.features is None else shapely.STRtree(spec.features),
            None if spec.things is None else shapely.STRtree(spec.things),
        )

    def content(self, position: int) -> ChipContent:
        """What lies on the ground of a chip."""
        chip = self.spec.chips[position]
        content = ChipContent(window=chip.window, least_share=self.least_share)
        if self.classes is not None:
            content = replace(content, class_mask=self._mask(self.classes, position))
        elif self.tree is not None:
            features, values = self._near(chip, self.tree, self.spec.features, self.spec.values)
            content = replace(content, features=features, values=values)
        if chip.own is not None:
            content = replace(content, own_value=self._own_value(chip))
        return replace(content, instances=self._instances(position))

    def _instances(self, position: int) -> ChipContent | None:
        chip = self.spec.chips[position]
        if self.numbers is not None:
            mask = self._mask(self.numbers, position)
            return ChipContent(window=chip.window, class_mask=mask, numbered=True)
        if self.thing_tree is None:
            return None
        features, values = self._near(
            chip, self.thing_tree, self.spec.things, self.spec.thing_values
        )
        return ChipContent(
            window=chip.window, features=features, values=values, least_share=self.least_share
        )

    def _mask(self, ground: Ground, position: int) -> np.ndarray:
        chip = self.spec.chips[position]
        return turned_block(ground, position, chip, self.turns[chip.turn], 1).data[0]

    def _near(
        self,
        chip: Chip,
        tree: shapely.STRtree,
        features: np.ndarray | None,
        values: np.ndarray | None,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        if features is None or values is None:
            return None, None
        turn = self.turns[chip.turn]
        reach = turn.reach(chip.window)
        found = np.sort(
            tree.query(shapely.box(reach.col, reach.row, reach.col_stop, reach.row_stop))
        )
        return turn.geometries(features[found], chip.window), values[found]

    def _own(self, chip: Chip) -> tuple[np.ndarray, np.ndarray]:
        """The feature that a chip is cut for, whole and its part in the chip."""
        if self.spec.features is None or chip.own is None:
            return np.zeros(0, object), np.zeros(0, object)
        whole = self.turns[chip.turn].geometries(
            self.spec.features[chip.own : chip.own + 1], chip.window
        )
        return whole, parts_inside(whole, chip.window)

    def _own_value(self, chip: Chip) -> int | None:
        whole, part = self._own(chip)
        if self.spec.values is None or not len(part) or shapely.is_empty(part[0]):
            return None
        if self.least_share > 0 and share_inside(part, whole)[0] < self.least_share:
            return None
        return int(self.spec.values[chip.own or 0])

    def outside_own(self, position: int) -> np.ndarray:
        """bool (H, W): pixels of a chip outside the feature that it is cut for."""
        chip = self.spec.chips[position]
        _, part = self._own(chip)
        return outside_part(part, (chip.window.height, chip.window.width))


def chip_grid(grid: GeoGrid, chip: Chip, turn: Turn, image_space: str, times: int = 1) -> GeoGrid:
    """Size, transform and CRS of a chip: on the map, or in pixels of its image (y down)."""
    window = scaled(chip.window, times)
    if image_space == "MAP_SPACE":
        return turn.grid(grid, window)
    plain = GeoGrid(
        width=grid.width, height=grid.height, transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), crs=None
    )
    return turn.grid(plain, window)
