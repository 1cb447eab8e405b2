"""STANet: attention over places of both dates, by regions, and distances that are symmetric."""

import pytest
import torch

from geodl.nets.encoder import build_encoder
from geodl.nets.stanet import Attention, BasicAttention, PairDropout, PyramidAttention, STANet


def net(bands=3, pyramid=True):
    torch.manual_seed(0)
    return STANet(build_encoder("resnet18", bands), pyramid=pyramid)


@pytest.mark.parametrize("pyramid", [True, False])
@pytest.mark.parametrize(
    ("bands", "size"), [(1, (40, 33)), (4, (32, 64)), (8, (45, 45)), (13, (64, 64))]
)
def test_any_bands_and_size(bands, size, pyramid):
    with torch.inference_mode():
        found = net(bands, pyramid).eval()(torch.randn(2, 2 * bands, *size))
    assert found.shape == (2, 1, *size)
    assert found.min() >= 0


@pytest.mark.parametrize("regions", [1, 2])
def test_attention_is_the_papers_formula(regions):
    torch.manual_seed(1)
    attention = Attention(16, regions)
    pair = torch.randn(4, 16, 4, 6)
    found = attention(pair)
    query, key, value = (c(pair) for c in (attention.query, attention.key, attention.value))
    height, width = 4 // regions, 6 // regions
    for image in range(2):
        for row in range(regions):
            for col in range(regions):
                place = (
                    slice(None),
                    slice(row * height, (row + 1) * height),
                    slice(col * width, (col + 1) * width),
                )
                q, k, v, expected = (
                    torch.cat(
                        [maps[image][place].flatten(1), maps[image + 2][place].flatten(1)], dim=1
                    )
                    for maps in (query, key, value, found)
                )
                weights = torch.softmax(k.T @ q / 2**0.5, dim=0)
                assert torch.allclose(v @ weights, expected, atol=1e-5)


def test_regions_see_nothing_of_each_other():
    attention = Attention(16, 2)
    pair = torch.randn(2, 16, 4, 4)
    other = pair.clone()
    other[:, :, 2:, 2:] += 1
    one, two = attention(pair), attention(other)
    assert torch.equal(one[:, :, :2], two[:, :, :2])
    assert not torch.allclose(one[:, :, 2:, 2:], two[:, :, 2:, 2:])


def test_attention_is_added_to_the_features():
    pair = torch.randn(2, 16, 8, 8)
    for module in (BasicAttention(16), PyramidAttention(16)):
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(module(pair), pair)


def test_the_same_image_twice_is_no_change_and_order_does_not_matter():
    model = net().eval()
    before, after = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        assert model(torch.cat([before, before], dim=1)).max() < 1e-3
        one = model(torch.cat([before, after], dim=1))
        two = model(torch.cat([after, before], dim=1))
    assert torch.allclose(one, two, atol=1e-4)
    assert one.mean() > 0.01


def test_every_weight_is_in_one_layer_group():
    model = net()
    grouped = [p for group in model.layer_groups() for m in group for p in m.parameters()]
    assert len({id(p) for p in grouped}) == len(grouped) == len(list(model.parameters()))


def test_in_training_the_same_ground_has_no_distance_whatever_is_left_out():
    image = torch.randn(2, 3, 64, 64)
    assert net().train()(torch.cat([image, image], dim=1)).max() < 1e-3
    layer = PairDropout(0.5)
    dropped = layer(torch.ones(4, 8, 5, 5))
    assert torch.equal(dropped[:2], dropped[2:])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(dropped), dropped)
