from __future__ import annotations

import numpy as np
import shapely

from geodl.ops.instance_parts import join_parts

LEFT, RIGHT = [0.0, 0.0, 64.0, 64.0], [32.0, 0.0, 96.0, 64.0]


def groups(outlines, tiles, cut, labels=None) -> list[set[int]]:
    labels = np.ones(len(outlines), int) if labels is None else np.array(labels)
    found = join_parts(np.array(outlines, object), labels, np.array(tiles), np.array(cut))
    return sorted((set(group.tolist()) for group in found), key=min)


def test_parts_that_agree_where_both_tiles_look_are_one_object() -> None:
    parts = [shapely.box(20, 10, 64, 30), shapely.box(32, 10, 80, 30)]
    assert groups(parts, [LEFT, RIGHT], [True, True]) == [{0, 1}]
    assert groups(parts, [LEFT, RIGHT], [True, True], labels=[1, 2]) == [{0}, {1}]


def test_neighbours_that_touch_stay_two() -> None:
    parts = [shapely.box(20, 10, 64, 30), shapely.box(32, 30, 80, 50)]
    assert groups(parts, [LEFT, RIGHT], [True, True]) == [{0}, {1}]
    overlapping = [shapely.box(20, 10, 64, 30), shapely.box(20, 12, 64, 32)]
    assert groups(overlapping, [LEFT, LEFT], [True, True]) == [{0}, {1}]


def test_a_part_of_an_object_that_another_tile_saw_whole_is_left_out() -> None:
    seen = [shapely.box(50, 10, 70, 30), shapely.box(50, 10, 64, 30)]
    assert groups(seen, [RIGHT, LEFT], [False, True]) == [{0}]
    assert groups(seen, [RIGHT, LEFT], [False, True], labels=[1, 2]) == [{0}, {1}]


def test_a_chain_of_parts_is_one_object() -> None:
    tiles = [[32.0 * k, 0.0, 32.0 * k + 64, 64.0] for k in range(4)]
    parts = [shapely.box(*tile).intersection(shapely.box(10, 20, 150, 40)) for tile in tiles]
    assert groups(parts, tiles, [True] * 4) == [{0, 1, 2, 3}]


def test_nothing_gives_nothing() -> None:
    none = np.zeros(0, object)
    assert join_parts(none, np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, bool)) == []
