from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.core.classes import ClassTable
from geodl.core.detections import Detections
from geodl.tasks.objects import BoxMeter, ObjectTask

CLASSES = ClassTable.from_mapping({5: "pad", 9: "well"})
BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.3])
LABELS = torch.tensor([1, 1, 2, 1])


class Output:
    """The same answer for each image; its loss is the number of objects."""

    def __init__(self, images: int) -> None:
        self.images = images

    def losses(self, targets):
        return {"loss": torch.tensor(float(sum(len(t["boxes"]) for t in targets)))}

    def decode(self, threshold):
        keep = threshold <= SCORES
        return [(BOXES[keep], SCORES[keep], LABELS[keep])] * self.images


class Net(nn.Module):
    def forward(self, x):
        return Output(len(x))


def item(name="a", boxes=((0.0, 0, 10, 10),), labels=(1,)):
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
    }
    return {"image": torch.zeros(3, 32, 32), "target": target, "name": name}


def test_collate_keeps_boxes_apart():
    batch = ObjectTask(CLASSES).collate([item("a"), item("b", (), ())])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert [len(t["boxes"]) for t in batch["target"]] == [1, 0]
    assert batch["name"] == ["a", "b"]


def test_detect_keeps_what_scores_enough_and_suppresses_by_class():
    task = ObjectTask(CLASSES)
    (found,) = task.detect(Net(), torch.zeros(1, 3, 32, 32), threshold=0.5, nms_overlap=0.5)
    assert found.boxes.dtype == np.float64
    assert found.scores.dtype == np.float32
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    (all_kept,) = task.detect(Net(), torch.zeros(1, 3, 32, 32), threshold=0.0, nms_overlap=1.0)
    assert len(all_kept) == 4


def test_predict_takes_the_documented_options_and_checks_them():
    task = ObjectTask(CLASSES)
    x = torch.zeros(2, 3, 32, 32)
    assert [len(found) for found in task.predict(Net(), x)] == [2, 2]
    assert len(task.predict(Net(), x, thresh=0.1, nms_overlap=0.9)[0]) == 4
    with pytest.raises(OptionError, match="thresh"):
        task.predict(Net(), x, thresh=5)


def test_validation_scores_the_boxes_it_finds():
    task = ObjectTask(CLASSES)
    meter = task.new_meter()
    losses = []
    for items in ([item("a")], [item("b", ((20.0, 20, 30, 30), (1, 0, 11, 10)), (1, 2))]):
        batch = task.collate(items)
        result = task.validate(Net(), batch)
        losses.append(float(result["loss"]))
        meter.update(result, batch)
    assert losses == [1, 2]
    by_class = meter.by_class()
    # "well" is found in both images but is in one: precision 1/2 or 1 by the order of equals.
    assert by_class[0] > 0.5
    assert meter.compute() == {"average_precision": pytest.approx(by_class.mean())}
    assert set(meter.compute()) == set(task.metric_names)


def test_the_threshold_of_validation_can_be_chosen():
    batch = ObjectTask(CLASSES).collate([item()])
    found = ObjectTask(CLASSES, threshold=0.85).validate(Net(), batch)["state"]
    assert [len(part) for part in found] == [1]


def test_the_overlap_of_a_match_can_be_chosen():
    batch = ObjectTask(CLASSES).collate([item(boxes=((0.0, 0, 10, 10),))])
    state = [Detections(np.array([[0, 0, 10, 4.0]]), np.ones(1, np.float32), np.ones(1, np.int64))]
    scores = []
    for threshold in (0.1, 0.5):
        meter = BoxMeter(2, threshold)
        meter.update({"state": state}, batch)
        scores.append(meter.compute()["average_precision"])
    assert scores == pytest.approx([1, 0])


def test_options_are_checked_and_the_task_survives_pickling():
    with pytest.raises(UnknownOptionError, match="nms_overlap"):
        ObjectTask(CLASSES, nms_overlp=0.1)
    with pytest.raises(OptionError, match="nms_overlap"):
        ObjectTask(CLASSES, nms_overlap=2)
    task = pickle.loads(pickle.dumps(ObjectTask(CLASSES, nms_overlap=0.4)))
    assert task.nms_overlap == 0.4
    assert task.classes == CLASSES


def test_drawing_shows_truth_left_predictions_with_scores_right_in_class_colours():
    task = ObjectTask(CLASSES)
    left, right = Figure().subplots(1, 2)
    found = task.predict(Net(), torch.zeros(1, 3, 32, 32))[0]
    picture = np.zeros((32, 32, 3), np.uint8)
    task.draw(left, right, item(boxes=((2.0, 3, 6, 9),), labels=(2,)), found, picture)
    (box,) = left.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (2, 3, 4, 6)
    well = tuple(part / 255 for part in CLASSES.entries[1].color)
    assert box.get_edgecolor()[:3] == pytest.approx(well)
    assert len(right.patches) == 2
    assert [text.get_text() for text in right.texts] == ["0.90", "0.70"]
    assert not left.texts
    assert left.get_xlim() == (0, 32)
    assert left.get_ylim() == (32, 0)
