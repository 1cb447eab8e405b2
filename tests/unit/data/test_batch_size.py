from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geodl.base.errors import (
    GeodlWarning,
    ModelDataError,
    NotSupportedError,
    OptionError,
    UnknownOptionError,
)
from geodl.data import batch_size as sizes
from geodl.data.batch_size import (
    BatchSizes,
    estimate_batch_size,
    fitting_batch_size,
    typical_batch_size,
)
from geodl.nets.memory import free_bytes, peak_tensor_bytes

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.tanh(self.norm(self.conv(x)))


class Task:
    def collate(self, items):
        return {"image": torch.stack([item["image"] for item in items])}

    def loss(self, net, batch):
        return {"loss": net(batch["image"]).mean()}


class Items:
    def __getitem__(self, index):
        return {"image": torch.zeros(3, 32, 32)}


@pytest.fixture
def model():
    return SimpleNamespace(
        net=Net(),
        task=Task(),
        data=SimpleNamespace(train_ds=Items(), batch_size=16, seed=1),
        contract=SimpleNamespace(extract_bands=(0, 1, 2), tile_px=32, points=None),
    )


def with_memory(monkeypatch, free):
    monkeypatch.setattr(sizes, "free_bytes", lambda device: free)


def test_the_result_is_the_documented_named_tuple():
    assert BatchSizes._fields == ("recommended_batchsize", "max_batchsize")


@pytest.mark.parametrize(("mode", "recommended"), [("train", 64), ("eval", 1024)])
def test_with_plenty_of_memory_the_documented_caps_hold(model, monkeypatch, mode, recommended):
    with_memory(monkeypatch, 2**40)
    found = estimate_batch_size(model, mode)
    assert found.max_batchsize == 1024
    assert found.recommended_batchsize == recommended


def test_a_step_of_the_largest_batch_fits_the_memory_it_was_measured_for(model, monkeypatch):
    free = 20 * 2**20
    with_memory(monkeypatch, free)
    found = estimate_batch_size(model)
    assert 2 <= found.recommended_batchsize <= found.max_batchsize < 1024
    x = torch.zeros(found.max_batchsize, 3, 32, 32)
    used = peak_tensor_bytes(lambda: model.net(x).mean().backward())
    assert 0.2 * free < used < free
    assert found.recommended_batchsize & (found.recommended_batchsize - 1) == 0


def test_evaluation_bears_larger_batches_than_training(model, monkeypatch):
    with_memory(monkeypatch, 20 * 2**20)
    assert (
        estimate_batch_size(model, "eval").max_batchsize > estimate_batch_size(model).max_batchsize
    )


def test_the_model_and_torchs_random_state_stay_as_they_were(model):
    model.net.eval()
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    state = torch.get_rng_state()
    estimate_batch_size(model)
    assert not model.net.training
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    assert all(p.grad is None for p in model.net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_fits_nowhere_says_what_to_do(model, monkeypatch):
    with_memory(monkeypatch, 1000)
    with pytest.raises(ModelDataError, match="smaller chip_size"):
        estimate_batch_size(model)


def test_training_needs_data_and_evaluation_does_not(model):
    model.data = None
    with pytest.raises(ModelDataError, match="data=prepare_data"):
        estimate_batch_size(model)
    assert estimate_batch_size(model, "eval").max_batchsize >= 1


def test_points_are_measured_on_a_block_of_the_data(model, monkeypatch):
    seen = []

    class PointTask(Task):
        def prepare(self, blocks):
            seen.append((len(blocks), blocks[0].shape))
            return torch.stack(blocks).reshape(len(blocks), 3, 50, 40)

    model.task = PointTask()
    model.contract.points = SimpleNamespace()
    model.data.valid_ds = [{"points": torch.zeros(2000, 3)}]
    with_memory(monkeypatch, 2**25)
    found = estimate_batch_size(model, "eval")
    assert 1 < found.recommended_batchsize <= found.max_batchsize < 1024
    assert {shape for _, shape in seen} == {(2000, 3)}
    model.data = None
    with pytest.raises(ModelDataError, match=r"mode='eval'.*needs the model"):
        estimate_batch_size(model, "eval")


def test_a_batch_that_does_not_fit_is_cut_with_a_message(model, monkeypatch):
    with_memory(monkeypatch, 2**40)
    assert fitting_batch_size(model.net, model.task, model.data) == 16
    with_memory(monkeypatch, 2 * 2**20)
    with pytest.warns(GeodlWarning, match="batch of 16 does not fit"):
        found = fitting_batch_size(model.net, model.task, model.data)
    assert 1 <= found < 16


@pytest.mark.parametrize("other", [None, SimpleNamespace(), SimpleNamespace(net=None, task=None)])
def test_other_models_are_not_supported(other):
    with pytest.raises(NotSupportedError, match="image chips"):
        estimate_batch_size(other)


def test_unknown_modes_and_keywords_are_refused(model):
    with pytest.raises(OptionError, match="train"):
        estimate_batch_size(model, "training")
    with pytest.raises(UnknownOptionError, match="verbose"):
        estimate_batch_size(model, verbose=True)


def test_peak_counts_what_lives_at_one_time():
    def apart():
        for _ in range(5):
            torch.zeros(1000)

    def together():
        return [torch.zeros(1000) for _ in range(5)]

    assert peak_tensor_bytes(apart) == 4000
    assert peak_tensor_bytes(together) == 20000


def test_views_share_the_memory_of_their_tensor():
    assert peak_tensor_bytes(lambda: torch.zeros(10, 100).T.reshape(-1)[:50].view(5, 10)) <= 8000


def test_free_memory_is_that_of_this_machine():
    assert 2**20 < free_bytes(CPU) < 2**50


def test_typical_batches_shrink_with_memory_and_stay_powers_of_two(monkeypatch):
    found = []
    for free in (0, 2**31, 2**32, 2**40):
        with_memory(monkeypatch, free)
        found.append(typical_batch_size(3, 224))
    assert found == sorted(found)
    assert found[0] == 2
    assert found[-1] == 64
    assert all(size & (size - 1) == 0 for size in found)


@pytest.mark.parametrize(
    ("bears", "most", "expected"),
    [
        (100, 1024, 96),
        (70, 1024, 64),
        (5000, 1024, 1024),
        (100, 80, 80),
        (100, 16, 16),
        (10, 48, 8),
    ],
)
def test_a_gpu_is_tried_with_larger_and_larger_batches(model, monkeypatch, bears, most, expected):
    tried = []

    def fits(step, size):
        tried.append(size)
        return size <= bears

    monkeypatch.setattr(sizes, "_fits", fits)
    step = sizes.training_step(model.net, model.task, model.data)
    assert sizes._by_trying(step, most) == expected
    assert max(tried) <= max(most, 2 * bears)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_on_a_gpu_the_largest_batch_really_runs(model, mode):
    model.net.cuda()
    found = estimate_batch_size(model, mode)
    assert 2 <= found.recommended_batchsize <= found.max_batchsize <= 1024
    x = torch.zeros(found.max_batchsize, 3, 32, 32, device="cuda")
    assert model.net(x).shape[0] == found.max_batchsize
