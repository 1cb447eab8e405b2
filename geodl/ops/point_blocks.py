"""Square blocks of points that overlap by half, so that each point lies in four of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def overlapping_blocks(
    xy: np.ndarray, side: float
) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
    """The blocks that hold a point, on a lattice of half a side from the origin of the CRS.

    Parameters
    ----------
    xy
        float64 (N, 2).
    side
        Of a block, in the units of ``xy``.

    Yields
    ------
    The centre of a block, and int64 (n,) positions of its points, ascending. Blocks come by row
    and column; each point is in four of them.
    """
    step = side / 2
    cells = np.floor(xy / step).astype(np.int64)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    cells = cells[order]
    new = np.ones(len(xy), bool)
    new[1:] = (cells[1:] != cells[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    stops = [*starts[1:], len(xy)][: len(starts)]
    members = {
        (int(cells[a, 0]), int(cells[a, 1])): order[a:b] for a, b in zip(starts, stops, strict=True)
    }
    corners = sorted({(y - j, x - i) for x, y in members for i in (0, 1) for j in (0, 1)})
    for row, column in corners:
        parts = [
            members[cell]
            for cell in ((column + i, row + j) for j in (0, 1) for i in (0, 1))
            if cell in members
        ]
        yield ((column + 1) * step, (row + 1) * step), np.sort(np.concatenate(parts))


def limited_parts(
    positions: np.ndarray, most: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """A block as parts of at most ``most`` points, each point in one, drawn by chance.

    Parameters
    ----------
    positions
        int64 (n,).

    Returns
    -------
    Parts of nearly the same size, ascending inside; the block itself where it is small enough.
    """
    count = -(-len(positions) // most)
    if count <= 1:
        return [positions]
    shuffled = generator.permutation(positions)
    return [np.sort(part) for part in np.array_split(shuffled, count)]
