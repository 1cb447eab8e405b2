"""Class rasters and score rasters, block by block."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from geodl.bundle import LoadedModel, load_model
from geodl.core.blocks import RasterBlock
from geodl.core.grid import Window
from geodl.core.plan import BlockSpec
from geodl.infer.augment import Policy, merged_scores, symmetries
from geodl.infer.tiled import TiledBlocks
from geodl.infer.tiles import Precision
from geodl.io.regions import RegionStore
from geodl.ops.edges import thin

Output = Literal["classes", "scores"]
# A threshold of 0 or 1 would multiply by 0 or infinity.
_LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelOptions:
    """How a pixel model is run; all of it changes the result.

    Parameters
    ----------
    predict_background
        False gives the best class other than background everywhere.
    augment
        Mean over the symmetries of the square, merged by ``policy``.
    output
        ``classes``: class values. ``scores``: float32, one band per network output.
    threshold
        Probability that the classes need against background; the best wins at one half.
    thinning
        Of class values keep the centre lines, tile by tile: cropped tiles only.
    precision
        Of the network's layers.
    """

    predict_background: bool = True
    augment: bool = False
    policy: Policy = "mean"
    output: Output = "classes"
    threshold: float = 0.5
    thinning: bool = False
    precision: Precision = "float32"

    def answer(self) -> dict[str, Any]:
        return {
            "predict_background": self.predict_background,
            "augment": self.augment,
            "policy": self.policy if self.augment else "mean",
            "output": self.output,
            "threshold": self.threshold,
            "thinning": self.thinning,
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }

    def odds(self) -> float:
        """What the background's score is multiplied by before the best class is taken."""
        share = min(max(self.threshold, _LEAST_SHARE), 1 - _LEAST_SHARE)
        return share / (1 - share)


@dataclass(frozen=True, kw_only=True)
class PixelBlocks(TiledBlocks):
    """What a block of a pixel model's product holds; nodata where there is no result.

    Parameters
    ----------
    store
        Path of the region store that :meth:`write` fills.
    """

    options: PixelOptions
    store: str | None = None

    def empty(self, spec: BlockSpec, model: LoadedModel) -> np.ndarray:
        """(bands, H, W) of the core, all nodata."""
        classes = model.contract.classes
        shape = (spec.core.height, spec.core.width)
        if self.options.output == "scores":
            return np.full((len(classes) + 1, *shape), np.nan, np.float32)
        dtype, nodata = classes.raster_dtype()
        return np.full((1, *shape), nodata, dtype)

    def compute(
        self, spec: BlockSpec, block: RasterBlock
    ) -> tuple[np.ndarray | None, dict[str, float]]:
        """(bands, H, W) of the core in the product's dtype, or None where all is nodata.

        Also seconds by stage.
        """
        valid = self.valid(spec, block)
        if not valid.any():
            return None, {}
        model = load_model(self.model, self.device)
        mosaic = _Mosaic.make(self, spec, valid, model)
        runner = self._runner(model)
        merge_s = 0.0
        # Tiles that reach a valid pixel of the core.
        tiles = self._tiles(spec, block, mosaic.wants)
        for window, result in runner.run(tiles, self._call(model)):
            before = time.perf_counter()
            mosaic.place(window, result)
            merge_s += time.perf_counter() - before
        before = time.perf_counter()
        out = self.empty(spec, model)
        mosaic.finish(out, valid)
        merge_s += time.perf_counter() - before
        return out, {"model": runner.busy_s, "merge": merge_s}

    def write(
        self, spec: BlockSpec, computed: tuple[np.ndarray | None, dict[str, float]]
    ) -> tuple[dict[str, Any], bytes]:
        """Write the core into the region store; an empty block is left as the store was made."""
        out, seconds = computed
        if out is None:
            return {"skipped": True}, b""
        store = RegionStore.open(self.store or "")
        # Whole chunks: the store begins on a chunk's edge, which may lie outside the extent.
        frame = self.plan.store_window
        whole = self.plan.block_window(spec).intersect(frame)
        if whole != spec.core:
            padded = np.full((len(out), whole.height, whole.width), store.fill, out.dtype)
            padded[(slice(None), *spec.core.within(whole))] = out
            out = padded
        store.write(whole.shift(-frame.row, -frame.col), out)
        return {"seconds": seconds}, b""

    def _call(self, model: LoadedModel) -> Any:
        """The function of a batch: class indices where they are enough, else scores."""
        options, task = self.options, model.task
        turns = symmetries(model.contract.image_space)
        as_index = self.plan.merge == "crop" and options.output == "classes"
        pad = self.plan.padding_px
        first = 0 if options.predict_background else 1

        def call(net: nn.Module, x: Tensor) -> Tensor:
            if options.augment:
                scores = merged_scores(lambda t: task.scores(net, t), x, turns, options.policy)
            else:
                # The largest logit is the class; a softmax would cost as much as a small network.
                scores = task.logits(net, x) if as_index else task.scores(net, x)
            thinning = as_index and options.thinning
            if self.plan.merge == "crop" and not thinning:
                scores = _cropped(scores, pad)
            if not as_index:
                return scores
            scores = _against_background(scores, options.odds(), logits=not options.augment)
            # torch reduces over channels ten times faster where they lie side by side.
            scores = scores[:, first:].contiguous(memory_format=torch.channels_last)
            return (scores.max(dim=1).indices + first).to(torch.int16)

        return call


