"""Masks in COCO files: run lengths, plain or packed as text, and polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from geodl.base.errors import FormatError
from geodl.ops.labels import burn


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A bool mask (H, W) as ``{"size": [H, W], "counts": [...]}``: column by column, 0 first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def mask_of(segmentation: Any, shape_yx: tuple[int, int], where: str) -> np.ndarray:
    """bool (H, W) of an annotation's ``segmentation``.

    Raises
    ------
    FormatError
        Neither polygons nor run lengths of the image's size; names ``where``.
    """
    if isinstance(segmentation, list):
        return _of_polygons(segmentation, shape_yx, where)
    if not isinstance(segmentation, dict) or segmentation.get("size") != list(shape_yx):
        raise FormatError(
            f"{where}: segmentation is neither a list of polygons nor run lengths of the image's "
            f"size {list(shape_yx)}."
        )
    counts: Any = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts, where)
    whole = isinstance(counts, list) and all(isinstance(n, int) and n >= 0 for n in counts)
    if not whole or sum(counts) != shape_yx[0] * shape_yx[1]:
        raise FormatError(f"{where}: the run lengths of segmentation do not fill the image.")
    filled = np.arange(len(counts)) % 2 == 1
    return np.repeat(filled, counts).reshape(shape_yx, order="F")


def _of_polygons(rings: list[Any], shape_yx: tuple[int, int], where: str) -> np.ndarray:
    mask = np.zeros(shape_yx, bool)
    for ring in rings:
        numbers = isinstance(ring, list) and all(isinstance(n, int | float) for n in ring)
        if not numbers or len(ring) < 6 or len(ring) % 2:
            raise FormatError(f"{where}: a polygon of segmentation is x, y, x, y, x, y, ...")
        shape = shapely.make_valid(shapely.Polygon(np.array(ring, np.float64).reshape(-1, 2)))
        mask |= burn(np.array([shape], object), np.ones(1, np.int64), *shape_yx) > 0
    return mask


def _unpacked(text: str, where: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, each third and later number as a
    difference to the one two before."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            if place >= len(text) or not 0 <= (code := ord(text[place]) - 48) < 64:
                raise FormatError(f"{where}: the packed run lengths of segmentation are broken.")
            value |= (code & 31) << shift
            more = bool(code & 32)
            place, shift = place + 1, shift + 5
            if not more and code & 16:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
