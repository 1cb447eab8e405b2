"""Images resampled to another size: the one way, in training and in inference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def resize_image(image: Tensor, size_yx: tuple[int, int]) -> Tensor:
    """float32 (C, H, W) resampled bilinearly, smoothed first where it shrinks."""
    shrinks = size_yx[0] < image.shape[1] or size_yx[1] < image.shape[2]
    return functional.interpolate(
        image[None], size=size_yx, mode="bilinear", align_corners=False, antialias=shrinks
    )[0]


def resized_chip(
    data: np.ndarray, valid: np.ndarray | None, size_yx: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels resampled in their own dtype; a pixel is valid where all it comes from is.

    Parameters
    ----------
    data
        (C, H, W), any numeric dtype.
    valid
        bool (H, W), True where there is data; None: everywhere.
    size_yx
        Height and width wanted.

    Returns
    -------
    (C, *size_yx) in the dtype of ``data``, and bool ``size_yx`` or None.
    """
    values = np.nan_to_num(data.astype(np.float32))
    resized = resize_image(torch.from_numpy(values), size_yx).numpy()
    if data.dtype.kind in "iu":
        info = np.iinfo(data.dtype)
        resized = np.rint(resized).clip(info.min, info.max)
    if valid is not None:
        share = resize_image(torch.from_numpy(valid[None].astype(np.float32)), size_yx)
        valid = share[0].numpy() > 1 - 1e-3
    return resized.astype(data.dtype), valid
