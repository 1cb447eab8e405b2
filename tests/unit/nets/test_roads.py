"""Networks of roads: answers for both tasks in training, segmentation alone afterwards."""

import pytest
import segmentation_models_pytorch as smp
import torch

from geodl.nets.encoder import build_encoder
from geodl.nets.roads import Hourglass, HourglassRoads, LinkRoads


def link(bands=3):
    torch.manual_seed(0)
    return LinkRoads(build_encoder("resnet18", bands), 2, 10)


def glass(bands=3):
    torch.manual_seed(0)
    return HourglassRoads(bands, 2, 10, channels=16)


@pytest.mark.parametrize("make", [link, glass])
@pytest.mark.parametrize(
    ("bands", "size"), [(1, (40, 33)), (4, (32, 64)), (8, (45, 45)), (13, (64, 64))]
)
def test_any_bands_and_size(make, bands, size):
    with torch.inference_mode():
        assert make(bands).eval()(torch.randn(2, bands, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize(
    ("make", "more"),
    [(link, {}), (glass, {"auxiliary": 2, "auxiliary_orientation": 10})],
)
def test_training_gives_both_tasks_and_all_weights_learn(make, more):
    net = make().train()
    answer = net(torch.randn(2, 3, 40, 70))
    expected = {"logits": 2, "orientation": 10, **more}
    assert {name: tuple(part.shape) for name, part in answer.items()} == {
        name: (2, count, 40, 70) for name, count in expected.items()
    }
    sum(part.square().sum() for part in answer.values()).backward()
    # The last stack's own answers feed no further stack.
    idle = {name for name, p in net.named_parameters() if p.grad is None}
    assert all(name.startswith(("lines.1.", "turns.1.")) for name in idle)


def test_linknet_with_the_librarys_weights_decodes_as_the_library_does():
    theirs = smp.Linknet("tu-resnet18", encoder_weights=None, in_channels=3, classes=1).eval()
    ours = link().eval()
    ours.encoder.load_state_dict(theirs.encoder.state_dict())
    ours.lines.load_state_dict(theirs.decoder.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = theirs.encoder(x)
        assert torch.equal(ours.lines(ours.encoder(x)), theirs.decoder(features))


def test_an_hourglass_keeps_odd_sizes():
    assert Hourglass(8, 3).eval()(torch.randn(1, 8, 13, 9)).shape == (1, 8, 13, 9)


@pytest.mark.parametrize("make", [link, glass])
def test_every_weight_is_in_one_layer_group(make):
    net = make()
    grouped = [p for group in net.layer_groups() for m in group for p in m.parameters()]
    assert len({id(p) for p in grouped}) == len(grouped) == len(list(net.parameters()))
