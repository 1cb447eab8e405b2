"""Samples of several images: change detection, translation, super-resolution."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch

from geodl.base.errors import (
    DataWarning,
    FormatError,
    ModelDataError,
    NotSupportedError,
    OptionError,
    UnknownOptionError,
)
from geodl.core.contract import IGNORE_INDEX
from geodl.data.prepare import prepare_data
from geodl.testing.datasets import (
    band_statistics,
    change_folder,
    write_chip,
    write_chips,
    write_masks,
    write_root_files,
)

PLAIN = {"transforms": False, "batch_size": 2, "val_split_pct": 0.34}


def items_of(data):
    both = (data.train_ds, data.valid_ds)
    return {item["name"]: item for items in both for item in (items[i] for i in range(len(items)))}


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


# -- change -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (1, "float32"), (4, "uint16")])
def test_change_items_hold_both_images_and_where_they_differ(tmp_path, bands, dtype):
    change_folder(tmp_path, bands=bands, dtype=dtype)
    before = write_chips(tmp_path / "images", 6, seed=1, bands=bands, dtype=dtype)
    after = write_chips(tmp_path / "images2", 6, seed=2, bands=bands, dtype=dtype)
    masks = write_masks(tmp_path / "labels", 6, values=(0, 3, 7))
    data = prepare_data(tmp_path, **PLAIN)
    assert (data.dataset_type, data.kind) == ("ChangeDetection", "change")
    assert data.classes == ["mine"]
    assert data.class_counts == {1: sum(int((m > 0).sum()) for m in masks)}
    items = items_of(data)
    assert len(items) == 6
    for i in range(6):
        item = items[f"{i:09d}"]
        got = data.normalization.invert(item["image"].numpy())
        np.testing.assert_allclose(got, before[i], atol=1e-3)
        got = data.normalization_b.invert(item["image_b"].numpy())
        np.testing.assert_allclose(got, after[i], atol=1e-3)
        assert item["target"].dtype == torch.int64
        np.testing.assert_array_equal(item["target"], masks[i] > 0)


def test_both_images_and_the_mask_are_moved_together(tmp_path):
    for name in ("images", "images2"):
        write_chips(tmp_path / name, 4, seed=5, bands=1, dtype="float32", size=(24, 24))
    for i in range(4):
        image = np.zeros((1, 24, 24), np.float32)
        image[0, 3:9, 5:20] = 100 + i
        write_chip(tmp_path / "images" / f"{i:09d}.tif", image, i)
        write_chip(tmp_path / "images2" / f"{i:09d}.tif", image, i)
        write_chip(tmp_path / "labels" / f"{i:09d}.tif", (image > 0).astype(np.uint8), i)
    data = prepare_data(tmp_path, dataset_type="ChangeDetection", chip_size=16, batch_size=2)
    for seed in range(12):
        item = data.train_ds[(seed % 3, seed)]
        torch.testing.assert_close(item["image"], item["image_b"])
        values = item["image"][0]
        if item["target"].unique().numel() == 2:
            inside = values[item["target"] == 1].mean()
            assert inside > values[item["target"] == 0].mean() + 0.5


def test_pixels_without_data_in_either_image_are_ignored(tmp_path):
    for i in range(3):
        before = np.full((1, 8, 8), 5, np.int16)
        after = before.copy()
        before[0, 0, 0], after[0, 7, 7] = -1, -1
        write_chip(tmp_path / "images" / f"{i}.tif", before, i, nodata=-1)
        write_chip(tmp_path / "images2" / f"{i}.tif", after, i, nodata=-1)
        write_chip(tmp_path / "labels" / f"{i}.tif", np.ones((1, 8, 8), np.uint8), i)
    data = prepare_data(tmp_path, dataset_type="ChangeDetection", **PLAIN)
    target = data.train_ds[0]["target"]
    assert target[0, 0] == target[7, 7] == IGNORE_INDEX
    assert int((target == 1).sum()) == 62


def test_the_older_names_and_folders_that_are_split_already(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        write_chips(tmp_path / part / "images_before", count, seed=1)
        write_chips(tmp_path / part / "images_after", count, seed=2)
        write_masks(tmp_path / part / "labels", count)
    with pytest.raises(FormatError, match="split='folder'"):
        prepare_data(tmp_path, dataset_type="ChangeDetection")
    data = prepare_data(tmp_path, dataset_type="ChangeDetection", split="folder", batch_size=2)
    assert (len(data.train_ds), len(data.valid_ds), data.split) == (4, 2, "folder")
    assert {item["name"][:4] for item in (data.valid_ds[0], data.valid_ds[1])} == {"val/"}
    with pytest.raises(FormatError, match="has no 'train'"):
        prepare_data(change_folder(tmp_path / "plain"), split="folder")


def test_a_block_split_takes_neighbours(tmp_path):
    data = prepare_data(change_folder(tmp_path, chips=8), split="block", val_split_pct=0.5)
    places = [divmod(int(data.valid_ds[i]["name"]), 4) for i in range(4)]
    assert data.split == "block"
    reached = {places[0]}
    for _ in places:  # from one chip to the next, all are reached over their sides
        reached |= {p for p in places for q in reached if abs(p[0] - q[0]) + abs(p[1] - q[1]) == 1}
    assert reached == set(places)


def test_folders_are_merged_and_must_be_alike(tmp_path):
    first = change_folder(tmp_path / "a", chips=4)
    second = change_folder(tmp_path / "b", chips=3)
    data = prepare_data([first, second], **PLAIN)
    assert len(data.train_ds) + len(data.valid_ds) == 7
    other = change_folder(tmp_path / "c", bands=1)
    with pytest.raises(ValueError, match="cannot be merged"):
        prepare_data([first, other])


def test_faults_of_change_folders_are_named(tmp_path):
    root = change_folder(tmp_path / "x")
    (root / "images2" / "000000003.tif").unlink()
    with pytest.raises(FormatError, match="images2 has no chip '000000003'"):
        prepare_data(root)
    root = change_folder(tmp_path / "y")
    write_chips(root / "images2", 6, bands=1)
    with pytest.raises(FormatError, match="images2 have 1 bands"):
        prepare_data(root)
    root = change_folder(tmp_path / "z")
    write_chips(root / "images2", 6, size=(8, 8))
    with pytest.raises(FormatError, match="8 x 8 pixels"):
        prepare_data(root)
    root = change_folder(tmp_path / "f")
    write_chip(root / "labels" / "000000001.tif", np.ones((1, 16, 16), np.float32))
    with pytest.raises(FormatError, match=r"labels.000000001\.tif .* whole numbers"):
        items_of(prepare_data(root, **PLAIN))
    (root / "labels" / "000000001.tif").rename(root / "labels" / "000000099.tif")
    with pytest.raises(FormatError, match="000000099"):
        prepare_data(root)


def test_a_missing_label_is_only_a_warning(tmp_path):
    root = change_folder(tmp_path)
    (root / "labels" / "000000001.tif").unlink()
    with pytest.warns(DataWarning, match="1 of 6 chips of .*000000001"):
        data = prepare_data(root, **PLAIN)
    assert len(data.train_ds) + len(data.valid_ds) == 5


def test_one_chip_of_another_size_is_named_when_it_is_read(tmp_path):
    root = change_folder(tmp_path)
    write_chip(root / "images2" / "000000002.tif", np.ones((3, 8, 16), np.uint8))
    with pytest.raises(FormatError, match=r"images2.000000002\.tif"):
        items_of(prepare_data(root, **PLAIN))


def test_the_change_class_can_be_named_and_no_other(tmp_path):
    root = change_folder(tmp_path)
    assert prepare_data(root, {1: "new pit"}).classes == ["new pit"]
    with pytest.raises(OptionError, match="value 4"):
        prepare_data(root, {4: "x"})
    with pytest.raises(UnknownOptionError, match="n_temporal"):
        prepare_data(root, n_temporal=3)
    with pytest.raises(OptionError, match="resize_to"):
        prepare_data(root, resize_to=8)


# -- translation ------------------------------------------------------------------------------


def test_pairs_of_two_domains_have_statistics_each(tmp_path):
    first = write_chips(tmp_path / "images", 5, seed=1, bands=4, dtype="uint16")
    second = write_chips(tmp_path / "images2", 5, seed=2, bands=1, dtype="float32")
    stats = {"AllTilesStats": band_statistics(first), "AllTilesStats2": band_statistics(second)}
    write_root_files(tmp_path, "Export_Tiles", bands=4, **stats)
    before = snapshot(tmp_path)
    data = prepare_data(tmp_path, **PLAIN)
    assert (data.dataset_type, data.all_bands, data.chip_size) == ("Pix2Pix", (4, 1), 16)
    assert data.statistics_name == "the export's statistics"
    for i, item in enumerate(items_of(data)[f"{i:09d}"] for i in range(5)):
        np.testing.assert_allclose(
            data.normalization.invert(item["image"].numpy()), first[i], atol=1e-2
        )
        np.testing.assert_allclose(
            data.normalization_b.invert(item["image_b"].numpy()), second[i], atol=1e-2
        )
        assert item["valid"].all()
    everything = torch.cat([items_of(data)[f"{i:09d}"]["image_b"] for i in range(5)])
    assert abs(float(everything.mean())) < 1e-3
    assert abs(float(everything.std()) - 1) < 1e-2
    assert snapshot(tmp_path) == before


def test_labels_can_be_the_first_domain(tmp_path):
    images = write_chips(tmp_path / "images", 4)
    masks = write_masks(tmp_path / "labels", 4, values=(0, 2, 5))
    write_root_files(tmp_path, "Export_Tiles")
    data = prepare_data(tmp_path, {2: "road"}, **PLAIN)
    assert data.classes == ["road", "5"]
    assert data.normalization is None
    for i in range(4):
        item = items_of(data)[f"{i:09d}"]
        expected = np.stack([masks[i] == value for value in (0, 2, 5)]).astype(np.float32)
        np.testing.assert_array_equal(item["image"], expected)
        got = data.normalization_b.invert(item["image_b"].numpy())
        np.testing.assert_allclose(got, images[i], atol=1e-3)
    assert "classes 3 x uint8" in repr(data)


def test_the_older_folders_of_pairs_are_found(tmp_path):
    write_chips(tmp_path / "Images" / "train_a", 3, seed=1)
    write_chips(tmp_path / "Images" / "train_b", 3, seed=2)
    data = prepare_data(tmp_path, dataset_type="Pix2Pix", **PLAIN)
    assert set(data.train_ds[0]) == {"image", "image_b", "valid", "name"}


def test_triplets_keep_their_order(tmp_path):
    a = write_chips(tmp_path / "train_A_C" / "images", 3, seed=1)
    c = write_chips(tmp_path / "train_A_C" / "images2", 3, seed=2, bands=1)
    b = write_chips(tmp_path / "train_B" / "images", 3, seed=3, bands=2)
    for part in ("train_A_C", "train_B"):
        write_root_files(tmp_path / part, "Export_Tiles")
    data = prepare_data(tmp_path, **PLAIN)
    assert data.dataset_type == "WNet_cGAN"
    item = items_of(data)["000000001"]
    parts = (data.normalization, data.normalization_b, data.normalization_c)
    for key, part, expected in zip(("image", "image_b", "image_c"), parts, (a, b, c), strict=True):
        np.testing.assert_allclose(part.invert(item[key].numpy()), expected[1], atol=1e-3)
    (tmp_path / "train_B" / "images" / "000000000.tif").unlink()
    with pytest.raises(FormatError, match="000000000"):
        prepare_data(tmp_path)


def unpaired(root, a=4, b=7, **options):
    for part, count in (("A", a), ("B", b)):
        write_chips(root / part / "images", count, seed=count, **options)
        write_root_files(root / part, "Export_Tiles")
    return root


def test_unpaired_images_are_drawn_anew_and_repeatably(tmp_path):
    data = prepare_data(unpaired(tmp_path), val_split_pct=0.25, batch_size=2)
    assert (data.dataset_type, data.kind, len(data.train_ds)) == ("CycleGAN", "unpaired", 5)
    first = [data.train_ds[(i, 9)] for i in range(5)]
    assert {item["name"] for item in first} == {data.train_ds.first[i]["name"] for i in range(3)}
    again = data.train_ds[(2, 9)]
    torch.testing.assert_close(first[2]["image_b"], again["image_b"])
    assert first[2]["name_b"] == again["name_b"]
    partners = {data.train_ds[(0, seed)]["name_b"] for seed in range(30)}
    assert len(partners) > 2
    with pytest.raises(IndexError):
        data.train_ds[5]
    assert data.valid_ds[1]["name_b"] == data.valid_ds[1]["name_b"]


def test_unpaired_folders_are_not_merged(tmp_path):
    root = unpaired(tmp_path / "x")
    with pytest.raises(NotSupportedError, match="one folder"):
        prepare_data([root, unpaired(tmp_path / "y")])
    write_chips(root / "B" / "images", 7, size=(8, 8))
    with pytest.raises(FormatError, match="8 x 8"):
        prepare_data(root)


# -- super-resolution -------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "low"), [(None, 4), (2, 8), (3, 5)])
def test_low_resolution_is_made_from_the_images(tmp_path, factor, low):
    write_chips(tmp_path / "images", 4, bands=2, dtype="uint16")
    write_root_files(tmp_path, "Export_Tiles", bands=2)
    before = snapshot(tmp_path)
    options = {} if factor is None else {"downsample_factor": factor}
    data = prepare_data(tmp_path, dataset_type="superres", **PLAIN, **options)
    item = data.train_ds[0]
    side = low * (factor or 4)
    assert item["image"].shape == (2, low, low)
    assert item["image_b"].shape == (2, side, side)
    assert data.downsample_factor == (factor or 4)
    torch.testing.assert_close(item["image"].mean(), item["image_b"].mean(), atol=0.15, rtol=0)
    assert snapshot(tmp_path) == before


def two_resolutions(root, second="images2", size=(6, 6), factor=2):
    high = [
        np.kron(c, np.ones((factor, factor))) for c in write_chips(root / "images", 4, size=size)
    ]
    for i, data in enumerate(high):
        write_chip(root / second / f"{i:09d}.tif", data.astype("float32"), i)
    stats = [{"Min": 0, "Max": 199, "Mean": 100, "StdDev": 50}] * 3
    write_root_files(root, "Export_Tiles", size=size, AllTilesStats2=stats)
    return root


@pytest.mark.parametrize("second", ["images2", "labels"])
@pytest.mark.parametrize("size", [(6, 6), (6, 9), (5, 8)])
def test_two_resolutions_stay_on_each_other(tmp_path, second, size):
    root = two_resolutions(tmp_path, second, size)
    options = {"dataset_type": "superres", "batch_size": 2}
    if size[0] == size[1]:
        data = prepare_data(root, **options)
    else:
        with pytest.warns(DataWarning, match="middle"):
            data = prepare_data(root, **options)
    assert data.downsample_factor == 2
    for seed in range(6):
        item = data.train_ds[(0, seed)]
        low = data.normalization.invert(item["image"].numpy())
        high = data.normalization_b.invert(item["image_b"].numpy())
        np.testing.assert_allclose(np.kron(low, np.ones((2, 2))), high, atol=1e-2)


def test_faults_of_super_resolution_are_named(tmp_path):
    root = two_resolutions(tmp_path / "x")
    with pytest.raises(OptionError, match="downsample_factor=4"):
        prepare_data(root, dataset_type="superres", downsample_factor=4)
    write_chips(root / "images2", 4, size=(15, 15))
    with pytest.raises(FormatError, match="whole factor"):
        prepare_data(root, dataset_type="superres")
    shutil.rmtree(root / "images2")
    write_root_files(root, "Export_Tiles")
    with pytest.raises(OptionError, match="makes nothing smaller"):
        prepare_data(root, dataset_type="superres", downsample_factor=1)
    with pytest.raises(OptionError, match="leaves nothing"):
        prepare_data(root, dataset_type="superres", downsample_factor=100)
    data = prepare_data(root, dataset_type="superres", resize_to=12, downsample_factor=3, **PLAIN)
    assert data.train_ds[0]["image_b"].shape == (3, 12, 12)


# -- for people, loaders, real data -----------------------------------------------------------


def test_statistics_that_contradict_themselves_are_named(tmp_path):
    root = change_folder(tmp_path)
    stats = [{"Min": 5, "Max": 1, "Mean": 3, "StdDev": 1}] * 3
    write_root_files(root, "Classified_Tiles", AllTilesStats=stats)
    with pytest.raises(FormatError, match="AllTilesStats"):
        prepare_data(root)
    write_root_files(root, "Classified_Tiles", AllTilesStats2=stats[:1])
    with pytest.raises(FormatError, match="1 entries for 3 bands"):
        prepare_data(root)


def test_batches_stack_every_image(tmp_path):
    data = prepare_data(change_folder(tmp_path), batch_size=2)
    batch = next(iter(data.train_loader()))
    assert batch["image"].shape == batch["image_b"].shape == (2, 3, 16, 16)
    assert batch["target"].shape == (2, 16, 16)
    assert len(batch["name"]) == 2


def test_each_kind_is_drawn(tmp_path):
    change = prepare_data(change_folder(tmp_path / "c"), **PLAIN)
    assert len(change.show_batch(2).axes) == 6
    assert "mine" in repr(change)
    assert "before 3 x uint8" in repr(change)
    two = prepare_data(two_resolutions(tmp_path / "s"), dataset_type="superres", **PLAIN)
    assert len(two.show_batch(1).axes) == 2
    assert "factor" in repr(two)
    assert len(prepare_data(unpaired(tmp_path / "u"), **PLAIN).show_batch(1).axes) == 2
    with pytest.raises(OptionError):
        change.show_batch(0)


def test_real_pairs_train_as_change_and_as_two_resolutions(tmp_path, sample_data):
    import rasterio

    source = sample_data / "change_guyana"
    for name, folder in (("example_t0.tif", "images"), ("example_t1.tif", "images2")):
        with rasterio.open(source / name) as file:
            image = file.read()
        for i in range(9):
            row, col = divmod(i, 3)
            part = image[:, row * 72 : row * 72 + 72, col * 72 : col * 72 + 72]
            write_chip(tmp_path / "change" / folder / f"{i:09d}.tif", part, i)
    write_masks(tmp_path / "change" / "labels", 9, size=(72, 72))
    data = prepare_data(
        tmp_path / "change", dataset_type="ChangeDetection", chip_size=64, batch_size=4
    )
    assert data.statistics_name == "ImageNet statistics"
    assert next(iter(data.train_loader()))["image_b"].shape == (4, 3, 64, 64)
    for number in (1, 2):
        for name, folder in ((f"ms{number}.tif", "images"), (f"pan{number}.tif", "images2")):
            (tmp_path / "sr" / folder).mkdir(parents=True, exist_ok=True)
            target = tmp_path / "sr" / folder / f"{number:09d}.tif"
            shutil.copy(sample_data / "superres_rotterdam" / name, target)
    data = prepare_data(tmp_path / "sr", dataset_type="superres", **PLAIN)
    item = data.train_ds[0]
    assert item["image"].shape == (4, 300, 300)
    assert item["image_b"].shape == (1, 600, 600)
    assert torch.isfinite(item["image"]).all()
    # Both show the same ground: the panchromatic follows the mean of the bands.
    small = torch.nn.functional.avg_pool2d(item["image_b"], 2)[0].flatten()
    pair = torch.stack([small, item["image"].mean(0).flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.7


def test_the_older_folders_of_unpaired_images_are_found(tmp_path):
    write_chips(tmp_path / "Images" / "train_a", 3, seed=1)
    write_chips(tmp_path / "Images" / "train_b", 5, seed=2, bands=1)
    data = prepare_data(tmp_path, dataset_type="CycleGAN", **PLAIN)
    assert (data.all_bands, len(data.train_ds)) == ((3, 1), 3)


def test_data_sets_survive_pickling_with_the_same_items(tmp_path):
    for data in (
        prepare_data(change_folder(tmp_path / "c"), batch_size=2),
        prepare_data(unpaired(tmp_path / "u"), batch_size=2),
        prepare_data(two_resolutions(tmp_path / "s"), dataset_type="superres", batch_size=2),
    ):
        again = pickle.loads(pickle.dumps(data.train_ds))
        ours, theirs = data.train_ds[(1, 4)], again[(1, 4)]
        torch.testing.assert_close(ours["image"], theirs["image"])
        torch.testing.assert_close(ours["image_b"], theirs["image_b"])


def test_a_model_of_another_kind_refuses_pairs_by_name(tmp_path):
    from geodl.models.unet_classifier import UnetClassifier  # slow to import

    data = prepare_data(change_folder(tmp_path), batch_size=2)
    with pytest.raises(ModelDataError, match="ChangeDetection"):
        UnetClassifier(data)
