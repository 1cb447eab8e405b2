"""How large the objects of a data set are, for anchors that suit them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

# Chips whose boxes are looked at.
_SURVEYED_CHIPS = 300
# Nearly the smallest objects; the rest are outliers, or cut by the edge of a chip.
_SMALL_SHARE = 0.1
# From two cells of the finest map on; to the anchors for photographs of 800 pixels.
_LEAST_PX, _MOST_PX = 8.0, 32.0


def box_sizes(data: Any) -> np.ndarray:
    """float64 (N, 2): width and height in chip pixels of objects in a sample of training chips.

    Objects that a chip's edge cuts are left out while there are others.
    """
    chips = len(data.train_ds)
    step = max(1, -(-chips // _SURVEYED_CHIPS))
    with torch.random.fork_rng([]):
        # Augmentation draws from torch's generator.
        torch.manual_seed(data.seed)
        parts = [
            np.asarray(data.train_ds[i]["target"]["boxes"], np.float64).reshape(-1, 4)
            for i in range(0, chips, step)
        ]
    boxes = np.concatenate(parts) if parts else np.zeros((0, 4))
    whole = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < data.chip_size).all(axis=1)
    chosen = boxes[whole] if whole.any() else boxes
    sizes: np.ndarray = chosen[:, 2:] - chosen[:, :2]
    return sizes[(sizes > 0).all(axis=1)]


def finest_anchor_px(data: Any) -> float:
    """Side of the smallest anchors that a data set needs: about that of its small objects."""
    sizes = box_sizes(data)
    if not len(sizes):
        return _MOST_PX
    small = np.quantile(np.sqrt(sizes.prod(axis=1)), _SMALL_SHARE)
    return float(np.clip(round(float(small)), _LEAST_PX, _MOST_PX))
