"""Blocks of points as levels: neighbours, samples, and that nothing leaks between blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geodl.nets.point_levels import (
    _nearest_dense,
    farthest,
    farthest_levels,
    make_levels,
    nearest,
    query_levels,
    random_levels,
)


def padded(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.zeros(len(counts), max(counts), 4)
    for row, count in zip(points, counts, strict=True):
        row[:count] = torch.rand(count, 4, generator=generator) * 2 - 1
    return points, torch.tensor(counts)


def test_nearest_is_what_all_distances_say() -> None:
    points, _ = padded([200])
    xyz = points[0, :, :3]
    expected = torch.cdist(xyz[:20], xyz).argsort(1)[:, :5]
    assert torch.equal(nearest(xyz, xyz[:20], 5), expected)
    assert torch.equal(_nearest_dense(xyz, xyz[:20], 5), expected)


def test_of_too_few_points_all_are_taken_over_and_over() -> None:
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    assert nearest(xyz, xyz[:1], 5).tolist() == [[0, 1, 0, 1, 0]]


def test_farthest_points_are_spread() -> None:
    xyz = torch.zeros(101, 3)
    xyz[:, 0] = torch.linspace(0, 1, 101)
    assert farthest(xyz, 3).tolist() == [0, 100, 50]


def test_random_levels_are_parts_of_their_own_block() -> None:
    points, length = padded([50, 33])
    levels = random_levels(points, length, ratios=[4, 2], k=6)
    assert levels["order"].sort().values.tolist() == [*range(50), *range(50, 83)]
    sizes = [83, 12 + 8, 6 + 4]
    assert [len(t) for t in levels["neighbours"]] == sizes
    block = levels["block"]
    for neighbours, down in zip(levels["neighbours"], [*levels["down"], None], strict=True):
        assert torch.equal(block[neighbours], block[:, None].expand_as(neighbours))
        block = block if down is None else block[down]
    own = points.flatten(0, 1)[levels["order"], :3]
    kept = own[levels["down"][0]]
    apart = (own[:, None] - kept[None]).norm(dim=2)
    apart[levels["block"][:, None] != levels["block"][levels["down"][0]][None]] = 9.0
    assert torch.equal(levels["up"][0], apart.argmin(1))


def test_a_block_is_sampled_by_its_own_content() -> None:
    points, length = padded([50, 33])
    whole = random_levels(points, length, ratios=[4], k=6)
    alone = random_levels(points[1:, :33], length[1:], ratios=[4], k=6)
    assert torch.equal(whole["order"][50:] - 50, alone["order"])
    assert torch.equal(whole["neighbours"][0][50:] - 50, alone["neighbours"][0])
    generator = torch.Generator().manual_seed(0)
    drawn = [
        random_levels(points, length, ratios=[4], k=6, generator=generator)["order"]
        for _ in range(2)
    ]
    assert not torch.equal(drawn[0], drawn[1])


def test_queries_know_three_points_of_each_sampled_level() -> None:
    points, length = padded([40, 24])
    levels = query_levels(points, length, ratios=[4, 2], k=6)
    own = points.flatten(0, 1)[levels["order"], :3]
    places, block = own, levels["block"]
    for down, near in zip(levels["down"], levels["near"], strict=True):
        places, block = places[down], block[down]
        apart = (own[:, None] - places[None]).norm(dim=2)
        apart[levels["block"][:, None] != block[None]] = 9.0
        if len(places) >= 6:
            found = torch.gather(apart, 1, near)
            assert torch.allclose(found, apart.sort(1).values[:, :3])


def test_parts_of_a_large_block_cover_it_once() -> None:
    points, length = padded([100, 20])
    options = {"counts": [-1, 8], "k": [4, 4], "dilation": [1, 2], "sample": 30}
    levels = farthest_levels(points, length, **options)
    expected = [*range(100), *range(100, 120)]
    assert levels["order"].sort().values.tolist() == expected
    assert np.bincount(levels["block"].numpy()).tolist() == [25, 25, 25, 25, 20]
    assert len(levels["into"][1]) == 5 * 8
    assert [len(t) for t in levels["back"]] == [120, 120]
    train = farthest_levels(points, length, **options, generator=torch.Generator().manual_seed(0))
    assert np.bincount(train["block"].numpy()).tolist() == [30, 20]


def test_levels_are_made_by_name() -> None:
    points, length = padded([30])
    levels = make_levels({"kind": "random", "ratios": [4], "k": 3}, points, length)
    assert len(levels["down"][0]) == 7
    with pytest.raises(KeyError):
        make_levels({"kind": "none"}, points, length)
