import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from geodl.base.errors import FormatError, OptionError
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX, Normalization
from geodl.data.augment import Augmentation, default_augmentation
from geodl.data.dataset import ChipDataset, SeededSampler
from geodl.data.store import ChipStore, LoadedChip
from geodl.data.targets import BoxTargets, MaskTargets
from geodl.formats.base import BoxLabels, MaskLabels

CLASSES = ClassTable.from_mapping({4: "four", 9: "nine"})
PLAIN = Augmentation()


def unit(bands):
    return Normalization(
        minimum=(0.0,) * bands,
        maximum=(1.0,) * bands,
        scaled_mean=(0.5,) * bands,
        scaled_std=(0.5,) * bands,
    )


def first_item(chip, targets, side_px, augmentation=PLAIN, **options):
    bands = len(chip.data)
    settings = {"bands": range(bands), "normalization": unit(bands)} | options
    store = ChipStore([chip], lambda c: c)
    dataset = ChipDataset(
        store,
        [0],
        ["chip"],
        targets=targets,
        side_px=side_px,
        augmentation=augmentation,
        **settings,
    )
    return dataset[0]


def box_chip(boxes, values, size=(32, 40), bands=2, dtype=np.float32):
    """A chip that is 1 inside the boxes (which lie on whole pixels)."""
    data = np.zeros((bands, *size), dtype)
    for x0, y0, x1, y1 in np.asarray(boxes, int):
        data[:, y0:y1, x0:x1] = 1
    targets = BoxTargets(CLASSES)
    label = BoxLabels(np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(values, np.int64))
    return LoadedChip(data, None, targets.encode(label, size, "label")), targets


def test_an_item_is_normalised_as_in_inference():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (3, 16, 16), dtype=np.uint8)
    valid = rng.random((16, 16)) < 0.8
    values = np.where(valid, 4, 0)
    targets = MaskTargets(CLASSES)
    chip = LoadedChip(data, valid, targets.encode(MaskLabels(values), (16, 16), "x"))
    item = first_item(chip, targets, 16, normalization=Normalization.imagenet())
    np.testing.assert_array_equal(
        item["image"].numpy(), Normalization.imagenet().apply(data, valid)
    )
    assert item["image"].dtype == torch.float32
    assert item["image"].is_contiguous()
    assert item["name"] == "chip"
    assert item["target"].dtype == torch.int64
    np.testing.assert_array_equal(item["target"].numpy(), np.where(valid, 1, IGNORE_INDEX))


def test_boxes_are_float32_pixels_with_network_labels():
    chip, targets = box_chip([[2, 3, 10, 12], [20, 1, 30, 9]], [9, 4], size=(32, 32))
    target = first_item(chip, targets, 32)["target"]
    assert target["boxes"].tolist() == [[2, 3, 10, 12], [20, 1, 30, 9]]
    assert target["labels"].tolist() == [2, 1]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == torch.int64
    assert type(target["boxes"]) is torch.Tensor


def test_a_chip_without_objects_has_empty_boxes():
    chip, targets = box_chip([], [], size=(32, 32))
    target = first_item(chip, targets, 32, default_augmentation("MAP_SPACE"))["target"]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_validation_takes_the_middle_and_clips_boxes():
    chip, targets = box_chip([[0, 0, 20, 16], [0, 0, 8, 8], [30, 10, 40, 20]], [4, 4, 9])
    item = first_item(chip, targets, 16)  # rows 8..24, columns 12..28 of 32 x 40
    assert item["target"]["boxes"].tolist() == [[0, 0, 8, 8]]
    np.testing.assert_array_equal(item["image"][0].numpy() > 0, chip.data[0, 8:24, 12:28] > 0)


def test_a_tiny_box_that_was_not_cut_stays():
    chip, targets = box_chip([], [], size=(32, 32))
    tiny = (np.array([[5.0, 5.0, 5.01, 9.0]]), np.array([1]))
    item = first_item(LoadedChip(chip.data, None, tiny), targets, 16)
    assert len(item["target"]["boxes"]) == 0  # outside the middle
    item = first_item(LoadedChip(chip.data, None, tiny), targets, 32)
    assert len(item["target"]["boxes"]) == 1


