"""Labels of chips around features, block by block."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from affine import Affine
from PIL import Image
from torch import Tensor, nn

from geodl.bundle import LoadedModel, ModelRef, load_model
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.contract import ChipCut
from geodl.core.grid import Window
from geodl.infer.augment import merged_scores, symmetries
from geodl.infer.chips import ChipPlan, ChipSpec, reduction
from geodl.infer.probe import probe_inputs
from geodl.infer.tiles import TileRunner, clean_block
from geodl.io.ground import Ground, read_ground
from geodl.io.raster_view import read_padded
from geodl.nets.resize import resized_chip
from geodl.nets.tile_net import activation_maps
from geodl.ops.labels import outside_part, parts_inside, to_pixels

# Rows of a chip that is reduced while it is read, as many pixels at once.
_STRIP_PX = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """How a classifier of chips is run; all of it changes the result.

    Parameters
    ----------
    threshold
        Least score, 0..1, of a class where chips have several.
    augment
        Mean over the symmetries of the square.
    explain
        Also give a picture of what spoke for the best class.
    """

    threshold: float = 0.5
    augment: bool = False
    explain: bool = False

    def answer(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "augment": self.augment,
            **({"explain": True} if self.explain else {}),
        }


@dataclass(frozen=True, slots=True)
class Label:
    """What a chip was taken for.

    Parameters
    ----------
    names
        Classes, best first.
    scores
        0..1, one per name.
    picture
        PNG of the chip as the network sees it, 8 bits, 255 where it speaks most for the best
        class; nothing unless it was asked for.
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    picture: bytes = b""


@dataclass(frozen=True, eq=False)
class ChipGround:
    """What was read for the chips of a block: most from common ground, large ones reduced."""

    ground: Ground | None
    places: Mapping[int, int]
    reduced: Mapping[int, RasterBlock]


@dataclass(frozen=True, kw_only=True)
class LabelBlocks:
    """The label of the chip around each feature of a block.

    A BlockTask that keeps its result in the ledger: nothing else is written.
    """

    source: RasterSource
    model: ModelRef
    cut: ChipCut
    tile_px: int
    options: LabelOptions
    batch: int
    device: str

    def probe(self) -> None:
        probe_inputs(self.source, self.model, self.device)

    def read(self, spec: ChipSpec) -> ChipGround:
        windows = [spec.window(k) for k in range(len(spec.rows))]
        large = {k for k, w in enumerate(windows) if reduction(w, self.tile_px) > 1}
        small = [k for k in range(len(windows)) if k not in large]
        ground = None
        if small:
            ground = read_ground(partial(read_padded, self.source), [windows[k] for k in small])
        return ChipGround(
            ground,
            {k: place for place, k in enumerate(small)},
            {k: read_reduced(self.source, windows[k], self.tile_px) for k in sorted(large)},
        )

    def compute(self, spec: ChipSpec, loaded: ChipGround) -> tuple[list[tuple[int, Label]], float]:
        """(row, label) of each feature, and the seconds that network and cutting took."""
        model = load_model(self.model, self.device)
        runner = TileRunner(
            model.net, model.contract.normalization, batch=self.batch, device=self.device
        )
        started = time.perf_counter()
        found = list(runner.run(self._chips(spec, loaded), describer(model, self.options)))
        return found, time.perf_counter() - started

    def write(
        self, spec: ChipSpec, computed: tuple[list[tuple[int, Label]], float]
    ) -> tuple[dict[str, Any], bytes]:
        found, model_s = computed
        rows = [[row, label.names, label.scores, *_as_text(label.picture)] for row, label in found]
        payload = json.dumps(rows, separators=(",", ":"), allow_nan=False).encode()
        return {"found": len(rows), "seconds": {"model": model_s}}, payload

    def _chips(self, spec: ChipSpec, loaded: ChipGround) -> Iterator[tuple[int, np.ndarray]]:
        for position, row in enumerate(spec.rows.tolist()):
            window = spec.window(position)
            block = loaded.reduced.get(position)
            if block is None and loaded.ground is not None:
                block = loaded.ground.cut(loaded.places[position], window)
            if block is None:
                continue
            shape = None if spec.shapes is None else spec.shapes[position : position + 1]
            black = self.source.nodata == 0
            yield row, network_chip(block, window, self.tile_px, shape, black_is_empty=black)


def from_payload(payload: bytes) -> list[tuple[int, Label]]:
    """The (row, label) pairs of a block."""
    return [
        (row, Label(tuple(names), tuple(scores), *map(base64.b64decode, picture)))
        for row, names, scores, *picture in json.loads(payload)
    ]


def _as_text(picture: bytes) -> list[str]:
    return [base64.b64encode(picture).decode()] if picture else []


