"""Blocks of points as levels, each a part of the one before, with their neighbours.

Made from positions alone, before the network: by k-d trees on the CPU, thus in loader workers, or
by distances in batches on a GPU. The points of all blocks of a batch are packed one after another.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

# Distances that are held at once on a GPU: 256 MB.
_DISTANCES = 2**26

Levels = dict[str, Any]


def nearest(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """The nearest points of each query, nearest first.

    Parameters
    ----------
    points, queries
        float32 (P, 3) and (Q, 3) on one device.
    k
        Of fewer points all are taken, over and over.

    Returns
    -------
    int64 (Q, k), rows of ``points``.
    """
    most = min(k, len(points))
    if points.is_cuda:
        found = _nearest_dense(points, queries, most)
    else:
        tree = cKDTree(points.numpy(), compact_nodes=False, balanced_tree=False)
        _, rows = tree.query(queries.numpy(), k=most)
        found = torch.from_numpy(np.asarray(rows, np.int64).reshape(len(queries), most))
    if most < k:
        found = found.repeat(1, -(-k // most))[:, :k]
    return found


def _nearest_dense(points: Tensor, queries: Tensor, k: int) -> Tensor:
    step = max(1, _DISTANCES // len(points))
    parts = [
        torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")
        .topk(k, dim=1, largest=False)
        .indices
        for part in queries.split(step)
    ]
    return torch.cat(parts)


def farthest(xyz: Tensor, count: int) -> Tensor:
    """int64 (count,): rows that lie far from each other, the first point first.

    Each next one is farthest from those taken (Eldar et al. 1997, 10.1109/83.623193).
    """
    if not xyz.is_cuda:
        return _farthest_array(xyz.numpy(), count)
    taken = torch.zeros(count, dtype=torch.int64, device=xyz.device)
    distance = torch.full((len(xyz),), torch.inf, device=xyz.device)
    for i in range(1, count):
        distance = torch.minimum(distance, (xyz - xyz[taken[i - 1]]).square().sum(1))
        taken[i] = distance.argmax()
    return taken


def _farthest_array(xyz: np.ndarray, count: int) -> Tensor:
    """The same on the CPU, where calls of NumPy cost a third of torch's."""
    columns = np.ascontiguousarray(xyz.T)
    taken = np.zeros(count, np.int64)
    distance = np.full(len(xyz), np.inf, np.float32)
    for i in range(1, count):
        gap = columns - columns[:, taken[i - 1], None]
        np.minimum(distance, np.einsum("ij,ij->j", gap, gap), out=distance)
        taken[i] = distance.argmax()
    return torch.from_numpy(taken)


