"""Detectors in ONNX files: the orders of their outputs, and masks made of prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geodl.base.errors import BundleError, OptionError
from geodl.bundle.onnx_definition import OWN_KEY
from geodl.bundle.onnx_file import OnnxFile
from geodl.models.onnx_network import OnnxNetwork
from geodl.nets.exported import BOXES, LABELS, MASKS, SCORE
from geodl.nets.exported import SCORES as BOX_SCORES
from geodl.ops.nms import suppress

# IoU of two boxes of one object.
_SAME = 0.7
_ONLY_RUN = "a network in an ONNX file cannot be trained or scored"


class BoxNetwork(OnnxNetwork):
    """Boxes of objects, with masks where the network gives them.

    Parameters
    ----------
    layout
        ``boxes`` or ``masks``: the outputs ``boxes``, ``scores``, ``labels`` (and ``masks``) of one
        image. ``yolo5``: (B, N, 5 + K) of centre, size, objectness and classes; ``yolo6``: the
        same, where objectness says nothing; ``yolo8``: (B, 4 + K, N) of centre, size and classes;
        ``prototypes``: the same with M weights of masks more, and (B, M, h, w) of prototypes.
    """

    def __init__(self, file: OnnxFile, layout: Mapping[str, Any], classes: int) -> None:
        super().__init__(file)
        self.layout, self.classes = str(layout["layout"]), classes
        self.before = 5 if self.layout in ("yolo5", "yolo6") else 4
        self.named = [BOXES, BOX_SCORES, LABELS, *([MASKS] if self.layout == "masks" else [])]
        # geodl's own exports leave out what scores less.
        self.least = SCORE if OWN_KEY in file.metadata else 0.0
        if self.layout in ("boxes", "masks"):
            missing = [name for name in self.named if file.output(name) is None]
            if missing or file.input.shape[0] != 1:
                raise BundleError(
                    f"{file.where} lacks the outputs {', '.join(missing) or 'of a single image'}; "
                    f"a detector of this layout gives {', '.join(self.named)}."
                )

    def forward(self, x: Tensor) -> DecodedBoxes | DecodedPrototypes:
        runs = self.outputs(x)
        if self.layout in ("boxes", "masks"):
            images = [self._named(run) for run in runs][: len(x)]
            return DecodedBoxes(images, self.least, self.file.where)
        side = (x.shape[-2], x.shape[-1])
        rows = [self._rows(row) for run in runs for row in run[0]]
        found = [self._centred(one, side) for one in rows][: len(x)]
        if self.layout != "prototypes":
            return DecodedBoxes([parts[:3] for parts in found])
        maps = [one for run in runs for one in run[1]][: len(x)]
        return DecodedPrototypes(found, maps, side, self.file.where)

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        """float32 (N, numbers of a box) of an image."""
        rows = rows.astype(np.float32, copy=False)
        if rows.ndim == 2 and self.before == 4:
            rows = rows.T
        least = self.before + self.classes
        if rows.ndim != 2 or not (rows.shape[1] == least or self.layout == "prototypes"):
            raise BundleError(
                f"{self.file.where} gives {rows.shape} of an image; expected {least} numbers of "
                "each box."
            )
        return rows

    def _named(self, run: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        by_name = {port.name: part for port, part in zip(self.file.outputs, run, strict=True)}
        parts = tuple(by_name[name] for name in self.named)
        count = len(parts[0])
        sound = parts[0].shape == (count, 4) and all(len(part) == count for part in parts[1:])
        labels = parts[2]
        if not sound or (count and not 1 <= labels.min() <= labels.max() <= self.classes):
            raise BundleError(
                f"{self.file.where} gives boxes {parts[0].shape} with labels {labels.shape}; "
                f"expected (N, 4) and labels of 1 to {self.classes}."
            )
        return parts

    def _centred(self, rows: np.ndarray, side: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """Boxes, scores, labels and what is left, of rows of centre, size and classes."""
        end = self.before + self.classes
        by_class = rows[:, self.before : end]
        if self.layout == "yolo5":
            # Of the class, given that there is an object.
            by_class = by_class * rows[:, 4:5]
        labels = by_class.argmax(axis=1)
        scores = by_class[np.arange(len(rows)), labels]
        half = rows[:, 2:4] / 2
        boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
        boxes = boxes.clip(0, [side[1], side[0]] * 2).astype(np.float32)
        real = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes[real], scores[real], labels[real] + 1, rows[real, end:]


@dataclass(frozen=True)
class DecodedBoxes:
    """Boxes of a batch, as a :class:`~geodl.tasks.objects.DetectionOutput` gives them.

    Parameters
    ----------
    images
        Boxes, scores, labels and perhaps masks of each.
    least
        What scores less was left out by the network of ``where``.
    """

    images: Sequence[tuple[np.ndarray, ...]]
    least: float = 0.0
    where: str = ""

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A network that is only run has none."""
        raise OptionError(_ONLY_RUN)

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) of each image."""
        return [(one[0], one[1], one[2]) for one in self.decode_masks(threshold)]

    def decode_masks(self, threshold: float) -> list[tuple[Tensor, ...]]:
        """The same, with masks (N, H, W) last where there are any."""
        if threshold < self.least:
            raise OptionError(
                f"threshold={threshold:g}: {self.where} gives nothing that scores less than "
                f"{self.least:g}; the package that it was exported from does"
            )
        found = []
        for parts in self.images:
            passing = parts[1] >= threshold
            found.append(tuple(torch.from_numpy(part[passing]) for part in parts))
        return found


@dataclass(frozen=True)
class DecodedPrototypes:
    """Boxes of a batch whose masks are weighted sums of a few maps (Bolya et al. 2019,
    1904.02689).

    Parameters
    ----------
    images
        Boxes, scores, labels and weights (N, M) of each.
    maps
        (M, h, w) of each.
    side
        Height and width of the image.
    """

    images: Sequence[tuple[np.ndarray, ...]]
    maps: Sequence[np.ndarray]
    side: tuple[int, int]
    where: str

    def losses(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A network that is only run has none."""
        raise OptionError(_ONLY_RUN)

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) of each image."""
        return [(one[0], one[1], one[2]) for one in self.decode_masks(threshold)]

    def decode_masks(self, threshold: float) -> list[tuple[Tensor, ...]]:
        """The same, with masks (N, H, W) of 0..1 last."""
        found = []
        for (boxes, scores, labels, weights), maps in zip(self.images, self.maps, strict=True):
            if weights.shape[1] != len(maps):
                raise BundleError(
                    f"{self.where} gives {weights.shape[1]} weights of masks for {len(maps)} maps."
                )
            passing = np.flatnonzero(scores >= threshold)
            # Thousands of boxes stand for a few objects; a mask of each would fill the memory.
            kept = passing[suppress(boxes[passing], scores[passing], labels[passing], _SAME)]
            parts = [torch.from_numpy(part[kept]) for part in (boxes, scores, labels)]
            found.append((*parts, self._masks(parts[0], weights[kept], maps)))
        return found

    def _masks(self, boxes: Tensor, weights: np.ndarray, maps: np.ndarray) -> Tensor:
        sums = np.tensordot(weights, maps.astype(np.float32, copy=False), axes=1)
        logits = torch.from_numpy(sums)[:, None]
        masks = interpolate(logits, size=self.side, mode="bilinear", align_corners=False)[:, 0]
        y, x = (torch.arange(n, dtype=torch.float32) + 0.5 for n in self.side)
        x0, y0, x1, y1 = (edge[:, None] for edge in boxes.unbind(1))
        rows, cols = (y >= y0) & (y <= y1), (x >= x0) & (x <= x1)
        return masks.sigmoid() * rows[:, :, None] * cols[:, None, :]
