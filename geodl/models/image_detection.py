"""Objects in one image file, without georeference: what ``predict`` of the detectors does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.errors import ModelDataError, SourceNotFoundError
from geodl.base.options import as_path
from geodl.core.blocks import RasterBlock
from geodl.core.contract import ModelContract
from geodl.core.detections import Detections
from geodl.core.grid import GeoGrid, Window
from geodl.core.plan import TilePlan
from geodl.data.draw import draw_legend, to_picture
from geodl.data.figure import ShownFigure, new_figure
from geodl.formats.images import read_image
from geodl.infer.ownership import owned
from geodl.infer.tiles import TileRunner, clean_block, cut_tile
from geodl.nets.resize import resize_image
from geodl.ops.nms import suppress_detections
from geodl.tasks.objects import ObjectTask
from geodl.train.device import net_device

_PICTURE_IN = 8.0


def read_picture(path: str | os.PathLike[str], contract: ModelContract) -> RasterBlock:
    """The bands of an image that a model takes, 0 where there is no data.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    FormatError
        It cannot be read.
    ModelDataError
        It has too few bands.
    """
    path = as_path(path, "the image")
    if not path.is_file():
        raise SourceNotFoundError(f"There is no image file {path}.")
    image = read_image(path)
    if len(image.data) <= max(contract.extract_bands):
        raise ModelDataError(
            f"{path} has {len(image.data)} bands; {contract.model_name} takes the bands "
            f"{[band + 1 for band in contract.extract_bands]} (counted from 1)."
        )
    bands = list(contract.extract_bands)
    return clean_block(RasterBlock(image.data[bands], image.mask))


def trained_size(data: Any, contract: ModelContract) -> tuple[int, int]:
    """Height and width in pixels to which ``resize=True`` brings an image: as in training."""
    height, width = getattr(data, "resize_to", None) or (contract.tile_px,) * 2
    return height, width


def documented_answer(
    found: Detections, contract: ModelContract, scored: bool
) -> tuple[list[Any], ...]:
    """What ``predict`` returns: boxes ``[xmin, ymin, width, height]``, class names, scores."""
    boxes = np.hstack([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]]).tolist()
    names = contract.classes.names
    labels = [names[label - 1] for label in found.labels.tolist()]
    return (boxes, labels, found.scores.tolist()) if scored else (boxes, labels)


def boxes_figure(
    block: RasterBlock, found: Detections, task: ObjectTask, contract: ModelContract
) -> ShownFigure:
    """An image with the boxes of its objects."""
    names = contract.band_names
    shown = [names[band] for band in contract.extract_bands] if names else []
    picture = to_picture(block.data, block.mask, str(block.data.dtype), shown)
    height, width = picture.shape[:2]
    figure = new_figure(_PICTURE_IN, _PICTURE_IN * height / width)
    axes = figure.add_subplot()
    axes.set_axis_off()
    task.draw_detections(axes, found, picture)
    draw_legend(figure, contract.classes)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDetector:
    """A network with all that turns the pixels of an image into objects.

    Parameters
    ----------
    net
        In eval mode.
    task
        Decodes its answers.
    contract
        How the pixels are normalised, and the side of the windows.
    threshold
        Least score, 0..1.
    nms_overlap
        IoU of two boxes of a class above which the weaker is dropped.
    """

    net: nn.Module
    task: ObjectTask
    contract: ModelContract
    threshold: float
    nms_overlap: float

    def in_file(
        self, path: str | os.PathLike[str], size_yx: tuple[int, int] | None, batch: int
    ) -> tuple[RasterBlock, Detections]:
        """The pixels of an image file, and the objects in it.

        Parameters
        ----------
        size_yx
            What the whole image is resized to; None: windows slide over it, ``batch`` at once.

        Raises
        ------
        SourceNotFoundError, FormatError, ModelDataError
            As :func:`read_picture`.
        """
        picture = read_picture(path, self.contract)
        if size_yx is None:
            return picture, self.in_tiles(picture, batch)
        return picture, self.whole(picture, size_yx)

    def in_tiles(self, picture: RasterBlock, batch: int) -> Detections:
        """Slide windows of the training size over an image, each overlapping the next by half.

        A window owns the objects whose centre lies in its middle; those that its edge cuts are
        left to the neighbour, as in ``detect_objects``.

        Returns
        -------
        Detections in pixels of the image, best first.
        """
        _, height, width = picture.data.shape
        grid = GeoGrid(width=width, height=height, transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
        tile = self.contract.tile_px
        plan = TilePlan.make(grid, tile_px=tile, padding_px=tile // 4)
        runner = TileRunner(
            self.net,
            self.contract.normalization,
            batch=batch,
            device=str(net_device(self.net)),
        )
        parts = []
        for (window, core), found in runner.run(_tiles(plan, picture), self._call):
            mine, cut = owned(found, window, core, grid.window)
            parts.append(mine.take(~cut))
        return suppress_detections(Detections.concatenate(parts), self.nms_overlap)

    def whole(self, picture: RasterBlock, size_yx: tuple[int, int]) -> Detections:
        """Objects in an image that is resized to one tile; in pixels of the image as it was."""
        _, height, width = picture.data.shape
        x = torch.from_numpy(self.contract.normalization.apply(picture.data))
        x = resize_image(x, size_yx)[None].to(net_device(self.net))
        with torch.inference_mode():
            found = self._call(self.net, x)[0]
        back = np.array([width / size_yx[1], height / size_yx[0]] * 2)
        return Detections(found.boxes * back, found.scores, found.labels)

    def _call(self, net: nn.Module, x: Tensor) -> list[Detections]:
        return self.task.detect(net, x, threshold=self.threshold, nms_overlap=self.nms_overlap)


def _tiles(
    plan: TilePlan, picture: RasterBlock
) -> Iterator[tuple[tuple[Window, Window], np.ndarray]]:
    """((window, its middle), pixels) of every tile."""
    for block in plan.blocks():
        i0, i1, j0, j1 = block.tiles
        for i in range(i0, i1):
            for j in range(j0, j1):
                window = plan.tile_window(i, j)
                pixels, _ = cut_tile(picture, plan.grid.window, window)
                yield (window, plan.tile_core(i, j)), pixels
