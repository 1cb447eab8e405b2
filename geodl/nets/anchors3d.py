"""Boxes of objects as seen from anchors: codes, directions and which anchor takes which object."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Overlap seen from above from which an anchor has an object, and up to which it has none.
_OBJECT, _EMPTY = 0.5, 0.35
# Longest change of an anchor's side: beyond, exp() of a wild answer is not finite.
_LOG_LIMIT = 4.0


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """float32 (N, 7): boxes as seen from their anchors (section 3.2.2)."""
    diagonal = anchors[:, 3:5].norm(dim=1)
    return torch.stack(
        [
            (boxes[:, 0] - anchors[:, 0]) / diagonal,
            (boxes[:, 1] - anchors[:, 1]) / diagonal,
            (boxes[:, 2] - anchors[:, 2]) / anchors[:, 5],
            *(boxes[:, 3:6] / anchors[:, 3:6]).log().unbind(1),
            boxes[:, 6] - anchors[:, 6],
        ],
        dim=1,
    )


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """float32 (N, 7): the opposite of :func:`encode`."""
    diagonal = anchors[:, 3:5].norm(dim=1)
    sizes = anchors[:, 3:6] * codes[:, 3:6].clamp(-_LOG_LIMIT, _LOG_LIMIT).exp()
    return torch.stack(
        [
            codes[:, 0] * diagonal + anchors[:, 0],
            codes[:, 1] * diagonal + anchors[:, 1],
            codes[:, 2] * anchors[:, 5] + anchors[:, 2],
            *sizes.unbind(1),
            codes[:, 6] + anchors[:, 6],
        ],
        dim=1,
    )


def direction_bins(yaw: Tensor) -> Tensor:
    """int64 (N,): 0 where the yaw lies in 0..pi, else 1."""
    return (torch.remainder(yaw, 2 * math.pi) >= math.pi).long()


def turned(yaw: Tensor, bins: Tensor) -> Tensor:
    """The yaw, known up to half a turn, in the half that ``bins`` name; within -pi..pi."""
    angle = torch.remainder(yaw, math.pi) + math.pi * bins
    return torch.atan2(torch.sin(angle), torch.cos(angle))


def match_anchors(
    anchors: Tensor, of_class: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Which anchors have an object of their class.

    Parameters
    ----------
    anchors
        float32 (N, 7), turned by multiples of a quarter.
    of_class
        int64 (N,), 1..K.
    boxes, labels
        (M, 7) and (M,) 1..K.

    Returns
    -------
    int64 (N,) 1: an object, 0: none, -1: in between; and int64 (N,) the object.
    """
    state = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    match = torch.zeros_like(state)
    own_bounds = nearest_bounds(anchors)
    for label in labels.unique().tolist():
        rows = (of_class == label).nonzero()[:, 0]
        objects = (labels == label).nonzero()[:, 0]
        overlap = bounds_overlap(own_bounds[rows], nearest_bounds(boxes[objects]))
        best, which = overlap.max(dim=1)
        own = torch.where(best >= _OBJECT, 1, torch.where(best < _EMPTY, 0, -1))
        # Each object has at least its best anchor, where any reaches it.
        top, anchor = overlap.max(dim=0)
        reached = top > 0
        own[anchor[reached]] = 1
        which[anchor[reached]] = reached.nonzero()[:, 0]
        state[rows], match[rows] = own, objects[which]
    return state, match


def nearest_bounds(boxes: Tensor) -> Tensor:
    """float32 (N, 4) x0, y0, x1, y1 of boxes turned to the nearest quarter."""
    quarter = torch.round(boxes[:, 6] / (math.pi / 2)).long() % 2 == 1
    length = torch.where(quarter, boxes[:, 4], boxes[:, 3])
    width = torch.where(quarter, boxes[:, 3], boxes[:, 4])
    half = torch.stack([length, width], dim=1) / 2
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], dim=1)


def bounds_overlap(first: Tensor, second: Tensor) -> Tensor:
    """float32 (N, M): intersection over union."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    sizes = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (first, second)]
    return shared / (sizes[0][:, None] + sizes[1][None] - shared).clamp(min=1e-9)
