"""PointRend: its points lie where the paper puts them, and refinement reaches the image's size."""

import pytest
import torch
from torch.nn import functional

from geodl.base.models import MODELS
from geodl.core.classes import ClassTable
from geodl.nets.pointrend import (
    PointHead,
    points_for,
    refine,
    sample_points,
    training_points,
    uncertainty,
)


def test_values_at_pixel_centres_are_the_pixels():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    rows, cols = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    centres = torch.stack([(cols + 0.5) / 4, (rows + 0.5) / 3], dim=-1).reshape(1, 12, 2)
    assert torch.allclose(sample_points(maps, centres), maps.flatten(2), atol=1e-5)


def test_the_nearer_the_two_best_the_more_uncertain():
    logits = torch.tensor([[5.0, 1.0, 0.9], [2.0, 1.9, -3.0]])[:, :, None, None]
    assert torch.allclose(uncertainty(logits).flatten(), torch.tensor([-4.0, -0.1]))
    assert uncertainty(torch.tensor([[[-2.0]]])).item() == -2.0


def test_most_training_points_lie_on_the_border_and_all_within_reach():
    torch.manual_seed(0)
    coarse = torch.zeros(2, 2, 32, 32)
    coarse[:, 0, :, :16] = 4
    coarse[:, 1, :, 16:] = 4
    points = training_points(coarse, 200, (1.0, 0.5))
    assert points.shape == (2, 200, 2)
    assert points[..., 1].max() < 0.5
    near = ((points[..., 0] - 0.5).abs() < 1 / 64).float().mean()
    assert near > 0.07  # by chance alone 0.03


def test_small_maps_get_points_too():
    assert points_for(4, 64) == 4
    assert points_for(640, 64) == 16
    assert points_for(64 * 100, 64) == 100


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_refinement_changes_only_uncertain_points(size):
    class Certain(torch.nn.Module):
        def forward(self, fine, coarse):
            return torch.full_like(coarse, 7.0)

    coarse = torch.zeros(1, 2, 8, 8)
    coarse[:, 0, :, :4] = 4
    coarse[:, 1, :, 4:] = 4
    fine = [torch.zeros(1, 3, 8, 8)]
    found = refine(coarse, fine, Certain(), size)
    assert found.shape == (1, 2, *size)
    touched = (found == 7).all(dim=1)
    assert touched.any()
    assert not touched[:, :, : size[1] // 4].any()
    plain = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    assert torch.equal(refine(coarse, fine, Certain(), (8, 8)), coarse)
    assert (found != plain).any()


def test_the_head_sees_the_coarse_prediction_in_every_layer():
    head = PointHead(5, 3, hidden=8)
    assert [layer.in_channels for layer in head.layers] == [8, 11, 11]
    assert head(torch.zeros(2, 5, 7), torch.zeros(2, 3, 7)).shape == (2, 3, 7)


@pytest.mark.parametrize(
    ("name", "more"),
    [("DeepLab", {}), ("PSPNetClassifier", {}), ("MaskRCNN", {"finest_anchor_px": 32.0})],
)
def test_pixel_classifiers_and_mask_rcnn_share_the_point_head(name, more):
    parameters = {"backbone": "resnet18", "pointrend": True, **more}
    net = MODELS[name].build(
        classes=ClassTable.from_mapping({1: "a", 2: "b"}), bands=3, tile_px=64,
        parameters=parameters, pretrained=False, batch_size=4,
    )[0]  # fmt: skip
    assert [type(m) for m in net.children()].count(PointHead) == 1
