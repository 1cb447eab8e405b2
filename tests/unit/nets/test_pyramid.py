from __future__ import annotations

import torch

from geodl.nets.pyramid import FeaturePyramid


def test_levels_keep_their_size_and_the_finest_sees_the_coarsest():
    net = FeaturePyramid((4, 8, 16), 6).eval()
    sizes = [(13, 9), (7, 5), (4, 3)]
    maps = [
        torch.randn(2, c, *size, requires_grad=True)
        for c, size in zip((4, 8, 16), sizes, strict=True)
    ]
    out = net(maps)
    assert [tuple(o.shape) for o in out] == [(2, 6, *size) for size in sizes]
    out[0].square().sum().backward()
    assert maps[2].grad is not None
    assert maps[2].grad.abs().sum() > 0


def test_a_coarse_level_does_not_depend_on_finer_ones():
    net = FeaturePyramid((4, 8), 6).eval()
    fine, coarse = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)
    assert torch.equal(net([fine, coarse])[1], net([fine * 2, coarse])[1])
