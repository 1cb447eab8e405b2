"""HED and BDCN: answers at every stage, summed and fused as in their papers."""

import pytest
import torch

from geodl.nets.edges import BDCN, HED, cascade, stage_channels
from geodl.nets.encoder import build_encoder


def net(kind, bands=3, backbone="resnet18"):
    torch.manual_seed(0)
    deepest = 16 if backbone.startswith("vgg") else 32
    return kind(build_encoder(backbone, bands, deepest=deepest))


@pytest.mark.parametrize("kind", [HED, BDCN])
@pytest.mark.parametrize(
    ("bands", "size"), [(1, (40, 33)), (4, (32, 64)), (8, (45, 45)), (13, (64, 64))]
)
def test_any_bands_and_size(kind, bands, size):
    with torch.inference_mode():
        assert net(kind, bands).eval()(torch.randn(2, bands, *size)).shape == (2, 1, *size)


def test_vgg_gives_the_five_stages_of_the_papers_and_nothing_deeper():
    encoder = build_encoder("vgg16", 3, deepest=16).eval()
    assert stage_channels(encoder) == [64, 128, 256, 512, 512]
    detector = HED(encoder)
    with torch.inference_mode():
        maps = detector.stages(torch.zeros(1, 3, 64, 64))
    assert [64 // m.shape[-1] for m in maps] == [1, 2, 4, 8, 16]


def test_stages_leave_out_the_image_and_empty_maps():
    detector = net(HED, backbone="timm:convnext_atto").eval()
    with torch.inference_mode():
        maps = detector.stages(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == stage_channels(detector.encoder)


@pytest.mark.parametrize(("kind", "sides"), [(HED, 5), (BDCN, 10)])
def test_training_gives_the_sides_too_and_all_weights_learn(kind, sides):
    detector = net(kind).train()
    answer = detector(torch.randn(2, 3, 64, 64))
    assert answer["sides"].shape == (2, sides, 64, 64)
    # HED's sides start at zero; a step from there gives the encoder its gradient.
    for side in getattr(detector, "sides", ()):
        torch.nn.init.normal_(side.weight)
    answer = detector(torch.randn(2, 3, 64, 64))
    (answer["sides"].sum() + answer["logits"].sum()).backward()
    assert all(p.grad is not None for p in detector.parameters())


def test_hed_starts_with_the_mean_of_its_sides_and_answers_with_the_mean_of_all():
    detector = net(HED)
    for bias, side in zip((-2.0, -1.0, 0.0, 1.0, 2.0), detector.sides, strict=True):
        torch.nn.init.constant_(side.bias, bias)
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(detector.train()(x)["logits"], torch.zeros(1, 1, 64, 64), atol=1e-6)
    probabilities = torch.sigmoid(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 0.0]))
    found = torch.sigmoid(detector.eval()(x))
    assert torch.allclose(found, probabilities.mean().expand_as(found), atol=1e-5)


def test_a_cascade_adds_up_but_passes_no_gradient_back():
    maps = [torch.full((1, 1, 2, 2), value, requires_grad=True) for value in (1.0, 2.0, 4.0)]
    summed = cascade(maps)
    assert [one[0, 0, 0, 0].item() for one in summed] == [1, 3, 7]
    summed[2].sum().backward()
    assert maps[0].grad is None
    assert maps[2].grad.sum() == 4


def test_every_weight_is_in_one_layer_group():
    for kind in (HED, BDCN):
        detector = net(kind)
        grouped = [p for g in detector.layer_groups() for m in g for p in m.parameters()]
        assert len({id(p) for p in grouped}) == len(grouped) == len(list(detector.parameters()))
