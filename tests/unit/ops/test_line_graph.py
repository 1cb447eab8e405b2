"""Thinned masks become chains and a graph: exact, whatever the parts, without short spurs."""

import numpy as np
import pytest
import shapely
from scipy import ndimage
from skimage.morphology import thin

from geodl.ops.line_graph import LineGraph, join_pieces, main_values, prune, simplified
from geodl.ops.line_trace import trace
from geodl.ops.skeleton import line_pieces, thin_steps


def graph_of(lines, side=1000):
    """The graph of bool (H, W) lines, cut into parts of ``side`` pixels."""
    height, width = lines.shape
    padded = np.pad(lines, 1)
    pieces = []
    for row in range(0, height, side):
        for col in range(0, width, side):
            part = padded[row : row + min(side, height - row) + 2,
                          col : col + min(side, width - col) + 2]  # fmt: skip
            pieces += line_pieces(part, row, col, width)
    return join_pieces(pieces, [np.ones(len(p), int) for p in pieces], width)


def drawn(*rows):
    return np.array([[mark != "." for mark in row] for row in rows])


def test_chains_end_where_not_exactly_two_edges_meet():
    # A star of three arms at node 0, one of them two edges long, and a ring 5-6-7.
    ends = np.array([(0, 1), (2, 0), (0, 3), (3, 4), (5, 6), (6, 7), (7, 5)])
    chains = trace(ends, np.zeros(8, bool))
    edges = sorted(sorted(half >> 1 for half in chain) for chain in chains)
    assert edges == [[0], [1], [2, 3], [4, 5, 6]]
    stopped = trace(ends, np.arange(8) == 3)
    assert sorted(len(chain) for chain in stopped) == [1, 1, 1, 1, 3]


def test_steps_of_thinning_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.random((80, 90)), 4) > 0.5
    once = thin_steps(thin_steps(thin_steps(mask, 3), 4), 50)
    assert np.array_equal(once, thin(mask))


def test_a_pixel_depends_on_nothing_beyond_its_reach():
    rng = np.random.default_rng(1)
    mask = ndimage.gaussian_filter(rng.random((90, 90)), 4) > 0.5
    steps = 6
    whole, part = thin_steps(mask, steps), thin_steps(mask[20:70, 20:70], steps)
    inner = slice(2 * steps, -2 * steps)
    assert np.array_equal(part[inner, inner], whole[20:70, 20:70][inner, inner])


def test_a_crossing_is_one_node_of_four_lines():
    graph = graph_of(drawn("..#..", "..#..", "#####", "..#..", "..#.."))
    assert len(graph.paths) == 4
    ends = [tuple(p) for path in graph.paths for p in path[[0, -1], :2].tolist()]
    assert ends.count((2.0, 2.0)) == 4
    assert sorted(graph.lengths.tolist()) == [2, 2, 2, 2]


def test_neighbouring_junctions_are_one_node_at_their_mean():
    graph = graph_of(drawn("#...#", ".#.#.", ".#.#.", "..##.", "..#.."))
    nodes, counts = np.unique(graph.ends, return_counts=True)
    assert counts.max() == 3
    assert (counts == 1).sum() == 3
    assert len(nodes) == 4
    where = [tuple(p) for path in graph.paths for p in path[[0, -1], :2].tolist()]
    assert max(where.count(p) for p in where) == 3


def test_a_ring_begins_at_its_first_pixel_and_stays():
    graph = graph_of(drawn("......", "..##..", ".#..#.", "..##.."))
    (ring,) = graph.paths
    assert ring[0].tolist() == ring[-1].tolist() == [2, 1, 1]
    assert len(ring) == 7
    assert prune(graph, 5).paths[0].tolist() == ring.tolist()
    assert prune(graph, 50).paths == []


@pytest.mark.parametrize("side", [1, 2, 3, 7, 16])
def test_any_parts_give_the_graph_of_the_whole(side):
    rng = np.random.default_rng(2)
    lines = thin(ndimage.gaussian_filter(rng.random((50, 60)), 1.5) > 0.5)
    whole, cut = graph_of(lines), graph_of(lines, side)
    assert np.array_equal(whole.ends, cut.ends)
    assert all(np.array_equal(a, b) for a, b in zip(whole.paths, cut.paths, strict=True))
    # Every pixel that has a neighbour is on a path, but for those that a node stands for.
    on = {(int(x), int(y)) for path in whole.paths for x, y, _ in path[1:-1]}
    rows, cols = np.nonzero(lines)
    everywhere = set(zip(cols.tolist(), rows.tolist(), strict=True))
    assert on <= everywhere
    assert len(everywhere - on) < 0.4 * len(everywhere)


def test_spurs_go_and_the_longest_end_of_a_fork_stays():
    lines = np.zeros((40, 60), bool)
    lines[20, 5:50] = True
    lines[16:20, 25] = True  # a spur
    for k in range(1, 5):  # a fork at the right end, of arms of 4 and 6 pixels
        lines[20 - k, 49 + k] = True
    for k in range(1, 7):
        lines[20 + k, 49 + k] = True
    full = graph_of(lines)
    assert len(full.paths) == 5
    (one,) = prune(full, 10).paths
    assert one[[0, -1], :2].tolist() == [[5.0, 20.0], [55.0, 26.0]]
    assert len(prune(full, 0).paths) == 5
    assert prune(full, 1000).paths == []


def test_a_star_of_short_arms_keeps_its_two_longest_if_they_are_long_enough():
    lines = np.zeros((40, 40), bool)
    lines[20, 10:21] = lines[20, 20:28] = lines[12:20, 20] = True
    full = graph_of(lines)
    assert sorted(full.lengths.tolist()) == [7, 8, 10]
    kept = prune(full, 12)
    assert kept.lengths.tolist() == [18]


def test_a_small_ring_on_a_node_goes_with_its_line_made_whole():
    lines = np.zeros((30, 60), bool)
    lines[20, 5:50] = True
    lines[15:20, 24] = True
    lines[13, 24] = lines[14, 23] = lines[14, 25] = False
    lines[10:15, 22] = lines[10:15, 26] = lines[10, 22:27] = lines[14, 22:27] = True
    assert len(graph_of(lines).paths) == 4
    kept = prune(graph_of(lines), 18)
    assert kept.lengths.tolist() == [44]


def test_values_and_simplified_lines():
    path = np.array([(x, 5 if x % 2 else 5.4, 3 if x < 4 else 8) for x in range(20)], float)
    graph = LineGraph(np.array([(0, 1)]), [path])
    assert main_values(graph).tolist() == [8]
    (line,) = simplified(graph, 1.0)
    assert shapely.get_coordinates(line).tolist() == [[0.5, 5.9], [19.5, 5.5]]
    assert len(simplified(graph, 0)[0].coords) == 20


def test_nothing_gives_nothing():
    graph = prune(graph_of(np.zeros((5, 5), bool)), 10)
    assert graph.paths == []
    assert graph.ends.shape == (0, 2)
    assert len(simplified(graph, 1)) == 0
