"""Which epoch is the best, and when to stop: also where the metric or the labels are missing."""

import io
import math

import pytest
import torch

from geodl.base.errors import DataWarning
from geodl.train.callbacks import EarlyStopping, KeptWeights, rank_epoch
from geodl.train.engine import FitOptions, train
from geodl.train.record import TrainingRecord
from geodl.train.table import EpochTable

NAN = float("nan")


def kept_of(net, monitor, rows):
    kept = KeptWeights(net, best_only=True)
    for number, row in enumerate(rows, start=1):
        kept.after_epoch(number, rank_epoch(row, monitor))
    return kept.epoch


def test_an_epoch_without_a_value_is_never_the_best(net):
    assert kept_of(net, "valid_loss", [{"valid_loss": 2.0}, {"valid_loss": NAN}]) == 1
    assert kept_of(net, "valid_loss", [{"valid_loss": NAN}, {"valid_loss": 2.0}]) == 2


def test_a_metric_that_is_never_defined_leaves_it_to_the_validation_loss(net):
    rows = [{"f1": NAN, "valid_loss": loss} for loss in (3.0, 1.0, 2.0)]
    assert kept_of(net, "f1", rows) == 2
    # One value, however poor, is more than none.
    assert kept_of(net, "f1", [*rows, {"f1": 0.01, "valid_loss": 9.0}]) == 4


def test_early_stopping_waits_five_epochs_for_a_thousandth():
    stopper = EarlyStopping()
    assert [stopper.after_epoch((True, v)) for v in (0.5, 0.5005, 0.6)] == [False] * 3
    assert [stopper.after_epoch((True, 0.6)) for _ in range(5)] == [False] * 4 + [True]


def test_early_stopping_goes_on_when_a_metric_becomes_defined():
    stopper = EarlyStopping()
    ranks = [rank_epoch({"f1": NAN, "valid_loss": 1.0}, "f1")] * 5
    ranks += [rank_epoch({"f1": 0.0, "valid_loss": 5.0}, "f1")]
    assert not any(stopper.after_epoch(rank) for rank in ranks)
    assert rank_epoch({"f1": NAN, "valid_loss": NAN}, "f1") == (False, -math.inf)


def fitted(net, task, train_on, score_on, **options):
    """Training losses, and the loss of the weights that are left, over the same batches."""
    record = TrainingRecord()
    table = EpochTable(("train_loss", "valid_loss", *task.metric_names), io.StringIO())
    # A rate that makes the last epoch worse than those before.
    fit = FitOptions(epochs=4, rates=(0.02, 0.02), one_cycle=False, **options)
    weights = []
    train(net, task, train_on, score_on, fit, record, table=table,
          on_epoch=lambda row: weights.append(net.head.weight.detach().clone()))  # fmt: skip
    return record.rows, weights


@pytest.mark.parametrize("monitor", ["valid_loss", "accuracy"])
def test_validation_without_labels_leaves_it_to_the_training_loss(net, task, batches, monitor):
    empty = [{**batches[0], "target": torch.zeros_like(batches[0]["target"])}]
    # It starts out finding nothing, which is what such chips reward.
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([3.0, -3.0]))
    with pytest.warns(DataWarning, match=f"No validation chip holds a label.*'{monitor}'"):
        rows, weights = fitted(net, task, batches, empty, monitor=monitor)
    losses = [row["train_loss"] for row in rows]
    assert rows[0]["valid_loss"] < rows[-1]["valid_loss"]
    assert torch.equal(net.head.weight, weights[losses.index(min(losses))])
    assert losses.index(min(losses)) > 0


def test_labels_leave_it_to_the_monitor_and_no_choice_needs_no_warning(net, task, batches):
    rows, weights = fitted(net, task, batches, batches[:1])
    losses = [row["valid_loss"] for row in rows]
    assert torch.equal(net.head.weight, weights[losses.index(min(losses))])
    empty = [{**batches[0], "target": torch.zeros_like(batches[0]["target"])}]
    _, weights = fitted(net, task, batches, empty, checkpoint=False)
    assert torch.equal(net.head.weight, weights[-1])


def test_early_stopping_without_labels_watches_the_training_loss(net, task, batches):
    empty = [{**batches[0], "target": torch.full_like(batches[0]["target"], -100)}]
    with pytest.warns(DataWarning, match="No validation chip holds a label"):
        rows, _ = fitted(net, task, batches, empty, early_stopping=True)
    assert {row["valid_loss"] for row in rows} == {0.0}
    assert len(rows) == 4
