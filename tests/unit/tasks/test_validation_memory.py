"""Scoring keeps counts and no pixels: memory is that of a batch, however many chips there are."""

import gc
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

SIDE, COUNT = 64, 23
CLASSES = ClassTable.from_mapping({1: "a", 2: "b"})


class Answer(nn.Module):
    """Logits of so many outputs from the first band."""

    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Conv2d(1, outputs, 1)

    def forward(self, x):
        return self.layer(x[:, :1])


def held():
    """Bytes that calls of geodl have allocated and keep, and those of all tensors.

    Of the first only what a line of geodl asked for: threads of other tests allocate as well.
    """
    ours = tracemalloc.Filter(True, "*/geodl/*", all_frames=True)
    traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
    tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor]
    return sum(trace.size for trace in traces) + sum(t.nbytes for t in tensors)


def batches(task, count, sizes=None):
    made = torch.Generator().manual_seed(0)
    for number in range(count):
        if sizes is not None and number in (2, count - 1):
            sizes.append(held())
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

    sizes = []
    few = evaluate(net, task, batches(task, 3), device, meter=meter)
    tracemalloc.start(30)
    try:
        many = evaluate(net, task, batches(task, COUNT, sizes), device, meter=meter)
    finally:
        tracemalloc.stop()
    assert len(pickle.dumps(many.meter)) <= len(pickle.dumps(few.meter)) + 32
    # A byte for each pixel of the batches between would be twice as much.
    assert sizes[1] - sizes[0] < (COUNT - 3) * 2 * SIDE**2 / 2


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
