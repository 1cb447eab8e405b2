import torch
from timm.layers import BatchNormAct2d
from torch import nn

from geodl.nets.normalization import batch_to_group_norm, groups_for


def test_groups_divide_the_channels():
    assert [groups_for(c) for c in (1, 7, 16, 24, 64, 100, 512)] == [1, 1, 2, 3, 8, 10, 32]


def test_every_batch_norm_is_replaced_but_for_the_kept_part():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    net = nn.Sequential(backbone, nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)))
    net[1][1].weight.data.fill_(2)
    batch_to_group_norm(net, keep=backbone)
    assert isinstance(backbone[1], nn.BatchNorm2d)
    assert isinstance(net[1][1], nn.GroupNorm)
    assert (net[1][1].weight == 2).all()
    batch_to_group_norm(net)
    assert isinstance(net[0][1], nn.GroupNorm)


def test_an_activation_joined_to_the_normalisation_stays():
    net = nn.Sequential(BatchNormAct2d(8))
    batch_to_group_norm(net)
    out = net(torch.randn(1, 8, 4, 4))
    assert (out >= 0).all()
    assert (out == 0).any()


def test_one_sample_of_one_pixel_can_train():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))
    batch_to_group_norm(net)
    assert net.train()(torch.ones(1, 1, 1, 1)).isfinite().all()
