"""Edges of a graph put in line: chains between the nodes where lines meet or end."""

from __future__ import annotations

import numpy as np


def trace(ends: np.ndarray, stops: np.ndarray) -> list[list[int]]:
    """Chains of edges, cut at the nodes that stop and where not exactly two edges meet.

    Parameters
    ----------
    ends
        int (M, 2): the nodes of each edge, 0..N - 1; both may be the same.
    stops
        bool (N,): nodes at which chains end.

    Returns
    -------
    For each chain the halves that it leaves nodes by: ``2 * edge + side``, where ``side`` says
    which of the edge's two nodes comes first. Closed chains without a stop come last.
    """
    flat = ends.ravel()
    order = np.argsort(flat, kind="stable")
    degree = np.bincount(flat, minlength=len(stops))
    halted = stops | (degree != 2)
    first = np.concatenate([[0], np.cumsum(degree)])[:-1]
    partner = np.full(len(flat), -1)
    through = first[~halted]
    one, two = order[through], order[through + 1]
    partner[one], partner[two] = two, one
    going_on = partner.tolist()
    seen = [False] * len(ends)

    def follow(half: int) -> list[int]:
        chain = []
        while half >= 0 and not seen[half >> 1]:
            seen[half >> 1] = True
            chain.append(half)
            half = going_on[half ^ 1]
        return chain

    starts = np.flatnonzero(halted[flat]).tolist()
    chains = [follow(half) for half in starts if not seen[half >> 1]]
    chains += [follow(2 * edge) for edge in range(len(ends)) if not seen[edge]]
    return chains
