"""Losses and scores of points, and of boxes among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geodl.base.errors import OptionError
from geodl.core.classes import ClassTable
from geodl.core.oriented import OrientedBoxes
from geodl.tasks.boxes3d import BoxTask, OrientedMeter, median_height
from geodl.tasks.points import PointMeter, PointTask

CLASSES = ClassTable.from_mapping({2: "Ground", 6: "Building"})
LEVELS = {"kind": "random", "ratios": [2], "k": 2}


class Heights(nn.Module):
    """The first class below 0, the last above."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, outputs))

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        z = batch["points"].flatten(0, 1)[batch["levels"]["order"], 2]
        return z[:, None] * self.weight


def item(z: list[float], target: list[int]) -> dict[str, Any]:
    points = torch.zeros(len(z), 3)
    points[:, 0], points[:, 2] = torch.arange(len(z)), torch.tensor(z)
    return {"points": points, "target": torch.tensor(target), "name": "a"}


ITEMS = [item([-1.0, 2.0, 3.0], [1, 2, 1]), item([1.0, -2.0], [-100, 1])]


def test_the_loss_is_the_mean_over_labelled_points() -> None:
    task = PointTask(CLASSES, levels=LEVELS)
    got = task.loss(Heights(2), task.collate(ITEMS))["loss"]
    z, target = torch.tensor([-1.0, 2, 3, -2]), torch.tensor([0, 1, 0, 0])
    expected = functional.cross_entropy(z[:, None] * torch.tensor([-1.0, 1]), target)
    assert torch.isclose(got, expected)


def test_weights_and_focal_loss_change_what_counts() -> None:
    net = Heights(2)
    weighted = PointTask(CLASSES, levels=LEVELS, class_weights=[0.0, 1.0])
    loss = weighted.loss(net, weighted.collate(ITEMS))["loss"].item()
    assert loss == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-4)
    plain = PointTask(CLASSES, levels=LEVELS)
    focal = PointTask(CLASSES, levels=LEVELS, focal_loss=True)
    values = [t.loss(net, t.collate(ITEMS))["loss"].item() for t in (plain, focal)]
    assert values[1] < values[0]


def test_code_zero_is_an_output_where_points_have_it() -> None:
    task = PointTask(CLASSES, levels=LEVELS, codes=[0, 2, 6])
    batch = task.collate([item([-3.0, 0.5, 3.0], [0, 1, 2])])
    assert task.outputs == 3
    assert task.predict(Heights(3), batch)[0].tolist() == [0, 2, 2]
    without = PointTask(CLASSES, levels=LEVELS)
    assert without.predict(Heights(2), batch)[0].tolist() == [1, 2, 2]


def test_scores_stand_in_the_order_of_the_points() -> None:
    task = PointTask(CLASSES, levels=LEVELS)
    scores = task.scores(Heights(2), task.collate(ITEMS))
    assert scores.shape == (2, 3, 2)
    expected = torch.tensor([[-1.0, 2, 3], [1, -2, 0]])
    assert torch.equal(scores[..., 1], expected)


def test_training_samples_anew() -> None:
    task = PointTask(CLASSES, levels=LEVELS)
    many = [item(list(range(50)), [1] * 50)]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        orders = [task.train_collate(many)["levels"]["order"] for _ in range(2)]
    assert not torch.equal(*orders)
    fixed = [task.collate(many)["levels"]["order"] for _ in range(2)]
    assert torch.equal(*fixed)


def test_the_table_has_means_over_classes() -> None:
    meter = PointMeter(2)
    meter.update({"state": torch.tensor([[8, 2], [0, 10]])}, {})
    found = meter.compute()
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["recall"] == pytest.approx(0.9)
    assert found["precision"] == pytest.approx((1 + 10 / 12) / 2)
    assert found["mIoU"] == pytest.approx((8 / 10 + 10 / 12) / 2)


@pytest.mark.parametrize(
    "options",
    [{"codes": [2, 7]}, {"class_weights": [1.0]}, {"class_weights": "x"},
     {"class_weights": [0, 0]}, {"class_weights": [-1, 1]}],
)  # fmt: skip
def test_options_that_make_no_task_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        PointTask(CLASSES, **options)


def test_points_and_boxes_are_drawn() -> None:
    from geodl.data.figure import new_figure

    figure = new_figure(4, 2)
    axes = [figure.add_subplot(1, 2, i, projection="3d") for i in (1, 2)]
    picture = np.zeros((1, 1, 3), np.uint8)
    PointTask(CLASSES, levels=LEVELS).draw(*axes, ITEMS[0], np.array([1, 2, 2]), picture)
    boxes = {"boxes": torch.tensor([[0.0, 0, 0, 2, 1, 1, 0.3]]), "labels": torch.tensor([1])}
    BoxTask(CLASSES).draw(*axes, {**ITEMS[0], "target": boxes}, OrientedBoxes.none(), picture)
    assert [len(a.lines) for a in axes] == [2, 0]
    assert [len(a.collections) for a in axes] == [2, 2]


# ---- boxes

SPACE = {"low": [-4, -4, -4], "high": [4, 4, 4], "size": [1, 1, 1], "voxel_points": 5,
         "max_voxels": [100, 100]}  # fmt: skip


class OneBox(nn.Module):
    """A box at the mean of the points of each block, twice."""

    def forward(self, batch: Mapping[str, Any]) -> Any:
        self.batch = batch
        return self

    def losses(self, targets: Any) -> dict[str, Tensor]:
        return {"loss": torch.tensor(float(sum(len(t["boxes"]) for t in targets)))}

    def decode(self, threshold: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        box = torch.tensor([[0.0, 0, 0, 2, 1, 1, 0.3]] * 2)
        score = torch.tensor([0.6, 0.9])
        keep = score >= threshold
        labels = torch.ones(2, dtype=torch.int64)
        return [(box[keep], score[keep], labels[keep]) for _ in self.batch["points"]]


def boxes_item(z: float, x: float) -> dict[str, Any]:
    points = torch.tensor([[0.0, 0, z], [1, 0, z], [2, 1, z + 5]])
    target = {
        "boxes": torch.tensor([[x, 0.0, z, 2, 1, 1, 0.3]]),
        "labels": torch.tensor([1]),
    }
    return {"points": points, "target": target, "name": "b"}


def test_objects_outside_the_space_are_no_targets_and_heights_are_the_blocks_own() -> None:
    task = BoxTask(CLASSES, space=SPACE)
    batch = task.collate([boxes_item(100.0, 0.0), boxes_item(-30.0, 9.0)])
    assert [len(t["boxes"]) for t in batch["target"]] == [1, 0]
    assert batch["target"][0]["boxes"][0, 2] == 0
    assert batch["level"].tolist() == [100.0, -30.0]
    assert task.loss(OneBox(), batch)["loss"] == 1
    found = task.detect(OneBox(), batch, threshold=0.5, nms_overlap=0.1)
    assert [len(f) for f in found] == [1, 1]
    assert found[0].boxes[0, 2] == 100
    assert found[1].scores[0] == pytest.approx(0.9)
    assert len(task.predict(OneBox(), batch, detect_thresh=0.95)[0]) == 0
    state = task.validate(OneBox(), batch)["state"]
    meter = task.new_meter()
    meter.update({"state": state}, batch)
    assert meter.compute() == {"average_precision": 1.0}
    assert OrientedMeter(2).compute() == {"average_precision": 0.0}


def test_the_median_of_nothing_is_zero() -> None:
    assert median_height(torch.zeros(0, 3)) == 0
    assert median_height(torch.tensor([[0, 0, 1.0], [0, 0, 5], [0, 0, 9]])) == 5
