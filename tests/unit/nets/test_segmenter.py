"""Segmentation networks: the library's answers for the library's weights, any bands and sizes."""

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

from geodl.base.errors import NotSupportedError
from geodl.nets.encoder import build_encoder, encoder_halves
from geodl.nets.segmenter import DeepLabHead, PyramidHead, PyramidUnetHead, Segmenter


def segmenter(head, bands=3, outputs=3, backbone="resnet18", stride=32, **options):
    encoder = build_encoder(backbone, bands, output_stride=stride)
    extra = () if head is DeepLabHead else ((1, 2, 3, 6),)
    return Segmenter(encoder, head(encoder.out_channels, outputs, *extra), outputs, **options)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_deeplab_with_the_librarys_weights_gives_the_librarys_answer():
    theirs = smp.DeepLabV3("tu-resnet18", encoder_weights=None, in_channels=4, classes=3).eval()
    ours = segmenter(DeepLabHead, bands=4, stride=8).eval()
    ours.encoder.load_state_dict(theirs.encoder.state_dict())
    ours.head.decoder.load_state_dict(theirs.decoder.state_dict())
    ours.head.answer.load_state_dict(theirs.segmentation_head[0].state_dict())
    x = torch.randn(1, 4, 64, 96)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_pyramid_pooling_with_the_librarys_weights_gives_the_librarys_answer():
    theirs = PSPDecoder([4, 16, 32]).eval()
    ours = PyramidHead([4, 16, 32], 3, (1, 2, 3, 6)).eval()
    ours.pool.load_state_dict(theirs.psp.state_dict())
    ours.join.load_state_dict(theirs.conv.state_dict())
    x = torch.randn(2, 32, 9, 7)
    with torch.inference_mode():
        assert torch.equal(ours([x]), ours.answer(theirs([x])))


@pytest.mark.parametrize("head", [DeepLabHead, PyramidHead, PyramidUnetHead])
@pytest.mark.parametrize(
    ("bands", "size"), [(1, (45, 70)), (4, (32, 64)), (8, (33, 31)), (13, (64, 64))]
)
def test_any_bands_and_size(head, bands, size):
    net = segmenter(head, bands).eval()
    with torch.inference_mode():
        assert net(torch.randn(2, bands, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    "backbone", ["resnet34", "densenet121", "vgg11_bn", "timm:mobilenetv3_small_050"]
)
@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_encoders_keep_the_stride(backbone, stride):
    encoder = build_encoder(backbone, 3, output_stride=stride).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, 64, 64))
    sides = [64 // m.shape[-1] for m in maps]
    assert sides == [min(s, stride) for s in (1, 2, 4, 8, 16, 32)]
    assert [m.shape[1] for m in maps] == encoder.out_channels


def test_pools_become_dilation_without_other_weights():
    plain, dilated = build_encoder("vgg11", 3), build_encoder("vgg11", 3, output_stride=8)
    dilated.load_state_dict(plain.state_dict())
    plain.eval(), dilated.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(plain(x)[3], dilated(x)[3])
    convs = [m.dilation for m in dilated.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs[-2:] == [(2, 2), (2, 2)]


def test_transformers_that_cannot_be_dilated_keep_their_strides():
    encoder = build_encoder("timm:swin_tiny_patch4_window7_224", 3, output_stride=8).eval()
    with torch.inference_mode():
        assert encoder(torch.randn(1, 3, 64, 64))[-1].shape[-1] == 2


def test_a_backbone_with_other_strides_is_refused():
    with pytest.raises(NotSupportedError, match="vit_tiny"):
        build_encoder("timm:vit_tiny_patch16_224", 3)


def test_extra_answers_come_in_training_only():
    net = segmenter(PyramidUnetHead, auxiliary=True, pointrend=True)
    x = torch.randn(2, 3, 40, 70)
    answer = net.train()(x)
    assert {name: tuple(part.shape) for name, part in answer.items()} == {
        "logits": (2, 3, 40, 70),
        "auxiliary": (2, 3, 40, 70),
        "point_logits": (2, 3, 16),
        "points": (2, 16, 2),
    }
    columns, rows = answer["points"].unbind(-1)
    assert columns.min() >= 0
    assert columns.max() < 70
    assert rows.min() >= 0
    assert rows.max() < 40
    assert net.eval()(x).shape == (2, 3, 40, 70)


def test_every_weight_is_in_one_layer_group():
    net = segmenter(DeepLabHead, auxiliary=True, pointrend=True)
    grouped = [p for group in net.layer_groups() for m in group for p in m.parameters()]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(net.parameters()))
    early, late = encoder_halves(net.encoder)
    assert early
    assert late
