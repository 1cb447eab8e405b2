"""Convolution over occupied cells gives what a dense convolution gives there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from geodl.nets.sparse_conv import (
    GatheredProduct,
    SparseCells,
    SparseConv,
    dense_map,
    flat_keys,
    places_of,
    same_joins,
    strided_joins,
)
from geodl.nets.voxels import lattice_shape, make_voxels

SHAPE = (5, 7, 6)


@pytest.fixture(scope="module")
def cells() -> SparseCells:
    taken = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)) < 0.3
    return SparseCells(taken.nonzero(), SHAPE, 2)


def dense(features: Tensor, weight: Tensor, cells: SparseCells, stride: tuple[int, ...]) -> Tensor:
    whole = torch.zeros(2, *SHAPE, 3).index_put(tuple(cells.places.T), features)
    kernel = weight.view(3, 3, 3, 3, 4).permute(4, 3, 0, 1, 2)
    return functional.conv3d(whole.permute(0, 4, 1, 2, 3), kernel, stride=stride, padding=1)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (2, 1, 1)])
def test_answers_and_gradients_are_those_of_a_dense_convolution(
    cells: SparseCells, stride: tuple[int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(cells.places), 3, generator=generator, requires_grad=True)
    weight = torch.randn(27, 3, 4, generator=generator, requires_grad=True)
    found, joins = (
        (cells, same_joins(cells)) if stride == (1, 1, 1) else strided_joins(cells, stride)
    )
    answer = GatheredProduct.apply(features, weight, joins)
    whole = dense(features, weight, cells, stride)
    b, z, y, x = found.places.T
    expected = whole[b, :, z, y, x]
    assert torch.allclose(answer, expected, atol=1e-5)
    if stride != (1, 1, 1):
        # Where no output cell lies, the dense convolution gives nothing either.
        assert torch.isclose(whole.abs().sum(), expected.abs().sum(), rtol=1e-5)
        assert found.shape == tuple(whole.shape[2:])
    ours = torch.autograd.grad(answer.square().sum(), (features, weight))
    theirs = torch.autograd.grad(expected.square().sum(), (features, weight))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-3)


def test_keys_and_places_are_each_other_s_opposite(cells: SparseCells) -> None:
    assert torch.equal(places_of(flat_keys(cells.places, SHAPE), SHAPE), cells.places)
    assert (cells.keys().diff() > 0).all()


def test_the_map_holds_layers_as_channels(cells: SparseCells) -> None:
    features = torch.arange(len(cells.places), dtype=torch.float32)[:, None] + 1
    seen = dense_map(features, cells)
    assert seen.shape == (2, SHAPE[0], SHAPE[1], SHAPE[2])
    b, z, y, x = cells.places.T
    assert torch.equal(seen[b, z, y, x], features[:, 0])


def test_a_layer_of_one_cell_can_be_trained() -> None:
    layer = SparseConv(2, 3).train()
    joins = same_joins(SparseCells(torch.zeros(1, 4, dtype=torch.int64), (1, 1, 1), 1))
    assert layer(torch.ones(1, 2), joins).shape == (1, 3)


OPTIONS = {"low": [-2, -2, 0], "high": [2, 2, 4], "size": [1.0, 1.0, 2.0], "voxel_points": 2,
           "max_voxels": [3, 4]}  # fmt: skip


def test_points_fall_into_cells_and_too_many_are_dropped() -> None:
    assert lattice_shape(OPTIONS["low"], OPTIONS["high"], OPTIONS["size"]) == [2, 4, 4]
    rows = [[-1.5, -1.5, 0.5]] * 5 + [[1.5, -0.5, 3.0], [9.0, 0, 0]]
    points = torch.tensor([rows])
    voxels = make_voxels(points, torch.tensor([7]), OPTIONS)
    assert voxels["places"].tolist() == [[0, 0, 0, 0], [0, 1, 1, 3]]
    assert voxels["counts"].tolist() == [2, 1]
    assert voxels["voxel"].tolist() == [0, 0, 1]
    assert set(voxels["order"].tolist()) < {0, 1, 2, 3, 4, 5}


def test_training_holds_fewer_voxels() -> None:
    grid = torch.stack(torch.meshgrid(*[torch.arange(-2, 2) + 0.5] * 2, indexing="xy"), 2)
    points = torch.cat([grid.reshape(-1, 2), torch.ones(16, 1)], dim=1)[None]
    length = torch.tensor([16])
    assert len(make_voxels(points, length, OPTIONS)["places"]) == 4
    drawn = make_voxels(points, length, OPTIONS, torch.Generator().manual_seed(0))
    assert len(drawn["places"]) == 3
