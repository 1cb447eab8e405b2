from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from geodl.base.errors import NotSupportedError
from geodl.nets.backbones import (
    STRIDES,
    Backbone,
    backbone_names,
    check_backbone,
    make_backbone,
    plain_transformer_names,
    pretrained_builders,
    timm_names,
    transformer_names,
)
from geodl.nets.encoder import build_encoder


def sizes(net: Backbone, bands: int, height: int, width: int):
    with torch.no_grad():
        return [tuple(m.shape[1:]) for m in net.eval()(torch.randn(1, bands, height, width))]


@pytest.mark.parametrize("bands", [1, 3, 4, 8, 13])
def test_maps_have_the_stated_channels_and_strides_for_any_bands(bands):
    net = Backbone("resnet18", bands)
    assert sizes(net, bands, 64, 96) == [
        (c, 64 // s, 96 // s) for c, s in zip(net.channels, STRIDES, strict=True)
    ]


@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        "vgg11_bn",
        "timm:mobilenetv3_small_050",
        "timm:dla46_c",
        "timm:hrnet_w18_small",
    ],
)
def test_odd_sizes_are_rounded_up_in_every_family(name):
    net = Backbone(name, 3)
    assert [s[1:] for s in sizes(net, 3, 70, 101)] == [(18, 26), (9, 13), (5, 7), (3, 4)]


@pytest.mark.parametrize("name", ["timm:swin_tiny_patch4_window7_224", "timm:pvt_v2_b0"])
def test_transformers_give_channels_first_at_sizes_they_were_not_made_for(name):
    assert name in transformer_names()
    net = Backbone(name, 2)
    assert sizes(net, 2, 64, 40) == [
        (c, -(-64 // s), -(-40 // s)) for c, s in zip(net.channels, STRIDES, strict=True)
    ]


def test_strides_that_a_family_lacks_are_made_of_the_nearest():
    name = "timm:vit_tiny_patch16_224"
    assert name in plain_transformer_names()
    assert check_backbone("vit_tiny_patch16_224") == name
    net = Backbone(name, 5)
    assert net.channels == (192,) * 4
    assert net.places == (0,) * 4
    assert sizes(net, 5, 64, 40) == [(192, -(-64 // s), -(-40 // s)) for s in STRIDES]
    assert Backbone("resnet18", 3).places == (0, 1, 2, 3)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11"])
def test_the_two_halves_hold_every_parameter_once(name):
    net = Backbone(name, 3)
    early, late = net.halves()
    assert early
    assert late
    parameters = [id(p) for module in (*early, *late) for p in module.parameters()]
    assert sorted(parameters) == sorted(id(p) for p in net.parameters())


def test_families_and_lists():
    assert backbone_names(("ResNet",)) == [
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    ]  # fmt: skip
    assert {"densenet121", "vgg16", "vgg19_bn"} <= set(backbone_names())
    assert "timm:efficientnet_b0" in timm_names()
    assert not set(backbone_names()) & {n.removeprefix("timm:") for n in timm_names()}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("resnet34", "resnet34"),
        ("timm:resnet34", "resnet34"),
        ("efficientnet_b0", "timm:efficientnet_b0"),
        ("timm:efficientnet_b0", "timm:efficientnet_b0"),
        (" resnet18 ", "resnet18"),
        (torchvision.models.resnet18, "resnet18"),
        (timm.models.efficientnet_b0, "timm:efficientnet_b0"),
    ],
)
def test_a_backbone_has_one_stored_name(given, stored):
    assert check_backbone(given) == stored


def test_an_unknown_backbone_is_refused_with_the_nearest():
    with pytest.raises(NotSupportedError, match=r"'resnet43'.*Did you mean 'resnet34'"):
        check_backbone("resnet43")
    with pytest.raises(NotSupportedError, match="timm:efficientnet_b0"):
        check_backbone("efficientnet-b0")


def test_a_backbone_without_published_weights_needs_no_warning():
    """timm has no weights of it, so nothing can be fetched anywhere."""
    _, loaded = make_backbone("timm:efficientnet_b6", 3)
    assert not loaded
    assert pretrained_builders("timm:efficientnet_b6") == []
    assert len(pretrained_builders("resnet18")) == 1
    assert pretrained_builders("no-such-net") == []


def test_vgg_is_made_without_the_dense_layers_that_timm_would_take_off_again(monkeypatch):
    made = []
    register = torch.nn.Module.register_parameter

    def count(module, name, parameter):
        real = parameter is not None and not parameter.is_meta
        made.append(parameter.numel() if real else 0)
        register(module, name, parameter)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", count)
    kept = sum(p.numel() for p in Backbone("vgg11", 3).parameters())
    assert sum(made) < 2 * kept
    made.clear()
    assert sum(p.numel() for p in build_encoder("vgg11", 3).parameters()) == kept
    assert sum(made) < 2 * kept
