"""Objects pixel by pixel: RCNN_Masks and COCO_instances."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.core.grid import Window
from geodl.data.builder import ChipBuilder
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.targets import TargetKind, nearest_index


class InstanceMasks(ChipBuilder):
    """Chips whose labels are masks of objects.

    An item's ``target`` is ``{"masks": bool (N, H, W), "boxes": float32 (N, 4) x0, y0, x1, y1 in
    pixel edges around the masks, "labels": int64 (N,) 1..K}``; masks may overlap.
    """

    kind: ClassVar[TaskKind] = "instances"
    keywords = CHIP_KEYWORDS | {"stratify"}

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return InstanceTargets(classes)


class InstanceTargets:
    """Masks; encoded as (bits uint8 (N, ceil(H * W / 8)), labels int64 (N,), int64 [H, W])."""

    def __init__(self, classes: ClassTable) -> None:
        self.index_by_value = {v: i for v, i in classes.index_by_value.items() if v != 0}

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> Any:
        masks = np.asarray(label.masks, bool)
        if masks.shape[1:] != shape_yx:
            raise FormatError(
                f"{where} has {masks.shape[1]} x {masks.shape[2]} pixels (rows x columns), its "
                f"image {shape_yx[0]} x {shape_yx[1]}. Export the chip again."
            )
        unknown = sorted(set(label.values.tolist()) - self.index_by_value.keys())
        if unknown:
            raise FormatError(
                f"{where} holds the class value {', '.join(map(str, unknown))}; the classes are "
                f"{', '.join(map(str, self.index_by_value))}. Correct the label, or add the class."
            )
        labels = np.array([self.index_by_value[v] for v in label.values.tolist()], np.int64)
        return self._packed(masks), labels, np.array(shape_yx, np.int64)

    @staticmethod
    def _packed(masks: np.ndarray) -> np.ndarray:
        return np.packbits(masks.reshape(len(masks), -1), axis=1)

    @staticmethod
    def _unpacked(encoded: Any) -> np.ndarray:
        bits, _, (height, width) = encoded
        flat = np.unpackbits(bits, axis=1, count=int(height * width)).astype(bool)
        return flat.reshape(len(bits), int(height), int(width))

    def resized(self, encoded: Any, scale_yx: tuple[float, float]) -> Any:
        masks, labels = self._unpacked(encoded), encoded[1]
        height, width = masks.shape[1:]
        size = round(height * scale_yx[0]), round(width * scale_yx[1])
        rows = nearest_index(0, height, size[0], height)
        cols = nearest_index(0, width, size[1], width)
        small = masks[:, rows[:, None], cols]
        kept = small.any(axis=(1, 2))
        return self._packed(small[kept]), labels[kept], np.array(size, np.int64)

    def cut(self, encoded: Any, window: Window, side_px: int, visible: float) -> dict[str, Any]:
        masks, labels = self._unpacked(encoded), encoded[1]
        height, width = masks.shape[1:]
        rows = nearest_index(window.row, window.height, side_px, height)
        cols = nearest_index(window.col, window.width, side_px, width)
        part = masks[:, rows[:, None], cols]
        # Beyond a chip that is smaller than the item there is no object.
        inside = np.outer(
            _within(window.row, window.height, side_px, height),
            _within(window.col, window.width, side_px, width),
        )
        part &= inside
        zoom = (window.height * window.width) / side_px**2
        left = part.sum(axis=(1, 2)) * zoom
        kept = part.any(axis=(1, 2)) & (left >= visible * masks.sum(axis=(1, 2)))
        return {
            "masks": tv_tensors.Mask(torch.from_numpy(part[kept])),
            "labels": torch.from_numpy(labels[kept]),
        }

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> dict[str, Tensor]:
        masks, labels = sample["masks"].as_subclass(Tensor).bool(), sample["labels"].long()
        if valid is not None:
            masks = masks & valid
        kept = masks.flatten(1).any(dim=1)
        masks = masks[kept].contiguous()
        return {"masks": masks, "boxes": boxes_around(masks), "labels": labels[kept]}


def _within(start: int, length: int, side_px: int, limit: int) -> np.ndarray:
    """bool (side_px,): target pixels whose centre lies in the chip."""
    positions = start + (np.arange(side_px) + 0.5) * (length / side_px)
    return (positions >= 0) & (positions < limit)


def boxes_around(masks: Tensor) -> Tensor:
    """float32 (N, 4): x0, y0, x1, y1 in pixel edges around bool (N, H, W), none of them empty."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, cols = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        box[:] = torch.tensor([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1])
    return boxes