def order_of(block: Tensor, generator: torch.Generator | None) -> Tensor:
    """int64 (N,): a random order of the rows of a block.

    Without a generator it follows from the block's own content, so that a block is answered the
    same in any batch, tile or process.
    """
    if generator is None:
        content = zlib.crc32(block.detach().cpu().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(content)
    return torch.randperm(len(block), generator=generator)


class Packer:
    """Joins the rows of blocks: row numbers move behind those of the blocks before."""

    def __init__(self) -> None:
        self._parts: dict[str, list[list[Tensor]]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, name: str, values: Sequence[Tensor], offsets: Sequence[int]) -> None:
        """One block's tables of row numbers, one per level, each with what it is moved by."""
        moved = [v + offset for v, offset in zip(values, offsets, strict=True)]
        self._parts.setdefault(name, []).append(moved)

    def joined(self) -> dict[str, list[Tensor]]:
        """Name to one table per level."""
        return {
            name: [torch.cat(level) for level in zip(*blocks, strict=True)]
            for name, blocks in self._parts.items()
        }


def random_levels(
    points: Tensor,
    length: Tensor,
    *,
    ratios: Sequence[int],
    k: int,
    generator: torch.Generator | None = None,
) -> Levels:
    """Levels by random sampling, as RandLA-Net and SQN take them.

    Parameters
    ----------
    points
        float32 (B, M, 3 + F), each block padded at its end.
    length
        int64 (B,).
    ratios
        Of the points of a level to those of the next.
    k
        Neighbours of each point in its own level.
    generator
        Of the random order; None: from the content of each block.

    Returns
    -------
    ``order`` int64 (S,): rows of ``points.flatten(0, 1)`` in level 0; ``block`` int64 (S,);
    ``neighbours``: per level int64 (S_l, k); ``down``: per level but the last, the rows that the
    next level keeps; ``up``: per level but the last, each point's nearest in the next.
    """
    packer = Packer()
    order, block = [], []
    starts = [0] * (len(ratios) + 1)
    for number, count in enumerate(length.tolist()):
        rows = order_of(points[number, :count], generator).to(points.device)
        order.append(rows + number * points.shape[1])
        block.append(torch.full((count,), number, device=points.device))
        xyz = [points[number, rows, :3]]
        for ratio in ratios:
            xyz.append(xyz[-1][: max(1, len(xyz[-1]) // ratio)])
        packer.add("neighbours", [nearest(p, p, k) for p in xyz], starts)
        kept = [torch.arange(len(p), device=points.device) for p in xyz[1:]]
        packer.add("down", kept, starts[:-1])
        upper = [nearest(xyz[i + 1], xyz[i], 1)[:, 0] for i in range(len(ratios))]
        packer.add("up", upper, starts[1:])
        starts = [start + len(p) for start, p in zip(starts, xyz, strict=True)]
    return {"order": torch.cat(order), "block": torch.cat(block), **packer.joined()}


def query_levels(
    points: Tensor,
    length: Tensor,
    *,
    ratios: Sequence[int],
    k: int,
    generator: torch.Generator | None = None,
) -> Levels:
    """Levels by random sampling, and for each point its three nearest in every sampled level.

    Returns
    -------
    As of :func:`random_levels`, and ``near``: per sampled level int64 (S, 3), rows of that level.
    """
    levels = random_levels(points, length, ratios=ratios, k=k, generator=generator)
    packer = Packer()
    starts = [0] * len(ratios)
    first = 0
    for count in length.tolist():
        own = points.flatten(0, 1)[levels["order"][first : first + count], :3]
        first += count
        kept = [own]
        for ratio in ratios:
            kept.append(kept[-1][: max(1, len(kept[-1]) // ratio)])
        packer.add("near", [nearest(level, own, 3) for level in kept[1:]], starts)
        starts = [start + len(level) for start, level in zip(starts, kept[1:], strict=True)]
    return {**levels, **packer.joined()}


def farthest_levels(
    points: Tensor,
    length: Tensor,
    *,
    counts: Sequence[int],
    k: Sequence[int],
    dilation: Sequence[int],
    sample: int,
    generator: torch.Generator | None = None,
) -> Levels:
    """Levels of representative points that lie far from each other, as PointCNN takes them.

    A block of more than ``sample`` points is run in parts, each a random draw; with a generator
    (in training) only one part is taken.

    Parameters
    ----------
    counts
        Representative points per layer; -1 for all of the layer before.
    k, dilation
        Per layer: of the ``k * dilation`` nearest points every ``dilation``-th is taken.

    Returns
    -------
    ``order`` and ``block`` as of :func:`random_levels`, where parts count as blocks;
    ``neighbours``: of level 0 in itself, int64 (S, k); ``down``: per layer the rows of the level
    before that represent it; ``into``: per layer int64 (S_l, k), their neighbours there; ``back``:
    per layer int64 (S_(l - 1), k), neighbours in it of the level before.
    """
    packer = Packer()
    order: list[Tensor] = []
    block: list[Tensor] = []
    layers = list(zip(counts, k, dilation, strict=True))
    starts = [0] * (len(layers) + 1)
    for number, count in enumerate(length.tolist()):
        rows = order_of(points[number, :count], generator).to(points.device)
        parts = -(-count // sample)
        for part in (
            [rows[:sample]] if generator is not None else [rows[i::parts] for i in range(parts)]
        ):
            order.append(part + number * points.shape[1])
            block.append(torch.full((len(part),), len(block), device=points.device))
            xyz = points[number, part, :3]
            packer.add("neighbours", [nearest(xyz, xyz, max(k[0], 8))], starts[:1])
            sizes = [len(xyz)]
            tables: dict[str, list[Tensor]] = {"down": [], "into": [], "back": []}
            for most, near, step in layers:
                kept = representatives(xyz, most)
                chosen = xyz[kept]
                tables["down"].append(kept)
                tables["into"].append(nearest(xyz, chosen, near * step)[:, ::step])
                tables["back"].append(nearest(chosen, xyz, near))
                xyz = chosen
                sizes.append(len(xyz))
            packer.add("down", tables["down"], starts[:-1])
            packer.add("into", tables["into"], starts[:-1])
            packer.add("back", tables["back"], starts[1:])
            starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    return {"order": torch.cat(order), "block": torch.cat(block), **packer.joined()}


def representatives(xyz: Tensor, count: int) -> Tensor:
    """int64 rows of at most ``count`` points that lie far apart; all for -1."""
    if count < 0 or count >= len(xyz):
        return torch.arange(len(xyz), device=xyz.device)
    return farthest(xyz, count)


_KINDS: dict[str, Callable[..., Levels]] = {
    "random": random_levels,
    "query": query_levels,
    "farthest": farthest_levels,
}


def make_levels(
    options: Mapping[str, Any],
    points: Tensor,
    length: Tensor,
    generator: torch.Generator | None = None,
) -> Levels:
    """The levels that a network takes.

    Parameters
    ----------
    options
        ``kind`` and the arguments of that function: plain values, kept with the model.
    """
    given = dict(options)
    make = _KINDS[given.pop("kind")]
    return make(points, length, generator=generator, **given)
