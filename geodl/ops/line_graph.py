"""Lines and the places where they meet: joined from pieces, pruned and simplified."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from scipy import sparse
from scipy.sparse import csgraph

from geodl.ops.line_trace import trace


@dataclass(frozen=True)
class LineGraph:
    """Lines between nodes.

    Parameters
    ----------
    ends
        int64 (M, 2): numbers of the nodes that each line leads from and to.
    paths
        float64 (P, 3) each: column and row of pixel centres, and the pixels' value.
    """

    ends: np.ndarray
    paths: list[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        """float64 (M,), in pixels."""
        return np.array([_length(path) for path in self.paths])


def join_pieces(pieces: list[np.ndarray], values: list[np.ndarray], width: int) -> LineGraph:
    """The lines of a raster from those of its parts; the same however it was cut.

    Pixels where three and more lines meet and that are neighbours make one node, at their mean.

    Parameters
    ----------
    pieces
        Of :func:`geodl.ops.skeleton.line_pieces`, of all parts.
    values
        int (N,) each: the raster's values at the pieces' pixels.
    width
        Of the raster.
    """
    paths = [
        np.stack([pixels % width, pixels // width, found], axis=1).astype(np.float64)
        for pixels, found in zip(pieces, values, strict=True)
    ]
    ends = np.array([(p[0], p[-1]) for p in pieces], np.int64).reshape(-1, 2)
    whole = _in_order(_dissolve(LineGraph(ends, paths)))
    return _in_order(_with_clusters(whole))


def prune(graph: LineGraph, least_px: float) -> LineGraph:
    """Drop short spurs, then what is short altogether.

    Of spurs where only one line goes on, the longest stays as its end.

    Parameters
    ----------
    least_px
        Spurs, and lines that are connected to nothing longer, are at least this long.
    """
    while len(graph.paths):
        gone = _spurs(graph, least_px)
        if not gone.any():
            break
        graph = _in_order(_dissolve(_keep(graph, ~gone)))
    if not len(graph.paths):
        return graph
    nodes, ends = np.unique(graph.ends, return_inverse=True)
    ends = ends.reshape(-1, 2)
    group = _groups(ends, len(nodes))[ends[:, 0]]
    total = np.bincount(group, weights=graph.lengths)
    return _keep(graph, total[group] >= least_px)


def simplified(graph: LineGraph, tolerance_px: float) -> np.ndarray:
    """shapely LineStrings (M,) in pixel edges (x right, y down), within so much of the paths
    (Douglas and Peucker 1973, 10.3138/FM57-6770-U75U-7727)."""
    lines = [shapely.LineString(path[:, :2] + 0.5) for path in graph.paths]
    found: np.ndarray = shapely.simplify(np.array(lines, dtype=object), tolerance_px)
    return found


def main_values(graph: LineGraph) -> np.ndarray:
    """int64 (M,): the value that most pixels of each line have; the smallest of equals."""
    found = []
    for path in graph.paths:
        values, counts = np.unique(path[:, 2], return_counts=True)
        found.append(int(values[counts.argmax()]))
    return np.array(found, np.int64)


def _length(path: np.ndarray) -> float:
    steps = np.diff(path[:, :2], axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def _keep(graph: LineGraph, kept: np.ndarray) -> LineGraph:
    return LineGraph(graph.ends[kept], [p for p, k in zip(graph.paths, kept, strict=True) if k])


def _groups(ends: np.ndarray, count: int) -> np.ndarray:
    """int (count,): nodes with one number are connected."""
    links = sparse.coo_matrix((np.ones(len(ends), bool), ends.T), (count, count))
    return np.asarray(csgraph.connected_components(links, directed=False)[1])


def _dissolve(graph: LineGraph) -> LineGraph:
    """Lines that meet at nodes of no other line become one."""
    if not len(graph.paths):
        return graph
    nodes, ends = np.unique(graph.ends, return_inverse=True)
    chains = trace(ends.reshape(-1, 2), np.zeros(len(nodes), bool))
    paths, found = [], []
    for chain in chains:
        parts = [graph.paths[half >> 1][:: -1 if half & 1 else 1] for half in chain]
        paths.append(np.concatenate([parts[0], *(part[1:] for part in parts[1:])]))
        flat = graph.ends.ravel()
        found.append((flat[chain[0]], flat[chain[-1] ^ 1]))
    return LineGraph(np.array(found, np.int64), paths)


def _in_order(graph: LineGraph) -> LineGraph:
    """Each line from its upper, else left end, a ring from such a pixel; lines from above."""
    degree = dict(zip(*(part.tolist() for part in _degrees(graph.ends)), strict=True))
    ends, paths = [], []
    for (one, two), path in zip(graph.ends.tolist(), graph.paths, strict=True):
        if one == two and degree[one] == 2:
            path = _from_first(path)
        if _key(path) > _key(path[::-1]):
            one, two, path = two, one, path[::-1]
        ends.append((one, two))
        paths.append(path)
    order = sorted(range(len(paths)), key=lambda k: _key(paths[k]))
    return LineGraph(
        np.array([ends[k] for k in order], np.int64).reshape(-1, 2), [paths[k] for k in order]
    )


def _degrees(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and how many ends of lines each has."""
    nodes, counts = np.unique(ends, return_counts=True)
    return nodes, counts


