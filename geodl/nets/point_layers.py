"""Layers over packed points: the points of all blocks of a batch in one table, without padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SLOPE = 0.2
# Window sides, as shares of a block, in which the lowest point is looked for.
_WINDOWS = (1 / 16, 1 / 6, 1 / 2)
_TINY = 1e-12
# Half side of the lattice of cells over a block, in half blocks.
_REACH = 1.5


class PointMLP(nn.Sequential):
    """A dense layer shared by all points, batch normalisation and a leaky ReLU.

    Takes and gives (..., C); statistics are those of all points of the batch.
    """

    def __init__(self, inputs: int, outputs: int, *, active: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Linear(inputs, outputs, bias=False),
            nn.BatchNorm1d(outputs, momentum=0.1),
        ]
        super().__init__(*layers, *([nn.LeakyReLU(SLOPE)] if active else []))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1])
        if self.training and len(rows) == 1:
            # A single point has no statistics; twice the same has.
            rows = rows.expand(2, -1)
        flat: Tensor = super().forward(rows)[: x.shape[:-1].numel()]
        return flat.reshape(*x.shape[:-1], -1)


class ShapeColumns(nn.Module):
    """What the surroundings of each point look like, from positions alone; nothing is learned.

    Heights above the lowest point in three windows around it, and of the neighbours' covariance
    (eigenvalues a >= b >= c): linearity (a - b) / a, planarity (b - c) / a, scattering c / a, and
    the part of the normal that stands up (Weinmann et al. 2015, 10.1016/j.isprsjprs.2015.01.016).
    """

    columns = len(_WINDOWS) + 4

    def forward(self, xyz: Tensor, block: Tensor, neighbours: Tensor) -> Tensor:
        """float32 (S, 7).

        Parameters
        ----------
        xyz
            float32 (S, 3), in half blocks.
        block
            int64 (S,), block of each point.
        neighbours
            int64 (S, k).
        """
        with torch.no_grad():
            heights = [heights_above(xyz, block, 2 * share) for share in _WINDOWS]
            return torch.cat([torch.stack(heights, 1), eigen_columns(xyz, neighbours)], dim=1)


def heights_above(xyz: Tensor, block: Tensor, window: float) -> Tensor:
    """float32 (S,): height of each point above the lowest within the 3 x 3 cells around it.

    Parameters
    ----------
    window
        Side of the nine cells together, in the units of ``xyz``.
    """
    cell = window / 3
    # A lattice of its own for every block, whatever else is in the batch; turned or scaled blocks
    # reach a little beyond 1.
    side = math.ceil(2 * _REACH / cell)
    places = torch.floor((xyz[:, :2] + _REACH) / cell).long().clamp(0, side - 1)
    lowest = xyz.new_full((int(block.max()) + 1, side, side), math.inf)
    flat = (block * side + places[:, 1]) * side + places[:, 0]
    lowest.view(-1).scatter_reduce_(0, flat, xyz[:, 2].contiguous(), "amin")
    around = -nn.functional.max_pool2d(-lowest.unsqueeze(1), 3, 1, 1).squeeze(1)
    return xyz[:, 2] - around.reshape(-1)[flat]


def eigen_columns(xyz: Tensor, neighbours: Tensor) -> Tensor:
    """float32 (S, 4): linearity, planarity, scattering and upright part of the normal."""
    around = xyz[neighbours]
    centred = around - around.mean(dim=1, keepdim=True)
    covariance = centred.transpose(1, 2) @ centred / neighbours.shape[1]
    # In units of its trace, so that the closed form below is as exact for small clouds.
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1).clamp(min=_TINY)
    covariance = covariance / trace.view(-1, 1, 1)
    large, middle, small = symmetric_eigenvalues(covariance)
    whole = large.clamp(min=1e-6)
    upright = smallest_direction(covariance, small)[:, 2].abs()
    return torch.stack(
        [(large - middle) / whole, (middle - small) / whole, small / whole, upright], dim=1
    )


def symmetric_eigenvalues(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (S,) of symmetric (S, 3, 3) matrices, descending, by the trigonometric form.

    Batched solvers take a hundred times as long for matrices this small.
    """
    mean = matrix.diagonal(dim1=1, dim2=2).mean(1)
    centred = matrix - mean.view(-1, 1, 1) * torch.eye(3, device=matrix.device)
    spread = (centred.square().sum((1, 2)) / 6).sqrt().clamp(min=_TINY)
    scaled = centred / spread.view(-1, 1, 1)
    angle = torch.acos((torch.linalg.det(scaled) / 2).clamp(-1, 1)) / 3
    large = mean + 2 * spread * torch.cos(angle)
    small = mean + 2 * spread * torch.cos(angle + 2 * math.pi / 3)
    return large, (3 * mean - large - small), small.clamp(min=0)


def smallest_direction(matrix: Tensor, value: Tensor) -> Tensor:
    """float32 (S, 3): unit eigenvectors of the smallest eigenvalue; zero where it is not single."""
    rest = matrix - value.view(-1, 1, 1) * torch.eye(3, device=matrix.device)
    products = torch.stack(
        [torch.linalg.cross(rest[:, i], rest[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))], dim=1
    )
    lengths = products.norm(dim=2)
    best = lengths.argmax(dim=1)
    chosen = products[torch.arange(len(products), device=products.device), best]
    return chosen / lengths.amax(dim=1, keepdim=True).clamp(min=_TINY)
