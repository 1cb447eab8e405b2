import copy
import io
import logging
import signal
import threading
from collections.abc import Iterator

import pytest
import torch

from geodl.base.errors import DataError, TrainingError
from geodl.tasks.base import Meter
from geodl.train.engine import FitOptions, named, set_training, train
from geodl.train.evaluate import evaluate
from geodl.train.record import TrainingRecord, draw_losses
from geodl.train.table import EpochTable


def options(**changes):
    return FitOptions(**{"epochs": 2, "rates": (0.05, 0.05), **changes})


def run(net, task, batches, record=None, **changes):
    stream = io.StringIO()
    record = record or TrainingRecord()
    on_epoch = changes.pop("on_epoch", None)
    table = EpochTable(("train_loss", "valid_loss", *task.metric_names), stream)
    train(
        net, task, batches, batches[:1], options(**changes), record, on_epoch=on_epoch, table=table
    )
    return record, stream.getvalue()


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_lowers_the_loss_and_prints_a_line_per_epoch(net, task, batches):
    record, text = run(net, task, batches, epochs=10)
    assert record.rows[-1]["train_loss"] < record.rows[0]["train_loss"] / 2
    assert record.rows[-1]["accuracy"] > 0.9
    lines = text.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "mIoU", "time"]
    assert [line.split()[0] for line in lines[1:]] == [str(i) for i in range(1, 11)]
    assert len({len(line) for line in lines}) == 1


def test_the_table_goes_to_standard_output(net, task, batches, capsys):
    train(net, task, batches, batches[:1], options(epochs=1), TrainingRecord())
    out, err = capsys.readouterr()
    assert "valid_loss" in out
    assert not err


def test_same_seed_same_weights_and_the_callers_random_state_stays(net, task, batches):
    task.mixup = True
    other = copy.deepcopy(net)
    state = torch.get_rng_state()
    run(net, task, batches)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    run(other, task, batches)
    assert same(weights(net), weights(other))
    run(third := copy.deepcopy(net), task, batches, seed=1)
    run(net, task, batches)
    assert not same(weights(net), weights(third))


def test_a_second_fit_goes_on(net, task, batches):
    record, _ = run(net, task, batches, epochs=3)
    before = record.rows[-1]["train_loss"]
    run(net, task, batches, record, epochs=2)
    assert [row["epoch"] for row in record.rows] == [1, 2, 3, 4, 5]
    assert record.rows[3]["train_loss"] < before * 1.5
    assert record.optimizer["head.weight"]["step"] == 15


def test_a_frozen_backbone_stays_as_it_is_statistics_included(net, task, batches):
    net.backbone.requires_grad_(False)
    before = weights(net)
    run(net, task, batches)
    after = weights(net)
    for name in before:
        changed = not torch.equal(before[name], after[name])
        assert changed == name.startswith("head")


def test_a_trainable_backbone_is_in_train_mode(net):
    set_training(net)
    assert net.backbone.training
    assert net.head.training
    net.backbone.requires_grad_(False)
    set_training(net)
    assert not net.backbone.training
    assert net.head.training


class Scripted:
    """Gives each epoch the validation loss of a script."""

    def __init__(self, task, losses):
        self.losses = iter(losses)
        self.task = task
        self.metric_names = ()

    def loss(self, net, batch):
        return self.task.loss(net, batch)

    def validate(self, net, batch):
        return {"loss": torch.tensor(next(self.losses)), "state": None}

    def new_meter(self):
        class Nothing(Meter):
            def update(self, result, batch):
                return None

            def compute(self):
                return {}

        return Nothing()


def epoch_weights(net, task, batches, losses, **changes):
    seen = []
    run(
        net, Scripted(task, losses), batches, epochs=len(losses),
        on_epoch=lambda row: seen.append(weights(net)), **changes,
    )  # fmt: skip
    return seen


def test_the_best_epoch_is_in_the_model_at_the_end(net, task, batches):
    seen = epoch_weights(net, task, batches, [3.0, 1.0, 2.0, 1.5])
    assert same(weights(net), seen[1])


def test_without_checkpoint_the_last_epoch_stays(net, task, batches):
    seen = epoch_weights(net, task, batches, [3.0, 1.0, 2.0], checkpoint=False)
    assert same(weights(net), seen[2])


def test_a_metric_is_best_where_it_is_largest(net, task, batches):
    record, _ = run(net, task, batches, epochs=3, monitor="accuracy")
    best = max(record.rows, key=lambda row: row["accuracy"])
    scored = evaluate(net, task, batches[:1], torch.device("cpu"))
    assert scored.meter.compute()["accuracy"] == best["accuracy"]


