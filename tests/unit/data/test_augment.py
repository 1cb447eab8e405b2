import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from geodl.base.errors import OptionError
from geodl.data.augment import RandomLight, RandomRightAngle, augmentations, default_augmentation


def marked_sample(bands=5, height=24, width=24, box=(3, 5, 10, 9)):
    """An image that is 1 exactly inside the box, its box and its mask."""
    x0, y0, x1, y1 = box
    image = torch.zeros(bands, height, width)
    image[:, y0:y1, x0:x1] = 1
    return {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor([box], dtype=torch.float32), format="XYXY", canvas_size=(height, width)
        ),
        "labels": torch.tensor([1]),
        "classes": tv_tensors.Mask(image[0].long()),
    }


def bounds_of(layer):
    rows, cols = (torch.nonzero(layer.sum(dim=d)).ravel() for d in (1, 0))
    return [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_right_angle_turns_image_mask_and_box_alike(turns):
    sample = marked_sample(height=24, width=30)
    turned = {
        k: RandomRightAngle().transform(v, {"turns": turns})
        for k, v in sample.items()
        if k != "labels"
    }
    expected = [int(v) for v in bounds_of(turned["image"][0])]
    assert turned["boxes"].tolist() == [expected]
    assert [int(v) for v in bounds_of(turned["classes"])] == expected
    assert turned["boxes"].canvas_size == tuple(turned["image"].shape[1:])


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_boxes_follow_the_image_through_all_default_moves(bands):
    moves = default_augmentation("MAP_SPACE").transform
    torch.manual_seed(0)
    places = set()
    for _ in range(60):
        moved = moves(marked_sample(bands))
        inside = moved["image"][0] > moved["image"].min() + 0.3
        expected = [int(v) for v in bounds_of(inside)]
        assert moved["boxes"].tolist() == [expected]
        assert torch.equal(moved["classes"].bool(), inside)
        assert moved["labels"].tolist() == [1]
        places.add(tuple(expected))
    assert len(places) == 8  # all turns and mirror images


@pytest.mark.parametrize("space", ["IMAGE_SPACE", "PIXEL_SPACE"])
def test_nothing_is_turned_or_put_upside_down_outside_map_space(space):
    moves = default_augmentation(space).transform
    torch.manual_seed(0)
    places = {tuple(moves(marked_sample())["boxes"][0].tolist()) for _ in range(40)}
    assert places == {(3.0, 5.0, 10.0, 9.0), (14.0, 5.0, 21.0, 9.0)}


def test_light_changes_within_its_bounds_and_leaves_masks():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.full((7, 4, 4), 2.0))
    mask = tv_tensors.Mask(torch.ones(4, 4, dtype=torch.long))
    seen = []
    for _ in range(200):
        out, same = RandomLight(0.3, 0.1, p=0.5)(image, mask)
        assert torch.equal(same, mask)
        assert out.unique().numel() == 1
        seen.append(float(out[0, 0, 0]))
    values = np.array(seen)
    assert (values == 2.0).mean() == pytest.approx(0.5, abs=0.1)
    assert values.min() >= 2 * 0.9 - 0.3
    assert values.max() <= 2 * 1.1 + 0.3
    assert np.ptp(values) > 0.5


@pytest.mark.parametrize("transforms", [None, True])
def test_the_defaults_augment_training_only(transforms):
    train, valid = augmentations(transforms, "MAP_SPACE")
    assert train.transform is not None
    assert train.crop == "random"
    assert (valid.crop, valid.zoom, valid.transform) == ("centre", (1.0, 1.0), None)


def test_false_changes_nothing_in_either_set():
    assert {a.transform for a in augmentations(False, "MAP_SPACE")} == {None}
    assert {a.crop for a in augmentations(False, "MAP_SPACE")} == {"centre"}


def test_own_transforms_come_as_a_pair_lists_or_one():
    flip = v2.RandomHorizontalFlip(1.0)
    train, valid = augmentations((flip, None), "MAP_SPACE")
    assert train.transform is flip
    assert valid.transform is None
    train, valid = augmentations(([flip, flip], [flip]), "MAP_SPACE")
    sample = marked_sample()
    assert train.transform(sample)["boxes"].tolist() == [[3, 5, 10, 9]]
    assert valid.transform(sample)["boxes"].tolist() == [[14, 5, 21, 9]]
    assert augmentations(flip, "MAP_SPACE")[0].transform is flip


@pytest.mark.parametrize("transforms", ["flip", 3, ("flip", None), [1, 2]])
def test_transforms_that_cannot_be_called_are_refused(transforms):
    with pytest.raises(OptionError, match=r"torchvision\.transforms\.v2"):
        augmentations(transforms, "MAP_SPACE")