@pytest.mark.parametrize("bands", [1, 4])
def test_boxes_follow_the_image_through_crop_zoom_and_turns(bands):
    boxes = [[6, 8, 18, 14], [40, 30, 52, 60]]
    chip, targets = box_chip(boxes, [4, 9], size=(80, 72), bands=bands)
    torch.manual_seed(0)
    seen = 0
    for _ in range(80):
        item = first_item(chip, targets, 48, default_augmentation("MAP_SPACE"))
        assert item["image"].shape == (bands, 48, 48)
        low = item["image"].min()
        marked = (item["image"][0] - low) > 0.5 * (item["image"].max() - low)
        covered = torch.zeros(48, 48, dtype=torch.bool)
        for x0, y0, x1, y1 in item["target"]["boxes"].tolist():
            assert 0 <= x0 < x1 <= 48
            assert 0 <= y0 < y1 <= 48
            covered[round(y0) : round(y1), round(x0) : round(x1)] = True
        seen += len(item["target"]["boxes"])
        if len(item["target"]["boxes"]) == 0:
            continue  # only a sliver, if anything, is left of an object
        # Bilinear zooming blurs edges by less than a pixel; slivers are no objects.
        difference = int((marked ^ covered).sum())
        assert difference <= 0.1 * int(covered.sum()) + 60
    assert seen > 60


def test_masks_follow_the_image_pixel_by_pixel():
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 2, (10, 10)), np.ones((8, 8), int))
    targets = MaskTargets(CLASSES)
    encoded = targets.encode(MaskLabels(coarse * 4), (80, 80), "x")
    chip = LoadedChip(coarse[None].astype(np.float32), None, encoded)
    torch.manual_seed(1)
    sides = set()
    for _ in range(40):
        item = first_item(chip, targets, 48, Augmentation("random", (0.8, 1.25)))
        bright = item["image"][0] > 0
        assert set(item["target"].unique().tolist()) <= {0, 1}
        wrong = (bright != item["target"].bool()).float().mean()
        assert wrong < 0.03  # only along class borders; a shift by half a pixel gives 0.06
        sides.add(float(wrong) > 0)
    assert sides == {True, False}  # some were zoomed, some not


def test_items_beyond_a_small_chip_are_empty_and_ignored():
    targets = MaskTargets(CLASSES)
    encoded = targets.encode(MaskLabels(np.full((20, 30), 9)), (20, 30), "x")
    chip = LoadedChip(np.ones((1, 20, 30), np.float32), None, encoded)
    item = first_item(chip, targets, 32)
    assert (item["target"][:20, 1:31] == IGNORE_INDEX).sum() == 20  # one column beyond the chip
    assert (item["target"][20:] == IGNORE_INDEX).all()
    assert (item["image"][0, 20:] == -1).all()  # raw 0


def test_empty_pixels_stay_raw_zero_under_augmentation():
    targets = MaskTargets(CLASSES)
    valid = np.zeros((40, 40), bool)
    valid[:, :20] = True
    encoded = targets.encode(MaskLabels(np.full((40, 40), 4)), (40, 40), "x")
    chip = LoadedChip(np.ones((2, 40, 40), np.float32), valid, encoded)
    torch.manual_seed(0)
    for _ in range(20):
        item = first_item(chip, targets, 40, default_augmentation("MAP_SPACE"))
        ignored = item["target"] == IGNORE_INDEX
        assert ignored.any()
        assert (item["image"][:, ignored] == -1).all()
        assert set(item["target"][~ignored].tolist()) == {1}


def test_own_transforms_see_images_scaled_to_the_range_of_the_bands():
    seen = {}

    def look(sample):
        seen.update(low=float(sample["image"].min()), high=float(sample["image"].max()))
        return sample

    data = np.array([[[0, 255], [51, 102]]] * 3, np.uint8)
    targets = MaskTargets(CLASSES)
    chip = LoadedChip(data, None, np.zeros((2, 2), np.uint8))
    item = first_item(
        chip,
        targets,
        2,
        Augmentation(transform=look, scaled=True),
        normalization=Normalization.imagenet(),
    )
    assert seen == {"low": pytest.approx(0, abs=1e-6), "high": pytest.approx(1)}
    np.testing.assert_allclose(
        item["image"].numpy(), Normalization.imagenet().apply(data), atol=1e-5
    )


def test_corners_that_an_own_rotation_turns_in_are_ignored():
    targets = MaskTargets(CLASSES)
    encoded = targets.encode(MaskLabels(np.full((32, 32), 4)), (32, 32), "x")
    chip = LoadedChip(np.ones((3, 32, 32), np.float32), None, encoded)
    turn = Augmentation(transform=v2.RandomRotation((45, 45)), scaled=True)
    item = first_item(chip, targets, 32, turn)
    assert item["target"][0, 0] == IGNORE_INDEX
    assert (item["image"][:, 0, 0] == -1).all()
    assert item["target"][16, 16] == 1


def test_boxes_that_an_own_transform_pushes_out_are_dropped():
    chip, targets = box_chip([[0, 0, 4, 4], [10, 10, 20, 20]], [4, 9], size=(32, 32))
    shift = v2.RandomAffine(0, translate=None)

    def move(sample):
        return sample | {"boxes": sample["boxes"] - 5}

    item = first_item(
        chip, targets, 32, Augmentation(transform=v2.Compose([shift, move]), scaled=True)
    )
    assert item["target"]["boxes"].tolist() == [[5, 5, 15, 15]]
    assert item["target"]["labels"].tolist() == [2]


