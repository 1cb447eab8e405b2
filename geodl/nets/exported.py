"""Detectors as one plain function of pixels, for TorchScript and ONNX."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

# What leaves an exported detector: boxes from this score on, suppressed at this IoU; whoever runs
# it takes higher thresholds as they please.
SCORE, OVERLAP = 0.05, 0.5
INPUT = "pixels"
BOXES, SCORES, LABELS, MASKS = "boxes", "scores", "labels", "masks"


class ExportedDetector(nn.Module):
    """Pixels of one tile to boxes.

    Parameters
    ----------
    net
        In eval mode; its output has ``decode``, or ``decode_masks`` with ``masks``.
    scale, offset
        float32 (C, 1, 1): the model's normalisation, ``pixels * scale + offset``.
    masks
        Whether masks leave too.
    """

    def __init__(
        self, net: nn.Module, scale: np.ndarray, offset: np.ndarray, *, masks: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.masks = masks
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("offset", torch.from_numpy(offset))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what leaves, in order."""
        return (BOXES, SCORES, LABELS, MASKS) if self.masks else (BOXES, SCORES, LABELS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Boxes float32 (N, 4), scores (N,), labels int64 (N,) 1..K, masks float32 (N, H, W).

        Of float32 (1, C, H, W) raw pixels; best first.
        """
        output = self.net(pixels * self.scale + self.offset)
        parts = output.decode_masks(SCORE)[0] if self.masks else output.decode(SCORE)[0]
        kept = batched_nms(parts[0], parts[1], parts[2], OVERLAP)
        return tuple(part[kept] for part in parts)
