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
    """Which cells a kernel joins; a row beyond the last stands for an empty cell.

    Parameters
    ----------
    inputs
        int64 (outputs, 27): row of the input under each cell of the kernel.
    outputs
        int64 (inputs, 27): row of the output above each cell of the kernel.
    """

    inputs: Tensor
    outputs: Tensor


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
    table = keys.new_full((count, len(_OFFSETS)), count)
    middle = len(_OFFSETS) // 2
    table[:, middle] = own
    for k, (dz, dy, dx) in enumerate(_OFFSETS[:middle]):
        asked = keys + ((dz - 1) * rows + dy - 1) * columns + dx - 1
        found = torch.searchsorted(keys, asked).clamp(max=count - 1)
        hit = keys[found] == asked
        table[:, k] = torch.where(hit, found, count)
        # What this cell sees under one corner of the kernel sees it under the opposite corner.
        table[found[hit], len(_OFFSETS) - 1 - k] = own[hit]
    return Joins(table, table.flip(1))


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
    inputs = keys.new_full((len(keys), len(_OFFSETS)), len(cells.places))
    outputs = keys.new_full((len(cells.places), len(_OFFSETS)), len(keys))
    for k, (own, found_rows) in enumerate(
        zip(rows, above.split([len(r) for r in rows]), strict=True)
    ):
        inputs[found_rows, k] = own
        outputs[own, k] = found_rows
    return found, Joins(inputs, outputs)


def places_of(keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """int64 (V, 4), the opposite of :func:`flat_keys`."""
    depth, rows, columns = shape
    x = keys % columns
    rest = torch.div(keys, columns, rounding_mode="floor")
    y = rest % rows
    rest = torch.div(rest, rows, rounding_mode="floor")
    return torch.stack([torch.div(rest, depth, rounding_mode="floor"), rest % depth, y, x], dim=1)


class GatheredProduct(torch.autograd.Function):
    """Gather what the kernel covers, multiply; backwards the same along the other joins.

    Gathering in both directions adds up in one order, so that a GPU gives the same every time.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, inputs: Tensor, outputs: Tensor
    ) -> Tensor:
        """(outputs, O) of features (inputs, C) and weights (27, C, O)."""
        ctx.save_for_backward(features, weight, inputs, outputs)
        return _gathered(features, inputs) @ weight.flatten(0, 1)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of features and weights."""
        (grad,) = grads
        features, weight, inputs, outputs = ctx.saved_tensors
        own = _gathered(features, inputs).T @ grad
        turned = weight.transpose(1, 2).flatten(0, 1)
        return _gathered(grad, outputs) @ turned, own.view_as(weight), None, None


def _gathered(features: Tensor, table: Tensor) -> Tensor:
    """(N, 27 C): the rows that a table names side by side, zeros for the row beyond the last."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return padded.index_select(0, table.flatten()).view(len(table), -1)


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
        found = GatheredProduct.apply(features, self.weight, joins.inputs, joins.outputs)
        return torch.relu(self.norm(found))


def dense_map(features: Tensor, cells: SparseCells) -> Tensor:
    """float32 (B, C * D, H, W): the cells seen from above, their layers as channels."""
    depth, rows, columns = cells.shape
    width = features.shape[1]
    flat = features.new_zeros(cells.batch * depth * rows * columns, width)
    flat = flat.index_copy(0, cells.keys(), features)
    whole = flat.view(cells.batch, depth, rows, columns, width)
    return whole.permute(0, 4, 1, 2, 3).reshape(cells.batch, width * depth, rows, columns)
