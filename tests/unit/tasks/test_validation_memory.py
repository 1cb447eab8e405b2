"""Scoring keeps counts and no pixels: memory is that of a batch, however many chips there are."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from geodl.core.classes import ClassTable
from geodl.tasks.change import ChangeTask
from geodl.tasks.edges import EdgeTask, ToleranceMeter
from geodl.tasks.pixels import PixelTask
from geodl.tasks.roads import RoadTask
from geodl.train.evaluate import evaluate

SIDE = 64
CLASSES = ClassTable.from_mapping({1: "a", 2: "b"})


class Answer(nn.Module):
    """Logits of so many outputs from the first band."""

    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Conv2d(1, outputs, 1)

    def forward(self, x):
        return self.layer(x[:, :1])


def batches(task, count):
    made = torch.Generator().manual_seed(0)
    for number in range(count):
        items = [
            {
                "image": torch.randn(1, SIDE, SIDE, generator=made),
                "target": torch.randint(0, 2, (SIDE, SIDE), generator=made),
                "name": f"{number}-{k}",
            }
            for k in range(2)
        ]
        yield task.collate(items)


CASES = {
    "pixels": (PixelTask(CLASSES), 3, None),
    "roads": (RoadTask(CLASSES), 3, None),
    "edges": (EdgeTask(CLASSES), 1, None),
    "edges with tolerance": (EdgeTask(CLASSES), 1, ToleranceMeter(0.5, 2)),
    "change": (ChangeTask(ClassTable.from_mapping({1: "change"})), 1, None),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_of_scoring_is_flat_in_the_number_of_chips(case):
    task, outputs, meter = CASES[case]
    net = Answer(outputs)
    device = torch.device("cpu")

    def scored(count):
        return evaluate(net, task, batches(task, count), device, meter=meter)

    sizes, peaks = [], []
    scored(1)
    for count in (3, 30):
        tracemalloc.start()
        found = scored(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(len(pickle.dumps(found.meter)))
    assert sizes[1] <= sizes[0] + 32
    # What NumPy and Python hold; a mask of 30 batches would add 240 kB.
    assert peaks[1] < peaks[0] + SIDE * SIDE * 8


def test_scores_of_many_batches_are_those_of_one():
    task, outputs, _ = CASES["pixels"]
    net = Answer(outputs)
    several = list(batches(task, 5))
    whole = {
        "image": torch.cat([b["image"] for b in several]),
        "target": torch.cat([b["target"] for b in several]),
        "name": [name for b in several for name in b["name"]],
    }
    device = torch.device("cpu")
    parts, once = (evaluate(net, task, b, device) for b in (several, [whole]))
    assert parts.meter.compute() == once.meter.compute()
    assert parts.loss == pytest.approx(once.loss)
    assert np.array_equal(parts.meter.counts(), once.meter.counts())
