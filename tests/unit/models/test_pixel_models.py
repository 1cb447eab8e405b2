"""PSPNetClassifier and DeepLab: their arguments reach the network, and wrong ones are refused."""

import warnings

import pytest
import torch

from geodl.base.errors import (
    NotSupportedError,
    OfflineWarning,
    OptionError,
    UnknownOptionError,
)
from geodl.models.deeplab import DeepLab
from geodl.models.pspnet_classifier import PSPNetClassifier
from geodl.nets.segmenter import PyramidHead, PyramidUnetHead


def make(kind, data, **options):
    options.setdefault("backbone", "resnet18")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return kind(data, **options)


@pytest.mark.parametrize(
    ("options", "head", "stride"),
    [
        ({}, PyramidUnetHead, 32),
        ({"use_unet": False}, PyramidHead, 8),
        ({"use_unet": False, "pointrend": True}, PyramidHead, 32),
        ({"use_unet": False, "pointrend": True, "keep_dilation": True}, PyramidHead, 8),
    ],
)
def test_pspnets_arguments_choose_decoder_and_dilation(data, options, head, stride):
    model = make(PSPNetClassifier, data, pyramid_sizes=[1, 4], **options)
    assert isinstance(model.net.head, head)
    assert [block.pool_size for block in model.net.head.pool.blocks] == [1, 4]
    assert model.net.encoder.output_stride == stride
    assert (model.net.points is not None) == options.get("pointrend", False)


@pytest.mark.parametrize(("keep", "stride"), [(False, 32), (True, 8)])
def test_deeplab_keeps_dilation_with_pointrend_only_when_told(data, keep, stride):
    assert make(DeepLab, data).net.encoder.output_stride == 8
    model = make(DeepLab, data, pointrend=True, keep_dilation=keep)
    assert model.net.encoder.output_stride == stride


def test_the_auxiliary_loss_needs_the_unet(data):
    assert make(PSPNetClassifier, data, unet_aux_loss=True).net.auxiliary is not None
    with pytest.raises(OptionError, match="use_unet"):
        make(PSPNetClassifier, data, use_unet=False, unet_aux_loss=True)


@pytest.mark.parametrize("kind", [DeepLab, PSPNetClassifier])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"backbone": "resnet35"}, NotSupportedError, "resnet35"),
        ({"focal_los": True}, UnknownOptionError, "'focal_loss'"),
        ({"pointrend": "perhaps"}, OptionError, "pointrend"),
        ({"keep_dilation": 3}, OptionError, "keep_dilation"),
        ({"ignore_classes": [4]}, OptionError, "4"),
    ],
)
def test_wrong_arguments_are_refused_by_name(data, kind, options, error, text):
    with pytest.raises(error, match=text):
        make(kind, data, **options)


@pytest.mark.parametrize("sizes", [3, "1,2", [], [0, 1], [1.5]])
def test_wrong_pyramid_sizes_are_refused(data, sizes):
    with pytest.raises(OptionError, match="pyramid_sizes"):
        make(PSPNetClassifier, data, pyramid_sizes=sizes)


def test_freeze_and_unfreeze(data):
    model = make(PSPNetClassifier, data, pretrained=False)
    model.freeze()
    assert not any(p.requires_grad for p in model.net.backbone.parameters())
    assert all(p.requires_grad for p in model.net.head.parameters())
    model.unfreeze()
    assert all(p.requires_grad for p in model.net.parameters())


def test_accuracy_of_given_tensors_leaves_out_the_void(data):
    model = make(PSPNetClassifier, data)
    scores = torch.tensor([[[[9.0, 0, 0, 0]], [[0, 9.0, 9.0, 0]], [[0, 0, 0, 9.0]]]])
    target = torch.tensor([[[0, 1, 2, 2]]])
    assert model.accuracy(scores, target) == pytest.approx(2 / 3)
    assert model.accuracy(scores, target[:, None], void_code=2) == 1.0
    assert model.accuracy(scores, target, class_mapping={2: "NoData"}) == 1.0
    with pytest.raises(OptionError, match="target"):
        model.accuracy(scores)


def test_all_losses_work_with_points_and_auxiliary_logits(data):
    model = make(
        PSPNetClassifier, data, unet_aux_loss=True, pointrend=True, mixup=True, focal_loss=True,
        dice_loss_fraction=0.5, dice_loss_average="macro", class_balancing=True,
        ignore_classes=data.class_table.values[:1],
    )  # fmt: skip
    batch = model.task.collate([data.train_ds[0], data.train_ds[1]])
    torch.manual_seed(0)
    loss = model.task.loss(model.net.train(), batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert model.net.points.answer.weight.grad.abs().sum() > 0
    assert model.net.auxiliary[0][0].weight.grad.abs().sum() > 0


def test_other_lists_are_documented():
    assert "densenet121" in DeepLab.backbones()
    assert all(name.startswith("timm:") for name in DeepLab.transformer_backbones())