def test_early_stopping_waits_five_epochs_for_a_thousandth(net, task, batches):
    losses = [1.0, 0.5, *([0.4995] * 20)]
    record, text = run(
        net, Scripted(task, losses), batches, epochs=22, early_stopping=True, rates=(1e-3, 1e-3)
    )
    assert len(record.rows) == 7
    assert "valid_loss" in text.splitlines()[-1]


def test_a_loss_that_is_not_finite_names_the_chips_and_keeps_the_best_weights(net, task, batches):
    seen = []

    class Poisoned(list):
        def __iter__(self):
            yield from list.__iter__(self)
            if seen:
                yield {**batches[0], "image": batches[0]["image"] * torch.nan}

    with pytest.raises(TrainingError, match="chip0_0, chip0_1, chip0_2, chip0_3"):
        run(net, task, Poisoned(batches), epochs=3, on_epoch=lambda row: seen.append(weights(net)))
    assert len(seen) == 1
    assert same(weights(net), seen[0])
    assert not net.training


def test_poison_in_the_first_epoch_leaves_the_weights_before_the_fit(net, task, batches):
    before = weights(net)
    batches[1]["image"] = batches[1]["image"] + torch.inf
    with pytest.raises(TrainingError, match="nan"):
        run(net, task, batches)
    assert same(weights(net), before)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Python's own handler: a shell that runs the tests in the background lets them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_keeps_what_is_finished(net, task, batches):
    seen = []

    class Interrupted(list):
        def __iter__(self):
            yield from list.__iter__(self)
            if len(seen) == 2:
                signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    record = TrainingRecord()
    with pytest.raises(KeyboardInterrupt):
        run(
            net, task, Interrupted(batches), record, epochs=5,
            on_epoch=lambda row: seen.append(weights(net)),
        )  # fmt: skip
    assert len(record.rows) == len(seen) == 2
    assert same(weights(net), seen[1])
    run(net, task, batches, record)
    assert len(record.rows) == 4


def test_nothing_is_written_and_nothing_is_logged(
    net, task, batches, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        run(net, task, batches)
    assert not list(tmp_path.iterdir())
    assert not caplog.records


def test_tensorboard_gets_losses_and_metrics(net, task, batches, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, _ = run(net, task, batches, tensorboard=tmp_path / "log")
    log = EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    assert {"train_loss", "valid_loss", "accuracy", "mIoU"} <= set(log.Tags()["scalars"])
    assert [e.step for e in log.Scalars("valid_loss")] == [1, 2]
    assert log.Scalars("mIoU")[1].value == pytest.approx(record.rows[1]["mIoU"], rel=1e-6)


def test_validation_without_chips_says_what_to_change(net, task):
    with pytest.raises(DataError, match="val_split_pct"):
        evaluate(net, task, [], torch.device("cpu"))


def test_evaluation_weighs_batches_by_their_chips(net, task, batches):
    device = torch.device("cpu")
    whole = evaluate(net, task, batches, device)
    parts = [evaluate(net, task, [b], device).loss for b in batches]
    assert whole.loss == pytest.approx(sum(parts) / 3)
    short = {key: value[:1] for key, value in batches[0].items()}
    mixed = evaluate(net, task, [short, batches[1]], device).loss
    alone = evaluate(net, task, [short], device).loss
    assert mixed == pytest.approx((alone + 4 * parts[1]) / 5)


def test_many_chips_are_named_in_part():
    assert named({"name": [str(i) for i in range(20)]}).endswith("15 and 4 more")


def test_losses_are_drawn_over_all_epochs(net, task, batches):
    record, _ = run(net, task, batches)
    axes = draw_losses(record).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2], [1, 2]]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["training", "validation"]
    with pytest.raises(TrainingError, match="fit"):
        draw_losses(TrainingRecord())


def test_a_job_of_many_tasks_trains_in_each_alone(net, task, batches, monkeypatch):
    for name, value in {"NTASKS": "4", "JOB_ID": "1", "PROCID": "2", "LOCALID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    record, _ = run(net, task, batches, epochs=1)
    assert len(record.rows) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_steps_train(net, task, batches, count):
    record, _ = run(net, task, batches[:count], epochs=1)
    assert record.rows[0]["train_loss"] > 0


@pytest.mark.gpu
def test_a_gpu_trains_in_half_precision_without_a_warning(net, task, batches):
    record, _ = run(net, task, batches, epochs=5)
    assert next(net.parameters()).device.type == "cuda"
    assert next(net.parameters()).dtype == torch.float32
    assert record.rows[-1]["train_loss"] < record.rows[0]["train_loss"]
