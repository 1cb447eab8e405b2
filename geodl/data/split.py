"""Which chips validate. Pure: depends on names, positions, labels and the seed only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from geodl.base.errors import DataError

# Chips that one block of a block split holds where there are enough of them. Larger blocks lose
# fewer overlapping neighbours, more blocks see more of the country.
_BLOCK_CHIPS = 16


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the chips of both sets, each ascending.

    ``dropped`` chips are in neither: they overlap a validation chip (block split only).
    """

    train: tuple[int, ...]
    valid: tuple[int, ...]
    dropped: tuple[int, ...] = ()


def validation_count(chips: int, share: float) -> int:
    """Chips that validate: the rounded share, at least one, and at least one left to train.

    Raises
    ------
    DataError
        Fewer than two chips.
    """
    if chips < 2:
        raise DataError(
            f"There {'is one usable chip' if chips else 'are no usable chips'}; training needs at "
            "least two, one of them for validation. Export more chips (a smaller stride, "
            "exportAllTiles, or more labels)."
        )
    return min(max(1, round(chips * share)), chips - 1)


def _ranks(keys: Sequence[str], seed: int) -> np.ndarray:
    """float64 (N,) in [0, 1): a number per key and seed, so a new chip moves no other chip."""
    digests = (hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest() for key in keys)
    return np.array([int.from_bytes(d, "big") / 2**64 for d in digests], np.float64)


def random_split(keys: Sequence[str], share: float, seed: int) -> Split:
    """Chips drawn by chance.

    Parameters
    ----------
    keys
        One unique text per chip.
    share
        Of the chips to validate, 0..1.
    seed
        Another seed gives another split.

    Raises
    ------
    DataError
        Fewer than two chips.
    """
    count = validation_count(len(keys), share)
    order = np.argsort(_ranks(keys, seed), kind="stable")
    return _split(order[:count], len(keys))


def _split(valid: np.ndarray, chips: int, dropped: np.ndarray | None = None) -> Split:
    role = np.zeros(chips, np.int8)
    role[valid] = 1
    if dropped is not None:
        role[dropped] = 2
    parts = (tuple(np.flatnonzero(role == which).tolist()) for which in (0, 1, 2))
    return Split(*parts)


def stratified_split(keys: Sequence[str], present: np.ndarray, share: float, seed: int) -> Split:
    """Chips drawn so that each class keeps its share of chips in both sets.

    Iterative stratification of multi-label data (Sechidis, Tsoumakas and Vlahavas, 2011,
    doi:10.1007/978-3-642-23808-6_10): the rarest class is shared out first.

    Parameters
    ----------
    keys, share, seed
        As in :func:`random_split`.
    present
        bool (N, K), True where chip n holds class k.

    Raises
    ------
    DataError
        Fewer than two chips.
    """
    count = validation_count(len(keys), share)
    order = np.argsort(_ranks(keys, seed), kind="stable")
    # Chips without any class are a class of their own, or they would all land in one set.
    labels = np.column_stack([present, ~present.any(axis=1)]).astype(bool)
    wanted = labels.sum(axis=0) * (count / len(keys))
    left = count
    is_open = np.ones(len(keys), bool)
    remaining = labels.sum(axis=0)
    valid: list[int] = []
    while is_open.any():
        rarest = int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
        members = order[is_open[order] & labels[order, rarest]]
        is_open[members] = False
        remaining = remaining - labels[members].sum(axis=0)
        take = min(left, max(0, round(wanted[rarest])))
        chosen = members[:take]
        valid += chosen.tolist()
        left -= len(chosen)
        wanted = wanted - labels[chosen].sum(axis=0)
    chosen_set = set(valid)
    spare = [i for i in order if i not in chosen_set]
    valid += spare[: count - len(valid)]  # rounding may leave a few places open
    return _split(np.array(valid, np.int64), len(keys))


def block_split(keys: Sequence[str], bounds: np.ndarray, share: float, seed: int) -> Split:
    """Blocks of neighbouring chips validate, and no training chip overlaps one of them.

    Parameters
    ----------
    keys, share, seed
        As in :func:`random_split`.
    bounds
        float64 (N, 4): xmin, ymin, xmax, ymax of each chip in one plane, any unit.

    Raises
    ------
    DataError
        Fewer than two chips, or no training chip is left because all overlap.
    """
    count = validation_count(len(keys), share)
    ranks = _ranks(keys, seed)
    side = np.median(bounds[:, 2:] - bounds[:, :2], axis=0)
    centres = (bounds[:, 2:] + bounds[:, :2]) / 2 / np.where(side > 0, side, 1.0)
    is_open = np.ones(len(keys), bool)
    valid: list[int] = []
    for size in _block_sizes(count):
        candidates = np.flatnonzero(is_open)
        middle = candidates[ranks[candidates].argmin()]
        distance = np.abs(centres[candidates] - centres[middle]).max(axis=1)
        # Ties by position, then rank: whole rows of chips instead of scattered ones.
        near = np.lexsort(
            (ranks[candidates], centres[candidates, 0], centres[candidates, 1], distance.round(6))
        )
        block = candidates[near[:size]]
        is_open[block] = False
        valid += block.tolist()
    chosen = np.array(valid, np.int64)
    dropped = _overlapping(bounds, chosen, np.flatnonzero(is_open), side)
    split = _split(chosen, len(keys), dropped)
    if not split.train:
        raise DataError(
            "split='block' leaves no training chip: every other chip overlaps the validation "
            "block. Use split='random', a smaller val_split_pct, or export more ground."
        )
    return split


def _block_sizes(count: int) -> list[int]:
    blocks = max(1, count // _BLOCK_CHIPS)
    return [len(part) for part in np.array_split(np.arange(count), blocks)]


def _overlapping(
    bounds: np.ndarray, valid: np.ndarray, others: np.ndarray, side: np.ndarray
) -> np.ndarray:
    """Those of ``others`` that share ground with a validation chip (touching edges do not)."""
    shrink = np.concatenate([side, -side]) * 1e-3
    tree = shapely.STRtree(shapely.box(*bounds[valid].T))
    pairs = tree.query(shapely.box(*(bounds[others] + shrink).T), predicate="intersects")
    return others[np.unique(pairs[0])]
