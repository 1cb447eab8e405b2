"""Convolution over the occupied cells of a lattice only."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geodl.nets.normalization import groups_for

_SIDE = 3
_OFFSETS = tuple(itertools.product(range(_SIDE), repeat=3))


@dataclass(frozen=True, slots=True)
class SparseCells:
    """Occupied cells of the lattices of a batch.

    Parameters
    ----------
    places
        int64 (V, 4): block, z, y, x; ordered by these.
    shape
        Cells along z, y, x.
    batch
        Blocks.
    """

    places: Tensor
    shape: tuple[int, int, int]
    batch: int

    def keys(self) -> Tensor:
        """int64 (V,), ascending."""
        return flat_keys(self.places, self.shape)


def flat_keys(places: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """int64 (V,): one number per place (V, 4)."""
    depth, rows, columns = shape
    block, z, y, x = places.unbind(1)
    return ((block * depth + z) * rows + y) * columns + x


@dataclass(frozen=True, slots=True)
class Joins:
    """Which cells a kernel joins.

    Parameters
    ----------
    inputs, outputs
        For each of the 27 cells of the kernel int64 (P,): row of an input cell, and of the output
        cell that sees it there. No row comes twice in one of them.
    count
        Output cells.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    count: int


def same_joins(cells: SparseCells) -> Joins:
    """Of a convolution whose outputs lie where inputs do (submanifold).

    Graham et al. 2018, 1711.10275.
    """
    # In a lattice with an empty border no step leads from one row of cells into the next.
    depth, rows, columns = (n + 2 for n in cells.shape)
    block, z, y, x = cells.places.unbind(1)
    keys = ((block * depth + z + 1) * rows + y + 1) * columns + x + 1
    count = len(keys)
    own = torch.arange(count, device=keys.device)
    seen, seeing = [], []
    for dz, dy, dx in _OFFSETS[: len(_OFFSETS) // 2]:
        asked = keys + ((dz - 1) * rows + dy - 1) * columns + dx - 1
        found = torch.searchsorted(keys, asked).clamp(max=count - 1)
        hit = (keys[found] == asked).nonzero()[:, 0]
        seen.append(found[hit])
        seeing.append(hit)
    # What a cell sees under one corner of the kernel sees it under the opposite corner.
    return Joins((*seen, own, *seeing[::-1]), (*seeing, own, *seen[::-1]), count)


def strided_joins(cells: SparseCells, stride: tuple[int, int, int]) -> tuple[SparseCells, Joins]:
    """Coarser cells, each seen from the 27 finer ones around it, and what is joined."""
    depth, height, width = ((n - 1) // s + 1 for n, s in zip(cells.shape, stride, strict=True))
    coarse = (depth, height, width)
    # Per direction and place in the kernel: where the coarser cell lies, and whether there is one.
    good: list[list[Tensor]] = []
    part: list[list[Tensor]] = []
    factors = (height * width, width, 1)
    for axis, (step, most, factor) in enumerate(zip(stride, coarse, factors, strict=True)):
        moved = [cells.places[:, axis + 1] + 1 - offset for offset in range(_SIDE)]
        target = [torch.div(m, step, rounding_mode="floor") for m in moved]
        good.append(
            [(m == t * step) & (t >= 0) & (t < most) for m, t in zip(moved, target, strict=True)]
        )
        part.append([t * factor for t in target])
    base = cells.places[:, 0] * (depth * height * width)
    rows, targets = [], []
    for dz, dy, dx in _OFFSETS:
        own = (good[0][dz] & good[1][dy] & good[2][dx]).nonzero()[:, 0]
        rows.append(own)
        targets.append((base + part[0][dz] + part[1][dy] + part[2][dx])[own])
    keys, above = torch.unique(torch.cat(targets), return_inverse=True)
    found = SparseCells(places_of(keys, coarse), coarse, cells.batch)
    outputs = above.split([len(own) for own in rows])
    return found, Joins(tuple(rows), tuple(outputs), len(keys))


def places_of(keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """int64 (V, 4), the opposite of :func:`flat_keys`."""
    depth, rows, columns = shape
    x = keys % columns
    rest = torch.div(keys, columns, rounding_mode="floor")
    y = rest % rows
    rest = torch.div(rest, rows, rounding_mode="floor")
    return torch.stack([torch.div(rest, depth, rounding_mode="floor"), rest % depth, y, x], dim=1)


class GatheredProduct(torch.autograd.Function):
    """Gather the cells under one place of the kernel, multiply, add to what sees them there.

    Only cells that are there cost anything: in clouds from the air a kernel covers some four of
    27. No row is added to twice in one step, so that a GPU gives the same every time.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, features: Tensor, weight: Tensor, joins: Joins) -> Tensor:
        """(outputs, O) of features (inputs, C) and weights (27, C, O)."""
        ctx.save_for_backward(features, weight)
        ctx.joins = joins
        found = features.new_zeros(joins.count, weight.shape[2])
        for own, rows, into in zip(weight, joins.inputs, joins.outputs, strict=True):
            found.index_add_(0, into, features.index_select(0, rows) @ own)
        return found

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of features and weights."""
        features, weight = ctx.saved_tensors
        joins: Joins = ctx.joins
        grad = grads[0].contiguous()
        of_features, of_weight = torch.zeros_like(features), torch.empty_like(weight)
        for k, (rows, into) in enumerate(zip(joins.inputs, joins.outputs, strict=True)):
            part = grad.index_select(0, into)
            torch.mm(features.index_select(0, rows).T, part, out=of_weight[k])
            of_features.index_add_(0, rows, part @ weight[k].T)
        return of_features, of_weight, None


class SparseConv(nn.Module):
    """A kernel of 3 x 3 x 3, group normalisation of each cell, and ReLU.

    The paper's batch statistics need many blocks: on some dozens of them they lag so far behind
    the weights that the network answers nonsense outside training.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(_OFFSETS), inputs, outputs))
        # As of a dense layer over all inputs of an output; a third of the cells is occupied.
        bound = math.sqrt(3 / (inputs * len(_OFFSETS) / 3))
        nn.init.uniform_(self.weight, -bound, bound)
        self.norm = nn.GroupNorm(groups_for(outputs), outputs)

    def forward(self, features: Tensor, joins: Joins) -> Tensor:
        """Features (outputs, O) of the output cells, of (inputs, C)."""
        found = GatheredProduct.apply(features, self.weight, joins)
        return torch.relu(self.norm(found))


def dense_map(features: Tensor, cells: SparseCells) -> Tensor:
    """float32 (B, C * D, H, W): the cells seen from above, their layers as channels."""
    depth, rows, columns = cells.shape
    width = features.shape[1]
    flat = features.new_zeros(cells.batch * depth * rows * columns, width)
    flat = flat.index_copy(0, cells.keys(), features)
    whole = flat.view(cells.batch, depth, rows, columns, width)
    return whole.permute(0, 4, 1, 2, 3).reshape(cells.batch, width * depth, rows, columns)