def network_chip(
    block: RasterBlock,
    window: Window,
    tile_px: int,
    shape: np.ndarray | None = None,
    *,
    black_is_empty: bool = False,
) -> np.ndarray:
    """A chip's pixels as the network was trained on them.

    Parameters
    ----------
    block
        (C, H, W) raw pixels of the window, or fewer where it was reduced.
    window
        Of the raster.
    tile_px
        Side of the network's tile.
    shape
        object (1,): the feature in pixels of the raster, around which pixels become 0; None:
        all pixels count.
    black_is_empty
        Whether 0 says that there is no data, as it then did in the chips of training.

    Returns
    -------
    (C, tile_px, tile_px) in the block's dtype, 0 where there is no data.
    """
    size = block.mask.shape
    if shape is not None:
        part = parts_inside(shape, window)
        scale = window.height / size[0], window.width / size[1]
        if scale != (1.0, 1.0):
            part = to_pixels(part, Affine.scale(scale[1], scale[0]))
        outside = outside_part(part, size)
        data = np.where(outside, block.data.dtype.type(0), block.data)
        block = RasterBlock(data, block.mask & ~outside if black_is_empty else block.mask)
    if size != (tile_px, tile_px):
        valid = None if block.mask.all() else block.mask
        data, valid = resized_chip(block.data, valid, (tile_px, tile_px))
        mask = np.ones((tile_px, tile_px), bool) if valid is None else valid
        block = RasterBlock(data, mask)
    return clean_block(block).data


def read_reduced(source: RasterSource, window: Window, tile_px: int) -> RasterBlock:
    """A very large chip, averaged over whole pixels strip by strip while it is read.

    Parameters
    ----------
    window
        May leave the raster.

    Returns
    -------
    (C, H / f, W / f) in the source's dtype, where f is :func:`geodl.infer.chips.reduction`: the
    mean of the valid pixels of each f x f; rows and columns that fill no such square are left out.
    """
    factor = reduction(window, tile_px)
    rows, cols = window.height // factor, window.width // factor
    data = np.zeros((source.count, rows, cols), source.dtype)
    mask = np.zeros((rows, cols), bool)
    step = max(1, _STRIP_PX // (window.width * factor))
    for top in range(0, rows, step):
        count = min(step, rows - top)
        strip = Window(
            row=window.row + top * factor, col=window.col,
            height=count * factor, width=cols * factor,
        )  # fmt: skip
        block = clean_block(read_padded(source, strip))
        valid = block.mask.reshape(count, factor, cols, factor).sum(axis=(1, 3))
        shape = (source.count, count, factor, cols, factor)
        mean = block.data.reshape(shape).sum(axis=(2, 4), dtype=np.float64) / np.maximum(valid, 1)
        if source.dtype.kind in "iu":
            mean = np.rint(mean)
        data[:, top : top + count] = mean.astype(source.dtype)
        mask[top : top + count] = valid > 0
    return RasterBlock(data, mask)


def describer(
    model: LoadedModel, options: LabelOptions
) -> Callable[[nn.Module, Tensor], list[Label]]:
    """What gives one label per chip of a batch; tasks with a ``describe`` of their own do it."""
    task = model.task
    if hasattr(task, "describe"):
        return partial(_described, task)
    turns = symmetries(model.contract.image_space)
    names = model.contract.classes.names

    def call(net: nn.Module, x: Tensor) -> list[Label]:
        def one(turned: Tensor) -> Tensor:
            found: Tensor = task.scores(net, turned)
            return found[:, :, None, None]

        found = one(x) if not options.augment else merged_scores(one, x, turns, "mean")
        rows = found[:, :, 0, 0].float().cpu().numpy()
        pictures = _pictures(net, x, rows.argmax(axis=1)) if options.explain else [b""] * len(rows)
        labels = []
        for row, picture in zip(rows, pictures, strict=True):
            places = task.decode(row, options.threshold)
            scores = tuple(float(row[k]) for k in places)
            labels.append(Label(tuple(names[k] for k in places), scores, picture))
        return labels

    return call


def _pictures(net: Any, x: Tensor, outputs: np.ndarray) -> list[bytes]:
    """Grad-CAM of each image for one output, as PNG."""
    # Gradients need tensors that were not made in inference mode.
    with torch.inference_mode(mode=False):
        heat = activation_maps(net, x.clone(), torch.as_tensor(outputs, device=x.device))
    return [_png(one) for one in (255 * heat).round().to(torch.uint8).cpu().numpy()]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _described(task: Any, net: nn.Module, x: Tensor) -> list[Label]:
    return [Label((text,), (float(score),)) for text, score in task.describe(net, x)]


def label_all(task: LabelBlocks, plan: ChipPlan) -> dict[int, Label]:
    """Labels by the feature's position in the layer, of all blocks one after another, here."""
    found: dict[int, Label] = {}
    for spec in plan.blocks():
        found.update(task.compute(spec, task.read(spec))[0])
    return found
