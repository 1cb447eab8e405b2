import pytest
import segmentation_models_pytorch as smp
import torch

from geodl.base.errors import NotSupportedError
from geodl.nets.unet import UNet, make_unet, pad_to_stride


@pytest.mark.parametrize("bands", [1, 3, 4, 8, 13])
def test_any_number_of_bands_learns(bands):
    net = UNet("resnet18", bands, 3)
    out = net(torch.randn(2, bands, 32, 32))
    assert out.shape == (2, 3, 32, 32)
    out.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", ["densenet121", "vgg11_bn", "timm:mobilenetv3_small_050"])
def test_other_families_give_scores_at_every_pixel(name):
    with torch.device("meta"):
        assert UNet(name, 4, 2).eval()(torch.zeros(1, 4, 40, 70)).shape == (1, 2, 40, 70)


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (50, 20), (97, 31)])
def test_any_size_comes_back(size):
    net = UNet("resnet18", 1, 2).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def test_padding_mirrors_right_and_below():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    padded = pad_to_stride(x, 6)
    assert padded.shape == (1, 1, 6, 6)
    assert torch.equal(padded[..., :4, :5], x)
    assert padded[0, 0, 0, 5] == x[0, 0, 0, 3]
    assert padded[0, 0, 4, 0] == x[0, 0, 2, 0]
    assert pad_to_stride(padded, 6) is padded


def test_padding_of_tiny_images_repeats_the_edge():
    assert torch.equal(pad_to_stride(torch.ones(1, 1, 2, 2), 32), torch.ones(1, 1, 32, 32))


def test_layer_groups_hold_every_parameter_once_backbone_first():
    net = UNet("resnet18", 3, 2)
    groups = [{id(p) for m in group for p in m.parameters()} for group in net.layer_groups()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(net.parameters()))
    assert groups[0] | groups[1] == {id(p) for p in net.backbone.parameters()}
    assert all(groups)


def test_without_pretrained_weights_nothing_is_fetched():
    _, loaded = make_unet("resnet18", 3, 2, pretrained=False)
    assert not loaded


def test_a_backbone_that_is_none_is_refused():
    with pytest.raises(NotSupportedError, match="backbones"):
        UNet("timm:vit_tiny_patch16_224", 3, 2)


def test_with_the_librarys_weights_it_gives_the_librarys_answer():
    torch.manual_seed(0)
    theirs = smp.Unet("tu-resnet18", encoder_weights=None, in_channels=4, classes=3).eval()
    ours = UNet("resnet18", 4, 3).eval()
    ours.net.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 4, 64, 96)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))
