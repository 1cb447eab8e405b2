"""Points in the cells of a lattice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geodl.nets.point_levels import order_of
from geodl.nets.sparse_conv import flat_keys, places_of

Voxels = dict[str, Any]


def lattice_shape(low: Sequence[float], high: Sequence[float], size: Sequence[float]) -> list[int]:
    """Cells along z, y, x that hold a box from ``low`` to ``high`` (x, y, z)."""
    counts = [max(1, -int(-(h - w) // s)) for w, h, s in zip(low, high, size, strict=True)]
    return counts[::-1]


def make_voxels(
    points: Tensor,
    length: Tensor,
    options: Mapping[str, Any],
    generator: torch.Generator | None = None,
) -> Voxels:
    """The points of each block by cell; what is too much is dropped by chance.

    Parameters
    ----------
    points
        float32 (B, M, 3 + F), each block padded at its end.
    length
        int64 (B,).
    options
        ``low`` and ``high`` corner of the space that is looked at (x, y, z), ``size`` of a cell,
        ``voxel_points``: most points of a cell, ``max_voxels``: most cells of a block in training
        and otherwise.
    generator
        Of training; None: chance follows from the content of a block.

    Returns
    -------
    ``order`` int64 (S,): rows of ``points.flatten(0, 1)``, by cell; ``voxel`` int64 (S,): the cell
    of each; ``counts`` int64 (V,): points of each cell; ``places`` int64 (V, 4): block, z, y, x of
    the cells.
    """
    depth, rows, columns = lattice_shape(options["low"], options["high"], options["size"])
    shape = (depth, rows, columns)
    low, size = (
        torch.tensor(options[key], device=points.device, dtype=points.dtype)
        for key in ("low", "size")
    )
    limits = torch.tensor(shape[::-1], device=points.device)
    most_cells = options["max_voxels"][0 if generator is not None else 1]
    order, voxel, places = [], [], []
    first = 0
    for number, count in enumerate(length.tolist()):
        chosen = order_of(points[number, :count], generator).to(points.device)
        cell = torch.floor((points[number, chosen, :3] - low) / size).long()
        inside = ((cell >= 0) & (cell < limits)).all(dim=1)
        chosen, cell = chosen[inside], cell[inside]
        block = torch.full((len(cell), 1), number, device=points.device)
        keys = flat_keys(torch.cat([block, cell.flip(1)], dim=1), shape)
        found, own = torch.unique(keys, return_inverse=True)
        kept = _limited(own, len(found), options["voxel_points"], most_cells)
        chosen, own = chosen[kept], own[kept]
        used, own = torch.unique(own, return_inverse=True)
        # By voxel, so that sums over the points of one are sums over neighbours in memory.
        own, by_voxel = torch.sort(own, stable=True)
        chosen = chosen[by_voxel]
        order.append(chosen + number * points.shape[1])
        voxel.append(own + first)
        places.append(places_of(found[used], shape))
        first += len(used)
    whole = torch.cat(voxel)
    return {
        "order": torch.cat(order),
        "voxel": whole,
        "counts": torch.bincount(whole, minlength=first),
        "places": torch.cat(places),
    }


def _limited(voxel: Tensor, count: int, most_points: int, most_cells: int) -> Tensor:
    """Rows of points that stay, in their order: the first ones of the first cells."""
    position = torch.arange(len(voxel), device=voxel.device)
    by_cell = torch.argsort(voxel, stable=True)
    sizes = torch.bincount(voxel, minlength=count)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(position)
    rank[by_cell] = position - starts[voxel[by_cell]]
    stays = rank < most_points
    if count > most_cells:
        first = torch.full((count,), len(voxel), device=voxel.device)
        first.scatter_reduce_(0, voxel, position, "amin")
        limit = first.sort().values[most_cells - 1]
        stays &= first[voxel] <= limit
    return stays.nonzero()[:, 0]
