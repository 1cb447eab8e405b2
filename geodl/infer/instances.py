"""Instances: masks of objects tile by tile, merged over the symmetries of the square if wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from torch import Tensor, nn

from geodl.bundle import LoadedModel
from geodl.core.blocks import RasterBlock
from geodl.core.detections import Detections
from geodl.core.grid import Window
from geodl.core.plan import BlockSpec
from geodl.infer.augment import Policy, Symmetry, symmetries, turn, turn_boxes_back
from geodl.infer.objects import ObjectBlocks
from geodl.infer.ownership import centres, owned
from geodl.infer.tiles import Precision
from geodl.ops.boxes import iou_matrix
from geodl.ops.polygons import Polygonizer
from geodl.tasks.base import Batch
from geodl.tasks.instances import MASK_THRESHOLD, Instances, InstanceTask

# IoU of the boxes of two sights of one object.
_SAME = 0.5
_POLICIES: dict[Policy, Callable[..., np.ndarray]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOptions:
    """How an instance model is run; all of it changes the result.

    Parameters
    ----------
    threshold
        Least score, 0..1.
    nms_overlap
        Largest IoU of two masks of one class that are both kept.
    outlines
        What becomes of a mask: its outline, its bounds, or the smallest turned rectangle.
    augment, policy
        Merge masks over the symmetries of the square, and how.
    precision
        Of the network's layers.
    """

    threshold: float = 0.9
    nms_overlap: float = 0.1
    outlines: str = "mask"
    augment: bool = False
    policy: Policy = "mean"
    precision: Precision = "float32"

    def answer(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "nms_overlap": self.nms_overlap,
            "outlines": self.outlines,
            "augment": self.augment,
            "policy": self.policy if self.augment else "mean",
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }


class AugmentedInstances(InstanceTask):
    """An instance task that sees each image in all symmetries and merges what it finds."""

    def __init__(self, task: InstanceTask, image_space: str, policy: Policy = "mean") -> None:
        super().__init__(task.classes, **task.options)
        self.turns = symmetries(image_space)
        self.policy = policy

    def instances(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Instances]:
        seen: list[list[Instances]] = [[] for _ in range(len(x))]
        for symmetry in self.turns:
            turned = turn(x, symmetry).contiguous()
            found = super().instances(net, turned, threshold=threshold, nms_overlap=nms_overlap)
            for parts, one in zip(seen, found, strict=True):
                parts.append(_turned_back(one, symmetry, x.shape[-2], x.shape[-1]))
        return [merged(parts, nms_overlap, self.policy) for parts in seen]

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        found = self.instances(
            net, batch["image"], threshold=self.threshold, nms_overlap=self.nms_overlap
        )
        return {**super().validate(net, batch), "state": found}


def _turned_back(one: Instances, symmetry: Symmetry, height: int, width: int) -> Instances:
    transpose, rows, cols = symmetry
    axes = tuple(axis for axis, flip in ((1, rows), (2, cols)) if flip)
    masks = np.flip(one.masks, axes) if axes else one.masks
    masks = masks.transpose(0, 2, 1) if transpose else masks
    boxes = turn_boxes_back(one.found.boxes, symmetry, height, width)
    return Instances(Detections(boxes, one.found.scores, one.found.labels), masks)


def merged(parts: Sequence[Instances], nms_overlap: float, policy: Policy) -> Instances:
    """Objects of several sights of an image; the masks of one object are merged by the policy."""
    every = Instances(
        Detections.concatenate([part.found for part in parts]),
        np.concatenate([part.masks for part in parts]),
    )
    kept = every.suppressed(nms_overlap)
    if not len(kept):
        return kept
    same = iou_matrix(kept.found.boxes, every.found.boxes) >= _SAME
    same &= kept.found.labels[:, None] == every.found.labels[None]
    masks = [_POLICIES[policy](every.masks[row], axis=0) for row in same]
    return Instances(kept.found, np.stack(masks).astype(np.float32))


@dataclass(frozen=True, slots=True)
class FoundInstances:
    """Outlines of instances in pixels of the raster.

    Parameters
    ----------
    outlines
        object (N,): polygons in pixel edges.
    scores, labels
        float32 (N,) and int64 (N,).
    tiles
        float64 (N, 4): x0, y0, x1, y1 of the tile that saw each.
    cut
        bool (N,): an edge of the tile cuts it.
    """

    outlines: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tiles: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.outlines)

    @classmethod
    def none(cls) -> FoundInstances:
        found = Detections.none()
        return cls(np.zeros(0, object), found.scores, found.labels, found.boxes, np.zeros(0, bool))

    @classmethod
    def concatenate(cls, parts: Sequence[FoundInstances]) -> FoundInstances:
        whole = [cls.none(), *parts]
        names = ("outlines", "scores", "labels", "tiles", "cut")
        return cls(*(np.concatenate([getattr(part, name) for part in whole]) for name in names))

    def take(self, which: np.ndarray) -> FoundInstances:
        return FoundInstances(
            self.outlines[which],
            self.scores[which],
            self.labels[which],
            self.tiles[which],
            self.cut[which],
        )

    def to_payload(self) -> bytes:
        """Arrays as numpy's own archive, the outlines as WKB behind one another."""
        codes = shapely.to_wkb(self.outlines)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            wkb=np.frombuffer(b"".join(codes), np.uint8),
            lengths=np.array([len(code) for code in codes], np.int64),
            scores=self.scores,
            labels=self.labels,
            tiles=self.tiles,
            cut=self.cut,
        )
        return buffer.getvalue()

    @classmethod
    def from_payload(cls, payload: bytes) -> FoundInstances:
        if not payload:
            return cls.none()
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            content = stored["wkb"].tobytes()
            stops = np.cumsum(stored["lengths"]).tolist()
            codes = [content[a:b] for a, b in zip([0, *stops], stops, strict=False)]
            outlines = np.array([shapely.from_wkb(code) for code in codes], object)
            return cls(outlines, stored["scores"], stored["labels"], stored["tiles"], stored["cut"])