def _cropped(tiles: Tensor, pad: int) -> Tensor:
    return tiles[..., pad:-pad, pad:-pad] if pad else tiles


def _against_background(scores: Tensor, odds: float, *, logits: bool) -> Tensor:
    """Scores (B, K + 1, H, W), background's times ``odds``."""
    if odds == 1:
        return scores
    first, rest = scores[:, :1], scores[:, 1:]
    return torch.cat([first + math.log(odds) if logits else first * odds, rest], dim=1)


def _thinned(index: Tensor) -> Tensor:
    """int16 (H, W), 0 but for the centre lines of what is not 0."""
    return index * torch.from_numpy(thin((index != 0).numpy()))


class _Mosaic(ABC):
    """Tiles of one block put together."""

    def __init__(self, job: PixelBlocks, spec: BlockSpec, valid: np.ndarray) -> None:
        self.job, self.spec, self.valid = job, spec, valid

    @staticmethod
    def make(job: PixelBlocks, spec: BlockSpec, valid: np.ndarray, model: LoadedModel) -> _Mosaic:
        if job.plan.merge == "blend":
            return _Blended(job, spec, valid, model)
        if job.options.output == "scores":
            return _CroppedScores(job, spec, valid, model)
        return _CroppedClasses(job, spec, valid, model)

    def _reach(self, i: int, j: int) -> Window:
        """The pixels of the core that tile (i, j) adds to."""
        plan = self.job.plan
        tile = plan.tile_core(i, j) if plan.merge == "crop" else plan.tile_window(i, j)
        return tile.intersect(self.spec.core)

    def wants(self, i: int, j: int) -> bool:
        return bool(self.valid[self._reach(i, j).within(self.spec.core)].any())

    @abstractmethod
    def place(self, window: Window, result: Tensor) -> None:
        """Take in one tile: the result of :meth:`PixelBlocks._call` for its window."""

    @abstractmethod
    def finish(self, out: np.ndarray, valid: np.ndarray) -> None:
        """Write the block's values into ``out`` (bands, H, W) where ``valid``."""


class _CroppedClasses(_Mosaic):
    """Class indices, each pixel from the tile that owns it."""

    def __init__(
        self, job: PixelBlocks, spec: BlockSpec, valid: np.ndarray, model: LoadedModel
    ) -> None:
        super().__init__(job, spec, valid)
        self.lookup = model.contract.classes.value_of_index()
        self.index = np.zeros((spec.core.height, spec.core.width), np.int16)

    def place(self, window: Window, result: Tensor) -> None:
        pad = self.job.plan.padding_px
        owned = window.pad(-pad)
        part = owned.intersect(self.spec.core)
        if self.job.options.thinning:
            # With the padding around it, so that lines go on across tiles.
            result = _cropped(_thinned(result), pad)
        self.index[part.within(self.spec.core)] = result.numpy()[part.within(owned)]

    def finish(self, out: np.ndarray, valid: np.ndarray) -> None:
        np.copyto(out[0], self.lookup.astype(out.dtype)[self.index], where=valid)


class _CroppedScores(_Mosaic):
    """Scores, each pixel from the tile that owns it."""

    def __init__(
        self, job: PixelBlocks, spec: BlockSpec, valid: np.ndarray, model: LoadedModel
    ) -> None:
        super().__init__(job, spec, valid)
        outputs = len(model.contract.classes) + 1
        self.scores = np.zeros((outputs, spec.core.height, spec.core.width), np.float32)

    def place(self, window: Window, result: Tensor) -> None:
        owned = window.pad(-self.job.plan.padding_px)
        part = owned.intersect(self.spec.core)
        target = (slice(None), *part.within(self.spec.core))
        self.scores[target] = result.numpy()[(slice(None), *part.within(owned))]

    def finish(self, out: np.ndarray, valid: np.ndarray) -> None:
        np.copyto(out, self.scores, where=valid)


class _Blended(_Mosaic):
    """Scores weighted by a Hann window over each tile; tiles add up in row order, so repeatable."""

    def __init__(
        self, job: PixelBlocks, spec: BlockSpec, valid: np.ndarray, model: LoadedModel
    ) -> None:
        super().__init__(job, spec, valid)
        shape = (spec.core.height, spec.core.width)
        self.lookup = model.contract.classes.value_of_index()
        self.total = np.zeros((len(model.contract.classes) + 1, *shape), np.float32)
        self.weight = np.zeros(shape, np.float32)
        side = np.arange(job.plan.tile_px, dtype=np.float64) + 0.5
        hann = np.sin(np.pi * side / job.plan.tile_px) ** 2
        self.window = np.outer(hann, hann).astype(np.float32)

    def place(self, window: Window, result: Tensor) -> None:
        part = window.intersect(self.spec.core)
        inside = part.within(window)
        target = part.within(self.spec.core)
        self.total[(slice(None), *target)] += (
            result.numpy()[(slice(None), *inside)] * self.window[inside]
        )
        self.weight[target] += self.window[inside]

    def finish(self, out: np.ndarray, valid: np.ndarray) -> None:
        weight = np.maximum(self.weight, np.finfo(np.float32).tiny)
        scores = np.divide(self.total, weight, out=self.total)
        if self.job.options.output == "scores":
            np.copyto(out, scores, where=valid)
            return
        scores[0] *= self.job.options.odds()
        first = 0 if self.job.options.predict_background else 1
        index = scores[first:].argmax(0) + first
        np.copyto(out[0], self.lookup.astype(out.dtype)[index], where=valid)
