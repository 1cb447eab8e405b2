"""Detections, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geodl.bundle import LoadedModel, load_model
from geodl.core.blocks import RasterBlock
from geodl.core.detections import Detections
from geodl.core.grid import Window
from geodl.core.plan import BlockSpec
from geodl.infer.augment import symmetries, turn, turn_boxes_back
from geodl.infer.ownership import centres, owned
from geodl.infer.tiled import TiledBlocks
from geodl.infer.tiles import Precision
from geodl.ops.nms import suppress

Part = TypeVar("Part")

_COLUMNS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOptions:
    """How a detector is run; all of it changes the result.

    Parameters
    ----------
    threshold
        Least score, 0..1.
    nms_overlap
        Largest IoU of two boxes of one class that are both kept.
    exclude_pad_detections
        Drop boxes that a tile's edge cuts; the neighbour sees them whole.
    augment, scales
        Merge detections over the symmetries of the square, and over sizes of the tile.
    precision
        Of the network's layers.
    """

    threshold: float = 0.5
    nms_overlap: float = 0.1
    exclude_pad_detections: bool = True
    augment: bool = False
    scales: tuple[float, ...] = (1.0,)
    precision: Precision = "float32"

    def answer(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "nms_overlap": self.nms_overlap,
            "exclude_pad_detections": self.exclude_pad_detections,
            "augment": self.augment,
            "scales": list(self.scales) if self.augment else [1.0],
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of a block, and boxes that a tile's edge cut.

    Parameters
    ----------
    whole
        Belong to the result.
    cut
        Left out, though their visible centre lies in the block: the neighbour may hold them whole.
    """

    whole: Detections
    cut: Detections

    @classmethod
    def concatenate(cls, parts: Sequence[Found]) -> Found:
        return cls(
            Detections.concatenate([part.whole for part in parts]),
            Detections.concatenate([part.cut for part in parts]),
        )

    def to_payload(self) -> bytes:
        """float64 (N, 6) rows of x0, y0, x1, y1, score, label; cut ones have -label."""
        both = Detections.concatenate([self.whole, self.cut])
        rows = np.empty((len(both), _COLUMNS), "<f8")
        rows[:, :4], rows[:, 4], rows[:, 5] = both.boxes, both.scores, both.labels
        rows[len(self.whole) :, 5] *= -1
        return rows.tobytes()

    @classmethod
    def from_payload(cls, payload: bytes) -> Found:
        rows = np.frombuffer(payload, "<f8").reshape(-1, _COLUMNS)
        both = Detections(
            rows[:, :4].astype(np.float64),
            rows[:, 4].astype(np.float32),
            np.abs(rows[:, 5]).astype(np.int64),
        )
        return cls(both.take(rows[:, 5] > 0), both.take(rows[:, 5] < 0))


@dataclass(frozen=True, kw_only=True)
class ObjectBlocks(TiledBlocks):
    """Detections whose centre lies in a block's core, in pixels of the whole raster.

    A BlockTask that keeps its result in the ledger: nothing else is written.
    """

    options: ObjectOptions

    def compute(self, spec: BlockSpec, block: RasterBlock) -> tuple[Found | None, float]:
        """Detections, or None where nothing is valid, and the seconds the model took."""
        parts, model_s = self._parts(spec, block, self._owned)
        return None if parts is None else Found.concatenate(parts), model_s

    def write(
        self, spec: BlockSpec, computed: tuple[Found | None, float]
    ) -> tuple[dict[str, Any], bytes]:
        found, model_s = computed
        if found is None:
            return {"skipped": True}, b""
        return {"found": len(found.whole), "seconds": {"model": model_s}}, found.to_payload()

    def _parts(
        self,
        spec: BlockSpec,
        block: RasterBlock,
        take: Callable[[Any, Window, BlockSpec, np.ndarray], Part],
    ) -> tuple[list[Part] | None, float]:
        """What ``take`` makes of each tile's objects; None where nothing is valid. And seconds."""
        valid = self.valid(spec, block)
        if not valid.any():
            return None, 0.0
        model = load_model(self.model, self.device)

        def wanted(i: int, j: int) -> bool:
            core = self.plan.tile_core(i, j).intersect(spec.core)
            return bool(valid[core.within(spec.core)].any())

        started = time.perf_counter()
        tiles = self._tiles(spec, block, wanted)
        parts = [
            take(found, window, spec, valid)
            for window, found in self._runner(model).run(tiles, self._call(model))
        ]
        return parts, time.perf_counter() - started

    def _call(self, model: LoadedModel) -> Any:
        options, task = self.options, model.task
        keep = {"threshold": options.threshold, "nms_overlap": options.nms_overlap}
        turns = symmetries(model.contract.image_space)

        def call(net: nn.Module, x: Tensor) -> list[Detections]:
            if not options.augment:
                return list(task.detect(net, x, **keep))
            height, width = x.shape[-2:]
            seen: list[list[Detections]] = [[] for _ in range(len(x))]
            for scale in options.scales:
                scaled = x if scale == 1.0 else _resized(x, scale)
                for symmetry in turns:
                    turned = turn(scaled, symmetry).contiguous(memory_format=torch.channels_last)
                    for k, found in enumerate(task.detect(net, turned, **keep)):
                        boxes = turn_boxes_back(found.boxes, symmetry, *scaled.shape[-2:])
                        boxes = boxes * np.array(
                            [width / scaled.shape[-1], height / scaled.shape[-2]] * 2
                        )
                        seen[k].append(Detections(boxes, found.scores, found.labels))
            return [self._merged(parts) for parts in seen]

        return call

    def _merged(self, parts: list[Detections]) -> Detections:
        found = Detections.concatenate(parts)
        return found.take(
            suppress(found.boxes, found.scores, found.labels, self.options.nms_overlap)
        )

    def _owned(
        self, found: Detections, window: Window, spec: BlockSpec, valid: np.ndarray
    ) -> Found:
        """What one tile found that belongs to it, in pixels of the raster."""
        core = window.pad(-self.plan.padding_px).intersect(spec.core)
        found, cut = owned(found, window, core, self.plan.grid.window)
        col, row = centres(found.boxes)
        alive = valid[row.astype(int) - spec.core.row, col.astype(int) - spec.core.col]
        found, cut = found.take(alive), cut[alive]
        if not self.options.exclude_pad_detections:
            return Found(found, Detections.none())
        return Found(found.take(~cut), found.take(cut))


def _resized(x: Tensor, scale: float) -> Tensor:
    size = [max(1, round(side * scale)) for side in x.shape[-2:]]
    return interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
