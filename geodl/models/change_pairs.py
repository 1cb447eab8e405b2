"""Pairs of images as one stack of bands, before first: in training data and for prediction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.errors import ModelDataError
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract
from geodl.core.grid import Window
from geodl.core.plan import TilePlan
from geodl.data.draw import to_picture
from geodl.data.figure import ShownFigure, new_figure, show
from geodl.infer.tiles import TileRunner, clean_block, cut_tile
from geodl.io.regions import RegionStore
from geodl.io.source import open_source
from geodl.io.writers import write_raster
from geodl.tasks.pixels import PixelTask, overlay
from geodl.train.device import net_device

_CHUNK_PX = 512
_PANEL_IN = 3.0


def as_stack(data: Any, model_name: str) -> Any:
    """A data object of pairs with both images in one, for a network that takes them apart.

    Parameters
    ----------
    data
        Of the type ChangeDetection. What is no data object comes back as it is, to be refused
        where all data is checked; so does a stack.

    Raises
    ------
    ModelDataError
        Data of another type, or images with different numbers of bands.
    """
    dataset_type = getattr(data, "dataset_type", None)
    if dataset_type is not None and dataset_type != "ChangeDetection":
        raise ModelDataError(
            f"{model_name} compares pairs of images, of datasets of the type ChangeDetection; "
            f"this one is {dataset_type}."
        )
    if dataset_type is None or data.kind != "change":
        return data
    first, second = data.all_bands
    if first != second:
        raise ModelDataError(
            f"{model_name} compares images with the same bands; the earlier images have {first}, "
            f"the later ones {second}. Export both with the same bands."
        )
    train, valid = data.train_ds.stacked, data.valid_ds.stacked
    names = [name for part in data.all_names for name in part]
    return replace(
        data,
        kind="pixels",
        titles=("pair",),
        all_bands=(first + second,),
        all_names=(tuple(names) if len(names) == first + second else (),),
        all_dtypes=(data.dtype,),
        normalization=train.normalization,
        normalization_b=None,
        train_ds=train,
        valid_ds=valid,
    )


@dataclass(frozen=True, kw_only=True)
class PairPrediction:
    """A change mask with what it was made from.

    Parameters
    ----------
    mask
        uint8 (H, W): class values, and ``nodata``.
    """

    before: RasterSource
    blocks: tuple[RasterBlock, RasterBlock]
    mask: np.ndarray
    classes: ClassTable
    nodata: int

    def save(self) -> Path:
        """Write the mask as a COG to the working folder; replaces an older one."""
        path = Path(f"{Path(self.before.name).stem}_change.tif").absolute()
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            store = RegionStore.create(
                Path(folder) / "regions.zarr",
                shape=(1, *self.mask.shape),
                chunk=_CHUNK_PX,
                dtype=self.mask.dtype,
                fill=self.nodata,
                grid=self.before.grid,
                band_names=("Class",),
            )
            store.write(self.before.grid.window, self.mask[None])
            return write_raster(store, path, classes=self.classes)

    def show(self) -> ShownFigure:
        """Both images and the mask side by side."""
        figure = new_figure(3 * _PANEL_IN, _PANEL_IN)
        axes = figure.subplots(1, 3)
        pictures = [
            to_picture(block.data, block.mask, str(block.data.dtype)) for block in self.blocks
        ]
        for one, picture, title in zip(axes, pictures, ("before", "after"), strict=False):
            one.imshow(picture)
            one.set_title(title)
        index = np.where(self.mask == self.nodata, 0, self.mask != 0).astype(np.int64)
        overlay(axes[2], index, self.classes, pictures[1])
        axes[2].set_title("change")
        for one in axes:
            one.set(xticks=[], yticks=[])
        return show(figure)


def classify_pair(
    net: nn.Module,
    task: PixelTask,
    contract: ModelContract,
    before_image: Any,
    after_image: Any,
    *,
    crop: bool,
) -> PairPrediction:
    """Run a network of pairs over two images of the same pixels.

    Parameters
    ----------
    crop
        Tiles of the training size, cropped to their cores; else the whole image at once.

    Raises
    ------
    ModelDataError
        Sizes that differ, or other bands than in training.
    """
    before, after = open_source(before_image), open_source(after_image)
    _check_pair(before, after, contract)
    whole = before.grid.window
    blocks = (before.read(whole), after.read(whole))
    stack = clean_block(
        RasterBlock(
            np.concatenate([block.data for block in blocks]), blocks[0].mask & blocks[1].mask
        )
    )
    index = _classes_of(net, task, contract, stack, before, crop)
    dtype, nodata = contract.classes.raster_dtype()
    mask = contract.classes.value_of_index().astype(dtype)[index]
    mask[~stack.mask] = nodata
    return PairPrediction(
        before=before, blocks=blocks, mask=mask, classes=contract.classes, nodata=nodata
    )


def _check_pair(before: RasterSource, after: RasterSource, contract: ModelContract) -> None:
    if before.grid.shape != after.grid.shape:
        raise ModelDataError(
            f"{before.name} has {before.grid.height} x {before.grid.width} pixels, {after.name} "
            f"{after.grid.height} x {after.grid.width}; predict() needs the same pixels. "
            "detect_change_using_deep_learning() brings images onto one grid."
        )
    bands = contract.source_bands // 2
    for source in (before, after):
        if source.count != bands:
            raise ModelDataError(
                f"{source.name} has {source.count} bands; {contract.model_name} was trained on "
                f"{bands} in each image."
            )


def _classes_of(
    net: nn.Module,
    task: PixelTask,
    contract: ModelContract,
    stack: RasterBlock,
    before: RasterSource,
    crop: bool,
) -> np.ndarray:
    """int64 (H, W) of network outputs."""

    def call(net: nn.Module, x: Tensor) -> Tensor:
        return task.logits(net, x).argmax(dim=1).cpu()

    net.eval()
    device = str(net_device(net))
    runner = TileRunner(net, contract.normalization, batch=1, device=device)
    if not crop:
        ((_, found),) = runner.run(iter([(None, stack.data)]), call)
        return np.asarray(found)
    plan = TilePlan.make(before.grid, tile_px=contract.tile_px, padding_px=contract.tile_px // 4)
    index = np.zeros(stack.mask.shape, np.int64)
    pad, frame = plan.padding_px, before.grid.window
    for window, tile in runner.run(_tiles(plan, stack), call):
        owned = window.pad(-pad)
        part = owned.intersect(frame)
        inside = tile[pad : tile.shape[-1] - pad, pad : tile.shape[-1] - pad]
        index[part.within(frame)] = torch.as_tensor(inside).numpy()[part.within(owned)]
    return index


def _tiles(plan: TilePlan, stack: RasterBlock) -> Iterator[tuple[Window, np.ndarray]]:
    for spec in plan.blocks():
        i0, i1, j0, j1 = spec.tiles
        for i in range(i0, i1):
            for j in range(j0, j1):
                window = plan.tile_window(i, j)
                yield window, cut_tile(stack, plan.grid.window, window)[0]
