from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from torch import nn

from geodl.core.classes import ClassTable
from geodl.core.detections import Detections
from geodl.infer.instances import AugmentedInstances, FoundInstances, merged, outline
from geodl.tasks.instances import Instances, InstanceTask

TABLE = ClassTable.from_mapping({1: "a", 2: "b"})


def instances(boxes, scores, labels=None, side: int = 20) -> Instances:
    boxes = np.array(boxes, np.float64)
    masks = np.zeros((len(boxes), side, side), np.float32)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 0.9
    labels = np.ones(len(boxes), np.int64) if labels is None else np.array(labels)
    return Instances(Detections(boxes, np.array(scores, np.float32), labels), masks)


def test_outlines_follow_the_pixels() -> None:
    mask = np.zeros((12, 15), bool)
    mask[2:6, 3:9] = True
    mask[3, 4] = False
    shape = outline(mask, 100, 200)
    assert shape.area == 23
    assert shape.bounds == (203, 102, 209, 106)
    mask[9:11, 12:14] = True
    assert outline(mask, 0, 0).geom_type == "MultiPolygon"
    assert outline(np.zeros((4, 4), bool), 0, 0) is None


def test_outlines_survive_their_payload() -> None:
    found = FoundInstances(
        np.array([shapely.box(0, 0, 2, 3), shapely.Point(1, 1).buffer(2)], object),
        np.array([0.5, 0.7], np.float32),
        np.array([1, 2]),
        np.array([[0.0, 0, 64, 64]] * 2),
        np.array([True, False]),
    )
    again = FoundInstances.from_payload(found.to_payload())
    assert all(one.equals(two) for one, two in zip(found.outlines, again.outlines, strict=True))
    assert again.scores.tolist() == found.scores.tolist()
    assert again.cut.tolist() == [True, False]
    assert len(FoundInstances.from_payload(b"")) == 0


def test_masks_decide_which_neighbours_are_the_same() -> None:
    slanting = instances([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8])
    rows, cols = np.indices((20, 20))
    slanting.masks[0] *= rows > cols
    slanting.masks[1] *= rows < cols
    assert len(slanting.suppressed(0.1)) == 2
    assert len(instances([[0, 0, 10, 10], [1, 1, 10, 10]], [0.9, 0.8]).suppressed(0.1)) == 1
    assert len(instances([[0, 0, 10, 10]] * 2, [0.9, 0.8], [1, 2]).suppressed(0.1)) == 2


@pytest.mark.parametrize(("policy", "value"), [("mean", 0.45), ("max", 0.9), ("min", 0.0)])
def test_sights_of_an_object_are_merged_by_the_policy(policy: str, value: float) -> None:
    one, two = instances([[0, 0, 10, 10]], [0.9]), instances([[0, 0, 10, 10]], [0.7])
    two.masks[:] = 0
    two.masks[0, :5, :10] = 0.9
    whole = merged([one, two], 0.1, policy)
    # Half of the mask is shared, so both are one object for the boxes and two for the masks.
    first = whole.masks[0]
    assert first[7, 3] == pytest.approx(value, abs=1e-6)
    assert first[2, 3] == pytest.approx(0.9)


class _Patch(nn.Module):
    """Sees one object: the bright pixels."""

    def forward(self, x: torch.Tensor) -> _Seen:
        return _Seen(x)


class _Seen:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def decode_masks(self, threshold: float):
        answers = []
        for image in self.x[:, 0]:
            rows, cols = torch.nonzero(image > 0.5, as_tuple=True)
            box = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
            boxes = torch.tensor([[float(v) for v in box]])
            answers.append((boxes, torch.tensor([0.8]), torch.tensor([1]), image[None]))
        return answers


def test_all_symmetries_see_the_same_place() -> None:
    x = torch.zeros(2, 1, 16, 24)
    x[0, 0, 2:5, 3:11] = 1
    x[1, 0, 8:16, 20:24] = 1
    task = AugmentedInstances(InstanceTask(TABLE), "MAP_SPACE")
    assert len(task.turns) == 8
    found = task.instances(_Patch(), x, threshold=0.5, nms_overlap=0.1)
    for one, image in zip(found, x[:, 0].numpy(), strict=True):
        assert len(one) == 1
        assert np.array_equal(one.masks[0], image)
    assert found[0].found.boxes.tolist() == [[3, 2, 11, 5]]
    assert found[1].found.boxes.tolist() == [[20, 8, 24, 16]]
