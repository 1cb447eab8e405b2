"""The edge task: losses by their formulas, scores and metrics by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.tasks.edges import EdgeTask, ToleranceMeter, balanced_loss, edge_target

TABLE = ClassTable.from_mapping({3: "wall", 7: "fence"})


def test_every_class_is_edge():
    target = torch.tensor([[0, 1, 2, IGNORE_INDEX]])
    assert edge_target(target).tolist() == [[0, 1, 1, IGNORE_INDEX]]


def test_edges_weigh_by_the_share_of_the_rest():
    logits = torch.tensor([[[2.0, -1.0, 0.5, 9.0]]])
    target = torch.tensor([[[1, 0, 0, IGNORE_INDEX]]])
    plus = -math.log(1 / (1 + math.exp(-2.0)))
    minus = sum(-math.log(1 - 1 / (1 + math.exp(-z))) for z in (-1.0, 0.5))
    expected = (2 / 3 * 1.5 * plus + 1 / 3 * minus) / 3
    assert float(balanced_loss(logits, target, 1.5)) == pytest.approx(expected, rel=1e-5)


def test_an_image_without_data_or_edges_loses_nothing():
    nothing = torch.full((1, 2, 2), IGNORE_INDEX)
    assert float(balanced_loss(torch.ones(1, 2, 2), nothing)) == 0
    assert float(balanced_loss(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))) == 0


def test_an_image_without_edges_counts_beside_one_that_has_some():
    logits = torch.tensor([[[3.0, 0.0]], [[2.0, 2.0]]], requires_grad=True)
    target = torch.tensor([[[1, 0]], [[0, 0]]])
    balanced_loss(logits, target).backward()
    assert (logits.grad[1] > 0).all()
    p = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad[1], 0.25 * p[1] / 4)


def test_the_loss_adds_sides_and_fusion_by_their_weights():
    torch.manual_seed(0)
    task = EdgeTask(TABLE, side_weight=0.5, fuse_weight=1.1, edge_weight=2.0)
    answer = {"logits": torch.randn(2, 1, 4, 4), "sides": torch.randn(2, 3, 4, 4)}
    target = torch.randint(0, 3, (2, 4, 4))
    batch = {"image": torch.zeros(2, 1, 4, 4), "target": target, "name": ["a", "b"]}
    edge = edge_target(target)
    sides = sum(balanced_loss(answer["sides"][:, i], edge, 2.0) for i in range(3))
    expected = 0.5 * sides + 1.1 * balanced_loss(answer["logits"][:, 0], edge, 2.0)
    assert torch.allclose(task.loss(lambda x: answer, batch)["loss"], expected)


def test_scores_are_of_background_and_the_first_class():
    task = EdgeTask(TABLE)
    scores = task.scores(lambda x: torch.tensor([[[[0.0, 1.0]]]]), torch.zeros(1))
    one = 1 / (1 + math.exp(-1.0))
    assert scores[0, :, 0].T.numpy() == pytest.approx(np.array([[0.5, 0.5, 0], [1 - one, one, 0]]))


def test_precision_and_recall_bear_the_tolerance_and_leave_out_what_does_not_count():
    probability = torch.zeros(1, 12, 30)
    probability[0, 3] = 0.9
    target = torch.zeros(1, 12, 30, dtype=torch.int64)
    target[0, 5] = 2
    target[0, :, :5] = IGNORE_INDEX
    batch = {"target": target}
    scores = {}
    for tolerance in (1, 2):
        meter = ToleranceMeter(0.5, tolerance)
        meter.update({"probability": probability}, batch)
        scores[tolerance] = meter.compute()
    assert scores[1] == {"precision": 0, "recall": 0, "f1_score": 0}
    assert scores[2] == {"precision": 1, "recall": 1, "f1_score": 1}


def test_the_epochs_metrics_are_of_edge_pixels():
    task = EdgeTask(TABLE)
    logits = torch.tensor([[[[1.0, 1.0, -1.0, -1.0]]]])
    batch = {
        "image": torch.zeros(1, 1, 1, 4),
        "target": torch.tensor([[[1, 0, 2, 0]]]),
        "name": ["a"],
    }
    result = task.validate(lambda x: logits, batch)
    meter = task.new_meter()
    meter.update(result, batch)
    assert meter.compute() == {"accuracy": 0.5, "f1": 0.5}


def test_predictions_follow_threshold_and_thinning():
    task = EdgeTask(TABLE)
    logits = torch.full((1, 1, 20, 20), -3.0)
    logits[:, :, 8:13] = 1.0
    (whole,) = task.predict(lambda x: logits, torch.zeros(1))
    (none,) = task.predict(lambda x: logits, torch.zeros(1), thresh=0.8)
    (lines,) = task.predict(lambda x: logits, torch.zeros(1), thinning=True)
    assert (whole.sum(), none.sum(), lines.sum()) == (100, 0, 20)


def test_without_tolerance_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    # Single pixels far apart: thinning leaves them as they are.
    places = np.zeros((2, 40, 40), bool)
    places[:, 1::4, 1::4] = True
    probability = np.where(places, rng.random(places.shape), 0).astype(np.float32)
    target = (places & (rng.random(places.shape) < 0.5)).astype(np.int64)
    meter = ToleranceMeter(0.5, 0)
    batch = {"target": torch.from_numpy(target)}
    meter.update({"probability": torch.from_numpy(probability)}, batch)
    expected = precision_recall_fscore_support(
        target.ravel(), (probability >= 0.5).ravel(), average="binary"
    )
    assert list(meter.compute().values()) == pytest.approx(expected[:3])