def _key(path: np.ndarray) -> tuple[float, ...]:
    """Differs for any two lines: no two leave one place to the same neighbour."""
    return tuple(path[[0, 1, -1], 1::-1].ravel().tolist())


def _from_first(ring: np.ndarray) -> np.ndarray:
    """A closed path from its uppermost, then leftmost pixel."""
    opened = ring[:-1]
    start = int(np.lexsort((opened[:, 0], opened[:, 1]))[0])
    turned = np.roll(opened, -start, axis=0)
    return np.concatenate([turned, turned[:1]])


def _with_clusters(graph: LineGraph) -> LineGraph:
    """Neighbouring pixels where lines meet as one node each, at their mean."""
    if not len(graph.paths):
        return graph
    nodes, ends = np.unique(graph.ends, return_inverse=True)
    ends = ends.reshape(-1, 2)
    meets = np.bincount(ends.ravel(), minlength=len(nodes)) >= 3
    steps = np.array([len(path) for path in graph.paths]) == 2
    inner = steps & meets[ends].all(axis=1)
    group = _groups(ends[inner], len(nodes))
    points = np.empty((len(nodes), 2))
    points[ends.ravel()] = np.concatenate([path[[0, -1], :2] for path in graph.paths])
    count = np.bincount(group)
    means = np.stack([np.bincount(group, weights=points[:, k]) / count for k in (0, 1)], axis=1)
    # Nodes are in rising order, so the first of a group is its smallest.
    first = np.full(len(count), -1)
    first[group[::-1]] = nodes[::-1]
    paths, found = [], []
    for k in np.flatnonzero(~inner):
        one, two = group[ends[k]]
        path = graph.paths[k].copy()
        path[0, :2], path[-1, :2] = means[one], means[two]
        paths.append(path)
        found.append((first[one], first[two]))
    return LineGraph(np.array(found, np.int64).reshape(-1, 2), paths)


def _spurs(graph: LineGraph, least_px: float) -> np.ndarray:
    """bool (M,): short lines to go: rings on a node, and ends beside lines that go on."""
    nodes, ends = np.unique(graph.ends, return_inverse=True)
    ends = ends.reshape(-1, 2)
    degree = np.bincount(ends.ravel(), minlength=len(nodes))
    lengths = graph.lengths
    short = lengths < least_px
    one, two = degree[ends].T
    gone = short & (ends[:, 0] == ends[:, 1]) & (one > 2)
    loose = short & ((one == 1) & (two > 2) | (two == 1) & (one > 2))
    root = np.where(one == 1, ends[:, 1], ends[:, 0])
    rest = degree.copy()
    np.subtract.at(rest, root[loose], 1)
    np.subtract.at(rest, ends[gone].ravel(), 1)
    # Longest first at each node; the first ones stay where fewer than two other lines are left.
    order = np.flatnonzero(loose)
    order = order[np.lexsort((-lengths[order], root[order]))]
    for k in order.tolist():
        if rest[root[k]] < 2:
            rest[root[k]] += 1
        else:
            gone[k] = True
    return gone
