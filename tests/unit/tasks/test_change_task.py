"""The change task: the contrastive loss by hand, and half the margin as the border."""

import pytest
import torch

from geodl.core.classes import ClassTable
from geodl.tasks.change import ChangeTask, contrastive_loss


def test_both_kinds_of_pixels_count_half_each():
    distance = torch.tensor([[[0.5, 1.5, 0.25, 3.0, 99.0]]])
    target = torch.tensor([[[0, 0, 1, 1, -100]]])
    # (0.5 + 1.5) / 2 for the same, (1.75 + 0) / 2 for changed ground.
    assert float(contrastive_loss(distance, target)) == pytest.approx(0.5 * 1 + 0.5 * 0.875)


def test_without_change_or_data_only_what_is_there_counts():
    distance = torch.tensor([[[0.5, 1.5]]])
    assert float(contrastive_loss(distance, torch.zeros(1, 1, 2, dtype=torch.long))) == 0.5
    assert float(contrastive_loss(distance, torch.full((1, 1, 2), -100))) == 0


def test_half_the_margin_decides():
    task = ChangeTask(ClassTable.from_mapping({1: "Change"}))
    distance = torch.tensor([[[[0.0, 0.9, 1.1, 2.0]]]])
    batch = {
        "image": torch.zeros(1, 2, 1, 4),
        "target": torch.tensor([[[0, 1, 1, 1]]]),
        "name": ["a"],
    }
    scores = task.scores(lambda x: distance, batch["image"])
    assert scores.argmax(1).tolist() == [[[0, 0, 1, 1]]]
    assert scores[0, 1, 0, 0] == pytest.approx(0.018, abs=1e-3)
    assert scores[0, 1, 0, 3] == pytest.approx(0.982, abs=1e-3)
    meter = task.new_meter()
    meter.update(task.validate(lambda x: distance, batch), batch)
    assert meter.compute()["accuracy"] == 0.75
