"""What a chip's label becomes: decoded once, cut and moved with its image, handed to the task."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.core.grid import Window

# As in the export: a part of an object this small in the chip is no label of it.
LEAST_PART_PX = 0.02


class TargetKind(Protocol):
    """How one dataset type turns labels into training targets. Picklable, holds no chips."""

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> Any:
        """The label in network classes, small enough to be cached. Raises FormatError."""
        ...

    def resized(self, encoded: Any, scale_yx: tuple[float, float]) -> Any:
        """``encoded`` of the image resized by the factors."""
        ...

    def cut(self, encoded: Any, window: Window, side_px: int, visible: float) -> dict[str, Any]:
        """The sample's entries for ``window`` of the image, resampled to ``side_px`` squared.

        The window may leave the image. ``visible`` is the least share of an object, 0..1, that
        must lie in the window for it to count.
        """
        ...

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> Any:
        """The item's ``target`` from the transformed sample and bool (H, W) ``valid``."""
        ...


def nearest_index(start: int, length: int, side_px: int, limit: int) -> np.ndarray:
    """int64 (side_px,): source pixel below the centre of each target pixel, kept in the image.

    Together with `torch.nn.functional.interpolate(align_corners=False)` labels stay on the pixels
    that the image shows (its ``nearest`` mode is off by half a pixel).
    """
    positions = start + np.floor((np.arange(side_px) + 0.5) * (length / side_px)).astype(np.int64)
    return positions.clip(0, limit - 1)


class BoxTargets:
    """Boxes of objects; encoded as (float64 (N, 4) x0, y0, x1, y1 in pixel edges, int64 (N,))."""

    def __init__(self, classes: ClassTable) -> None:
        self.index_by_value = {v: i for v, i in classes.index_by_value.items() if v != 0}

    def encode(
        self, label: Any, shape_yx: tuple[int, int], where: str
    ) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(label.values, np.int64)
        unknown = sorted(set(values.tolist()) - self.index_by_value.keys())
        if unknown:
            raise FormatError(
                f"{where} holds the class value {', '.join(map(str, unknown))}; the classes are "
                f"{', '.join(map(str, self.index_by_value))}. Correct the label, or add the class."
            )
        boxes = np.asarray(label.boxes, np.float64).reshape(-1, 4)
        labels = np.array([self.index_by_value[v] for v in values.tolist()], np.int64)
        return boxes, labels

    def resized(
        self, encoded: tuple[np.ndarray, np.ndarray], scale_yx: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        boxes, labels = encoded
        return boxes * np.array([scale_yx[1], scale_yx[0]] * 2), labels

    def cut(
        self,
        encoded: tuple[np.ndarray, np.ndarray],
        window: Window,
        side_px: int,
        visible: float,
    ) -> dict[str, Any]:
        boxes, labels = encoded
        origin = np.array([window.col, window.row] * 2, np.float64)
        limit = np.array([window.width, window.height] * 2, np.float64)
        clipped = (boxes - origin).clip(0, limit)
        whole, part = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
        # A box that is smaller still in the label itself stays while the window holds all of it.
        least = np.minimum(LEAST_PART_PX, whole)
        keep = (part >= least * (1 - 1e-9)).all(axis=1) & (part > 0).all(axis=1)
        keep &= part.prod(axis=1) >= visible * whole.prod(axis=1)
        scaled = clipped[keep] * (side_px / limit)
        return {
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(scaled.astype(np.float32)),
                format="XYXY",
                canvas_size=(side_px, side_px),
            ),
            "labels": torch.from_numpy(labels[keep]),
        }

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> dict[str, Tensor]:
        boxes, labels = sample["boxes"], sample["labels"]
        if isinstance(boxes, tv_tensors.BoundingBoxes):
            boxes = boxes.as_subclass(Tensor)
        return {"boxes": boxes.float().contiguous(), "labels": labels.long()}


class MaskTargets:
    """A class per pixel; encoded as the network's class index (H, W) in the smallest dtype."""

    def __init__(self, classes: ClassTable) -> None:
        table = sorted(classes.index_by_value.items())
        self.values = np.array([value for value, _ in table], np.int64)
        small = np.uint8 if len(table) <= 256 else np.int32
        self.indices = np.array([index for _, index in table]).astype(small)

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> np.ndarray:
        values = np.asarray(label.values)
        if values.shape != shape_yx:
            raise FormatError(
                f"{where} has {values.shape[0]} x {values.shape[1]} pixels (rows x columns), its "
                f"image {shape_yx[0]} x {shape_yx[1]}. Export the chip again."
            )
        if values.dtype == np.uint8:
            return self._encode_bytes(values, where)
        place = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        wrong = self.values[place] != values
        if wrong.any():
            self._refuse(np.unique(values[wrong]), where)
        return self.indices[place]

    def _encode_bytes(self, values: np.ndarray, where: str) -> np.ndarray:
        """By a table of all 256 values: ten times faster than a search, and the usual case."""
        known = np.zeros(256, bool)
        table = np.zeros(256, self.indices.dtype)
        fits = (self.values >= 0) & (self.values <= 255)
        known[self.values[fits]], table[self.values[fits]] = True, self.indices[fits]
        if not known.all():
            present = np.bincount(values.ravel(), minlength=256) > 0
            if (present & ~known).any():
                self._refuse(np.flatnonzero(present & ~known), where)
        return table[values]

    def _refuse(self, unknown: np.ndarray, where: str) -> None:
        shown = ", ".join(map(str, unknown[:10].tolist())) + (" ..." if len(unknown) > 10 else "")
        raise FormatError(
            f"{where} holds the class value {shown}; the classes are "
            f"{', '.join(map(str, self.values.tolist()))} (0 is background). Correct the label, "
            "or add the class."
        )

    def resized(self, encoded: np.ndarray, scale_yx: tuple[float, float]) -> np.ndarray:
        height, width = encoded.shape
        rows = nearest_index(0, height, round(height * scale_yx[0]), height)
        cols = nearest_index(0, width, round(width * scale_yx[1]), width)
        return encoded[np.ix_(rows, cols)]

    def cut(
        self, encoded: np.ndarray, window: Window, side_px: int, visible: float
    ) -> dict[str, Any]:
        rows = nearest_index(window.row, window.height, side_px, encoded.shape[0])
        cols = nearest_index(window.col, window.width, side_px, encoded.shape[1])
        classes = encoded[np.ix_(rows, cols)].astype(np.int64)
        return {"classes": tv_tensors.Mask(torch.from_numpy(classes))}

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> Tensor:
        classes = sample["classes"].as_subclass(Tensor).long()
        if valid is not None:
            classes = classes.masked_fill(~valid, IGNORE_INDEX)
        return classes.contiguous()