@dataclass(frozen=True, kw_only=True)
class InstanceBlocks(ObjectBlocks):
    """Instances whose middle lies in a block's core; see :class:`geodl.infer.objects.ObjectBlocks`.

    An object that an edge of a tile cuts is kept, with its tile: the run joins such parts when all
    blocks are done.
    """

    options: InstanceOptions = field(default_factory=InstanceOptions)  # type: ignore[assignment]

    def compute(  # type: ignore[override]  # outlines instead of boxes
        self, spec: BlockSpec, block: RasterBlock
    ) -> tuple[FoundInstances | None, float]:
        parts, model_s = self._parts(spec, block, self._outlined)
        return None if parts is None else FoundInstances.concatenate(parts), model_s

    def write(  # type: ignore[override]
        self, spec: BlockSpec, computed: tuple[FoundInstances | None, float]
    ) -> tuple[dict[str, Any], bytes]:
        found, model_s = computed
        if found is None:
            return {"skipped": True}, b""
        return {"found": len(found), "seconds": {"model": model_s}}, found.to_payload()

    def _call(self, model: LoadedModel) -> Any:
        options, task = self.options, model.task
        if options.augment:
            task = AugmentedInstances(task, model.contract.image_space, options.policy)

        def call(net: nn.Module, x: Tensor) -> list[Instances]:
            found: list[Instances] = task.instances(
                net, x, threshold=options.threshold, nms_overlap=options.nms_overlap
            )
            return found

        return call

    def _outlined(
        self, found: Instances, window: Window, spec: BlockSpec, valid: np.ndarray
    ) -> FoundInstances:
        """What one tile found that belongs to it, in pixels of the raster."""
        core = window.pad(-self.plan.padding_px).intersect(spec.core)
        frame = self.plan.grid.window
        # Their positions instead of labels, to find the masks again.
        numbered = Detections(found.found.boxes, found.found.scores, np.arange(len(found)))
        mine, cut = owned(numbered, window, core, frame)
        col, row = centres(mine.boxes)
        alive = valid[row.astype(int) - spec.core.row, col.astype(int) - spec.core.col]
        chosen, cut = mine.labels[alive], cut[alive]
        inside = window.intersect(frame).within(window)
        masks = found.masks[chosen] >= MASK_THRESHOLD
        origin = window.intersect(frame)
        outlines = np.array([outline(m[inside], origin.row, origin.col) for m in masks], object)
        some = np.array([shape is not None for shape in outlines], bool)
        edges = [origin.col, origin.row, origin.col_stop, origin.row_stop]
        return FoundInstances(
            outlines[some],
            found.found.scores[chosen][some],
            found.found.labels[chosen][some],
            np.tile(np.array(edges, np.float64), (int(some.sum()), 1)),
            cut[some],
        )


def outline(mask: np.ndarray, row: int, col: int) -> shapely.Geometry | None:
    """The outline of a mask bool (H, W) whose first pixel lies at ``row``, ``col``; None of none.

    Parts that do not touch make a MultiPolygon.
    """
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    part = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    height, width = part.shape
    tracer = Polygonizer(height, width)
    tracer.add(part.astype(np.int32), part, Window(row=0, col=0, height=height, width=width))
    found = shapely.get_parts(tracer.finish().polygons)
    shape = found[0] if len(found) == 1 else shapely.multipolygons(found)
    origin = np.array([col + cols[0], row + rows[0]], np.float64)
    return shapely.transform(shape, lambda xy: xy + origin)
