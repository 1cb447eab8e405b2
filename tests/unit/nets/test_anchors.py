from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.base.errors import OptionError
from geodl.nets.anchors import AnchorLayout, check_layout, choose_layout, decode, encode
from geodl.ops.boxes import iou_matrix


def test_anchors_by_hand():
    layout = AnchorLayout((2,), (1.0, 0.5), ((1.0, 1.0), (2.0, 0.5)))
    (anchors,) = layout.anchors(8, 8, 8)
    assert anchors.shape == (2 * 2 * 4, 4)
    # The four of the first cell, whose centre is (2, 2); its side is 4.
    assert anchors[:4].tolist() == [[0, 0, 4, 4], [-2, 1, 6, 3], [1, 1, 3, 3], [0, 1.5, 4, 2.5]]
    # Cells go row by row.
    centres = (anchors[::4, :2] + anchors[::4, 2:]) / 2
    assert centres.tolist() == [[2, 2], [6, 2], [2, 6], [6, 6]]


def test_given_grids_zooms_and_ratios_are_followed_exactly():
    layout = check_layout([9], [1.0], [[1.0, 1.0]], 224)
    (anchors,) = layout.anchors(224, 224, 224)
    assert len(anchors) == 81
    assert torch.allclose(anchors[:, 2] - anchors[:, 0], torch.tensor(224 / 9))


def test_on_another_image_size_the_cells_keep_their_size():
    layout = AnchorLayout((4,), (1.0,), ((1.0, 1.0),))
    (anchors,) = layout.anchors(32, 128, 64)
    assert len(anchors) == 2 * 8
    assert torch.allclose(anchors[:, 2:] - anchors[:, :2], torch.tensor(16.0))
    assert anchors[0].tolist() == [0, 0, 16, 16]
    assert anchors[-1].tolist() == [112, 16, 128, 32]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_decoding_undoes_encoding(seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(20, 2, generator=generator) * 100
    size = torch.rand(2, 20, 2, generator=generator) * 30 + 5
    boxes = torch.cat([low, low + size[0]], dim=1)
    anchors = torch.cat([low + 3, low + 3 + size[1]], dim=1)
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3)


def test_a_wild_network_still_gives_finite_boxes():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    assert torch.isfinite(decode(torch.full((1, 4), 1e4), anchors)).all()


@pytest.mark.parametrize("side", [8, 12, 20, 30, 60, 100])
def test_an_automatic_layout_has_an_anchor_for_every_object(side):
    """The best anchor of each object overlaps it enough to learn from, also off the cells."""
    rng = np.random.default_rng(side)
    sizes = side * rng.uniform(0.7, 1.4, (200, 2))
    layout = choose_layout(sizes, 256)
    low = rng.uniform(0, 256 - 2 * side, (200, 2)).clip(0)
    boxes = np.hstack([low, low + sizes])
    anchors = torch.cat(layout.anchors(256, 256, 256)).numpy()
    best = iou_matrix(boxes, anchors).max(axis=1)
    assert np.mean(best) > 0.5
    assert np.quantile(best, 0.05) > 0.35


def test_an_automatic_layout_gets_finer_with_smaller_objects_and_spans_mixed_ones():
    small = choose_layout(np.full((50, 2), 10.0), 128)
    large = choose_layout(np.full((50, 2), 90.0), 128)
    mixed = choose_layout(np.repeat([[8.0, 8.0], [80.0, 80.0]], 50, axis=0), 128)
    assert max(small.grids) > max(large.grids)
    assert len(mixed.grids) > 1
    assert list(mixed.grids) == sorted(mixed.grids, reverse=True)


def test_long_objects_get_long_anchors():
    assert len(choose_layout(np.tile([[40.0, 10.0]], (9, 1)), 128).ratios) == 3
    assert choose_layout(np.tile([[12.0, 10.0]], (9, 1)), 128).ratios == ((1.0, 1.0),)


def test_no_objects_and_tiny_tiles_still_give_a_layout():
    layout = choose_layout(np.zeros((0, 2)), 32)
    assert all(grid >= 1 for grid in layout.grids)
    assert choose_layout(np.full((3, 2), 500.0), 16).grids == (1,)


@pytest.mark.parametrize(
    ("grids", "zooms", "ratios", "word"),
    [
        ([], [1.0], [[1, 1]], "grids"),
        (4, [1.0], [[1, 1]], "grids"),
        ([4.5], [1.0], [[1, 1]], "grids"),
        ([0], [1.0], [[1, 1]], "grids"),
        ([65], [1.0], [[1, 1]], "grids"),
        (["4"], [1.0], [[1, 1]], "grids"),
        ([4], [], [[1, 1]], "zooms"),
        ([4], [-1.0], [[1, 1]], "zooms"),
        ([4], [float("nan")], [[1, 1]], "zooms"),
        ([4], [1.0], [1.0], "ratios"),
        ([4], [1.0], [[1, 1, 1]], "ratios"),
        ([4], [1.0], [[1, 0]], "ratios"),
        ([4], [1.0], "1,1", "ratios"),
    ],
)
def test_wrong_layouts_are_refused_by_name(grids, zooms, ratios, word):
    with pytest.raises(OptionError, match=word):
        check_layout(grids, zooms, ratios, 64)
