"""Centre lines of a mask as pixels and as the graph of their neighbours, part by part.

Everything here looks a known number of pixels far, so that parts of a raster, read with that much
around them, give what the whole gives.
"""

from __future__ import annotations

import numpy as np

from geodl.base.packages import require
from geodl.ops.line_trace import trace

# One step of thinning looks at neighbours of neighbours: two passes of 3 x 3 pixels.
REACH_PER_STEP_PX = 2


def thin_steps(mask: np.ndarray, steps: int) -> np.ndarray:
    """Peel a mask down to its centre lines, so many layers at most (Guo and Hall 1989,
    10.1145/62065.62074, by scikit-image).

    A pixel depends on what lies within ``REACH_PER_STEP_PX * steps`` of it, and steps add up:
    eight and then eight are sixteen.

    Parameters
    ----------
    mask
        bool (H, W); what lies outside is empty.

    Returns
    -------
    bool (H, W)

    Raises
    ------
    MissingPackageError
        scikit-image is not installed.
    """
    found: np.ndarray = require("skimage.morphology", "maps").thin(mask, max_num_iter=steps)
    return found


# Right, down, and both diagonals down; with each the two pixels beside a diagonal.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def line_pieces(lines: np.ndarray, row: int, col: int, width: int) -> list[np.ndarray]:
    """Follow the lines of one part.

    Neighbours are joined, diagonal ones only where no pixel beside them joins them already. A
    step belongs to the part that holds its upper, or else left, pixel.

    Parameters
    ----------
    lines
        bool (H + 2, W + 2): the part with one pixel around it.
    row, col
        Of the part's first pixel in the whole raster.
    width
        Of the whole raster.

    Returns
    -------
    int64 (N,) each: successive pixels ``row * width + col``. Pieces end where lines meet or end, or
    may go on in another part; a closed line begins and ends at one of its pixels.
    """
    height, breadth = lines.shape[0] - 2, lines.shape[1] - 2
    steps = _steps_between(lines)
    if not len(steps):
        return []
    degree = np.bincount(steps.ravel(), minlength=lines.size)
    rows, cols = np.divmod(steps[:, 0], breadth + 2)
    own = (rows >= 1) & (rows <= height) & (cols >= 1) & (cols <= breadth)
    steps = steps[own]
    nodes, ends = np.unique(steps, return_inverse=True)
    ends = ends.reshape(-1, 2)
    # Beyond the part the count of neighbours is not known; there pieces end in any case.
    place = np.divmod(nodes, breadth + 2)
    outside = (place[0] < 1) | (place[0] > height) | (place[1] < 1) | (place[1] > breadth)
    stops = outside | (degree[nodes] != 2)
    numbers = (place[0] - 1 + row) * width + (place[1] - 1 + col)
    return [numbers[_passed(ends, chain)] for chain in trace(ends, stops)]


def _steps_between(lines: np.ndarray) -> np.ndarray:
    """int64 (M, 2): places in the flat array of pixels that are joined, the upper or left first."""
    height, width = lines.shape
    places = np.arange(lines.size).reshape(lines.shape)
    found = []
    for down, right in _STEPS:
        rows = slice(0, height - down)
        cols = slice(max(0, -right), width - max(0, right))
        there = (slice(down, height), slice(cols.start + right, cols.stop + right))
        both = lines[rows, cols] & lines[there]
        if down and right:
            both &= ~(lines[rows, there[1]] | lines[there[0], cols])
        found.append(np.stack([places[rows, cols][both], places[there][both]], axis=1))
    return np.concatenate(found)


def _passed(ends: np.ndarray, chain: list[int]) -> np.ndarray:
    """The nodes along a chain of halves of edges, both ends included."""
    halves = np.asarray(chain)
    flat = ends.ravel()
    return np.concatenate([flat[halves], flat[halves[-1:] ^ 1]])
