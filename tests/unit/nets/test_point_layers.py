"""What the surroundings of a point look like."""

from __future__ import annotations

import numpy as np
import torch

from geodl.nets.point_layers import (
    PointMLP,
    ShapeColumns,
    eigen_columns,
    heights_above,
    smallest_direction,
    symmetric_eigenvalues,
)
from geodl.nets.point_levels import nearest


def test_eigenvalues_are_those_of_numpy() -> None:
    base = torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(0))
    matrix = base @ base.transpose(1, 2)
    values, vectors = np.linalg.eigh(matrix.numpy())
    large, middle, small = symmetric_eigenvalues(matrix)
    np.testing.assert_allclose(torch.stack([small, middle, large], 1), values, atol=2e-4)
    along = smallest_direction(matrix, torch.from_numpy(values[:, 0].copy()))
    np.testing.assert_allclose((along.numpy() * vectors[:, :, 0]).sum(1).__abs__(), 1, atol=2e-3)


def test_a_plane_is_planar_and_a_ball_scattered() -> None:
    generator = torch.Generator().manual_seed(2)
    plane = torch.rand(300, 3, generator=generator)
    plane[:, 2] = 0
    wall = plane[:, [0, 2, 1]]
    ball = torch.randn(300, 3, generator=generator)
    found = [eigen_columns(p, nearest(p, p, 24)).mean(0) for p in (plane, wall, ball)]
    assert found[0][1] > 0.5
    assert found[0][2] < 1e-3
    assert found[0][3] > 0.99
    assert found[1][3] < 0.01
    assert found[2][2] > 0.15


def test_heights_count_from_the_lowest_point_of_the_same_block() -> None:
    xyz = torch.tensor([[0.0, 0, 1], [0.01, 0, 3], [0.9, 0.9, 5], [0.0, 0, -7]])
    block = torch.tensor([0, 0, 0, 1])
    assert heights_above(xyz, block, 0.3).tolist() == [0, 2, 0, 0]


def test_shape_does_not_depend_on_other_blocks() -> None:
    xyz = torch.rand(60, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    layer = ShapeColumns()
    block = torch.tensor([0] * 30 + [1] * 30)
    near = [nearest(part, part, 8) for part in xyz.split(30)]
    whole = layer(xyz, block, torch.cat([near[0], near[1] + 30]))
    alone = layer(xyz[30:], torch.zeros(30, dtype=torch.int64), near[1])
    assert whole.shape == (60, ShapeColumns.columns)
    assert torch.equal(whole[30:], alone)


def test_a_single_point_can_be_trained_on() -> None:
    layer = PointMLP(3, 4).train()
    assert layer(torch.ones(1, 3)).shape == (1, 4)
    assert layer(torch.ones(5, 2, 3)).shape == (5, 2, 4)
