import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from geodl.base.errors import BundleError
from geodl.bundle.weights import load_exactly, load_matching, read_weights, write_weights


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def torch_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_weights_come_back_bit_for_bit_channels_last_too(net):
    net.to(memory_format=torch.channels_last)
    state = read_weights(write_weights(net), "a.safetensors", "here")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_the_same_weights_are_the_same_bytes(net):
    assert write_weights(net) == write_weights(net)


def test_a_pickle_of_plain_tensors_is_read_without_running_code(net, tmp_path):
    state = read_weights(torch_bytes(net.state_dict()), "a.pth", "here")
    assert torch.equal(state["0.weight"], net[0].weight)

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'evil')!r}, 'w').close()",))

    for content in (torch_bytes({"a": Evil()}), pickle.dumps(Evil()), b"", b"\x80", b"text"):
        with pytest.raises(BundleError, match=r"here: ModelFile 'a\.pth'"):
            read_weights(content, "a.pth", "here")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {1: torch.zeros(1)}])
def test_a_pickle_of_something_else_is_refused(value):
    with pytest.raises(BundleError, match="named tensors"):
        read_weights(torch_bytes(value), "a.pt", "here")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(bad):
    content = safetensors.torch.save({"good": torch.zeros(2), "bad": torch.tensor([0, bad])})
    with pytest.raises(BundleError, match=r"'bad'.*not finite"):
        read_weights(content, "a.safetensors", "here")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 16])
def test_damaged_safetensors_are_refused(content):
    with pytest.raises(BundleError, match="damaged"):
        read_weights(content, "a.safetensors", "here")


def test_another_kind_of_file_is_refused():
    with pytest.raises(BundleError, match=r"expected \.safetensors"):
        read_weights(b"", "a.h5", "here")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("0.bias"), "lack 0.bias"),
        (lambda s: s.update(more=torch.zeros(1)), "unknown more"),
        (lambda s: s.update({"0.weight": torch.zeros(2, 3, 1, 1)}), r"\(2, 3, 1, 1\)"),
    ],
)
def test_weights_of_another_network_change_nothing(net, change, text):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = {name: value + 1 for name, value in net.state_dict().items()}
    change(state)
    with pytest.raises(BundleError, match=f"here: .*{text}"):
        load_exactly(net, state, "here")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_matching_weights_are_taken_and_the_others_named(net):
    state = {
        "0.weight": torch.full((2, 1, 1, 1), 7.0),
        "0.bias": torch.zeros(5),
        "x": torch.ones(1),
    }
    left = load_matching(net, state)
    assert (net[0].weight == 7).all()
    assert "0.bias" in left
    assert "0.weight" not in left
    with pytest.raises(BundleError, match="None of the weights"):
        load_matching(net, {"x": torch.ones(1)})
