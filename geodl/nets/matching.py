"""Which anchors answer for which objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Anchors per grid that are looked at for each object; 1912.02424 finds 7 to 17 alike.
NEAREST = 9


def iou_matrix(first: Tensor, second: Tensor) -> Tensor:
    """float32 (N, M): intersection over union of boxes x0, y0, x1, y1."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    union = _area(first)[:, None] + _area(second)[None] - common
    return common / union.clamp(min=1e-9)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """float32 (N,): IoU less the empty share of the common hull (1902.09630), row by row."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=1)
    union = (_area(first) + _area(second) - common).clamp(min=1e-9)
    hull_low = torch.minimum(first[:, :2], second[:, :2])
    hull_high = torch.maximum(first[:, 2:], second[:, 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(dim=1).clamp(min=1e-9)
    return common / union - (hull - union) / hull


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def assign(anchors: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Adaptive assignment (Zhang et al. 2020, 1912.02424), with one anchor at least per object.

    For each object the nearest anchors of each grid are looked at; those are its own whose IoU
    reaches the mean plus the deviation of all looked at, and whose centre lies in the object. An
    anchor wanted by several goes to the one it overlaps most. Then, as in 1512.02325, every
    object takes the anchor it overlaps most that no other object has taken so.

    Parameters
    ----------
    anchors
        float32 (A_i, 4) of each grid.
    boxes
        float32 (N, 4) objects.

    Returns
    -------
    int64 (sum of A_i,): the object's position, or -1 for background.
    """
    every = torch.cat(list(anchors))
    match = torch.full((len(every),), -1, dtype=torch.long, device=every.device)
    if not len(boxes):
        return match
    overlap = iou_matrix(every, boxes)
    looked_at = _nearest(anchors, boxes)
    candidate = overlap.gather(0, looked_at)
    least = candidate.mean(dim=0) + candidate.std(dim=0, correction=0)
    centre = (every[:, :2] + every[:, 2:]) / 2
    own = (candidate >= least) & (candidate > 0) & _inside(centre[looked_at], boxes)
    wanted = torch.full_like(overlap, -1.0)
    columns = torch.arange(len(boxes), device=boxes.device).expand_as(looked_at)
    wanted[looked_at[own], columns[own]] = candidate[own]
    best, which = wanted.max(dim=1)
    match = torch.where(best > 0, which, match)
    return _force(match, overlap)


def _nearest(anchors: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """int64 (candidates, N): positions of the anchors nearest to each object's centre."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    found, start = [], 0
    for part in anchors:
        own = (part[:, :2] + part[:, 2:]) / 2
        distance = torch.cdist(own, centre, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(min(NEAREST, len(part)), dim=0, largest=False).indices
        found.append(nearest + start)
        start += len(part)
    return torch.cat(found)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """bool (M, N): point (M, N, 2) inside the box of its column."""
    return ((points > boxes[None, :, :2]) & (points < boxes[None, :, 2:])).all(dim=-1)


def _force(match: Tensor, overlap: Tensor) -> Tensor:
    """Give every object without an anchor the free one that overlaps it most."""
    count = torch.bincount(match[match >= 0], minlength=overlap.shape[1])
    taken = torch.zeros_like(match, dtype=torch.bool)
    for box in torch.nonzero(count == 0).flatten().tolist():
        free = overlap[:, box].masked_fill(taken, -1.0)
        # Not from an object that has no other anchor.
        lonely = (match >= 0) & (count[match.clamp(min=0)] == 1)
        best = free.masked_fill(lonely, -1.0).argmax()
        if overlap[best, box] <= 0:
            continue
        if match[best] >= 0:
            count[match[best]] -= 1
        match[best], taken[best] = box, True
        count[box] = 1
    return match