@pytest.mark.parametrize("wrong", [v2.Resize((8, 8)), lambda sample: sample["image"]])
def test_own_transforms_of_another_size_or_shape_are_refused_by_name(wrong):
    chip, targets = box_chip([[0, 0, 4, 4]], [4], size=(32, 32))
    with pytest.raises(OptionError, match=r"chip.*expected"):
        first_item(chip, targets, 32, Augmentation(transform=wrong, scaled=True))


def test_a_band_subset_is_taken_in_its_order():
    data = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 8, 8), np.float32)
    chip = LoadedChip(data, None, np.zeros((8, 8), np.uint8))
    item = first_item(chip, MaskTargets(CLASSES), 8, bands=(3, 0), normalization=unit(2))
    assert item["image"][:, 0, 0].tolist() == [5.0, -1.0]


def test_a_seeded_index_gives_the_same_item_and_leaves_torch_alone():
    chip, targets = box_chip([[6, 8, 18, 14]], [4], size=(64, 64))
    store = ChipStore([chip], lambda c: c)
    dataset = ChipDataset(
        store, [0], ["a"], targets=targets, side_px=32, bands=range(2), normalization=unit(2),
        augmentation=default_augmentation("MAP_SPACE"),
    )  # fmt: skip
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = dataset[(0, 123)]
    torch.testing.assert_close(torch.rand(3), expected)
    assert torch.equal(first["image"], dataset[(0, 123)]["image"])
    assert any(not torch.equal(first["image"], dataset[(0, s)]["image"]) for s in range(5))


def test_a_seeded_sampler_gives_each_position_once_and_repeats_with_its_generator():
    def epochs(seed):
        sampler = SeededSampler(9, torch.Generator().manual_seed(seed))
        return list(sampler), list(sampler)

    first, second = epochs(3)
    assert sorted(i for i, _ in first) == list(range(9))
    assert first != second
    assert epochs(3) == (first, second)
    assert epochs(4)[0] != first


# -- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16])
def test_class_values_become_network_indices(dtype):
    values = np.array([[0, 4], [9, 4]], dtype)
    found = MaskTargets(CLASSES).encode(MaskLabels(values), (2, 2), "x")
    assert found.tolist() == [[0, 1], [2, 1]]
    assert found.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_an_unknown_value_in_a_mask_names_file_and_values(dtype):
    with pytest.raises(FormatError, match=r"labels/7\.tif holds the class value 5, 200;.*0, 4, 9"):
        MaskTargets(CLASSES).encode(MaskLabels(np.array([[5, 200]], dtype)), (1, 2), "labels/7.tif")


def test_values_beyond_8_bits_and_below_0_are_found():
    table = ClassTable.from_mapping({-3: "a", 70000: "b", 255: "c"})
    values = np.array([[-3, 70000, 0, 255]], np.int32)
    assert MaskTargets(table).encode(MaskLabels(values), (1, 4), "x").tolist() == [[1, 2, 0, 3]]
    byte = np.array([[255, 0]], np.uint8)
    assert MaskTargets(table).encode(MaskLabels(byte), (1, 2), "x").tolist() == [[3, 0]]


def test_a_mask_of_another_size_is_refused_by_name():
    with pytest.raises(FormatError, match=r"m\.tif has 2 x 3"):
        MaskTargets(CLASSES).encode(MaskLabels(np.zeros((2, 3), np.uint8)), (4, 4), "m.tif")


@pytest.mark.parametrize("value", [0, 7])
def test_an_unknown_value_of_a_box_names_file_and_value(value):
    label = BoxLabels(np.array([[0.0, 0, 1, 1]]), np.array([value]))
    with pytest.raises(FormatError, match=rf"a\.xml holds the class value {value};.*4, 9"):
        BoxTargets(CLASSES).encode(label, (4, 4), "a.xml")


# -- store ------------------------------------------------------------------------------------


@dataclass
class CountingLoader:
    loads: int = 0

    def __call__(self, name):
        self.loads += 1
        return LoadedChip(np.full((1, 10, 10), int(name), np.uint8), None, np.zeros(0, np.uint8))


def test_chips_are_decoded_once_while_there_is_room():
    loader = CountingLoader()
    store = ChipStore(["1", "2", "3"], loader, limit_bytes=250)
    for _ in range(3):
        assert [int(store[i].data[0, 0, 0]) for i in range(3)] == [1, 2, 3]
    assert loader.loads == 5  # two are kept, the third is read each time
    assert store.held_bytes == 200


def test_a_pickled_store_leaves_its_chips_behind():
    store = ChipStore(["1"] * 50, CountingLoader())
    for i in range(50):
        store[i]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.held_bytes == 0
    assert copy[3].data[0, 0, 0] == 1
    assert len(pickle.dumps(store)) < 1000
