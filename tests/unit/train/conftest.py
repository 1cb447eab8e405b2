"""A network and batches that train in milliseconds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geodl.core.classes import ClassTable
from geodl.tasks.pixels import PixelTask


class SmallNet(nn.Module):
    """Two groups: a backbone with normalisation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 2, 1)

    def layer_groups(self):
        return [[self.backbone], [self.head]]

    def forward(self, x):
        return self.head(self.backbone(x))


def make_batches(count=3, size=4):
    made = torch.Generator().manual_seed(0)
    batches = []
    for i in range(count):
        target = torch.randint(0, 2, (size, 8, 8), generator=made)
        noise = torch.randn(size, 1, 8, 8, generator=made)
        names = [f"chip{i}_{j}" for j in range(size)]
        batches.append(
            {"image": target[:, None] * 2 + 0.3 * noise, "target": target, "name": names}
        )
    return batches


@pytest.fixture
def net():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return SmallNet()


@pytest.fixture
def task():
    return PixelTask(ClassTable.from_mapping({1: "tree"}))


@pytest.fixture
def batches():
    return make_batches()
