import hashlib
import json
import multiprocessing
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import torch

from geodl.base.errors import (
    DataError,
    DataWarning,
    FormatError,
    GeodlError,
    NotSupportedError,
    OptionError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.core.contract import IGNORE_INDEX, Normalization
from geodl.data import DATASETS
from geodl.data.prepare import prepare_data

BOTH = ["PASCAL_VOC_rectangles", "Classified_Tiles"]


def tree_digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("mode", BOTH)
def test_the_type_is_read_from_the_export_and_the_sets_hold_all_chips(make_export, mode):
    data = prepare_data(make_export(mode=mode, chips=20), val_split_pct=0.2)
    assert data.dataset_type == mode
    assert data.kind == ("objects" if mode == BOTH[0] else "pixels")
    assert (len(data.train_ds), len(data.valid_ds)) == (16, 4)
    assert data.classes == ["building", "tree"]
    assert [e.color for e in data.class_table] == [(10, 20, 30), (20, 20, 30)]
    assert data.chip_size == 32
    assert data.bands == 3
    assert data.extract_bands == (0, 1, 2)
    assert data.dtype == "uint8"
    assert data.cell_size == (0.5, 0.5)
    assert data.image_space == "MAP_SPACE"
    assert data.split == "random"
    assert data.seed == 42


def test_hyperspectral_class_tiles_may_be_called_by_their_model(make_export):
    data = prepare_data(
        make_export(mode="Classified_Tiles", bands=12, dtype="int16"), dataset_type="3DRCNet"
    )
    assert (data.kind, data.bands, data.dtype) == ("pixels", 12, "int16")
    with pytest.raises(FormatError, match="reads Classified_Tiles"):
        prepare_data(make_export("boxes"), dataset_type="3DRCNet")


def test_items_hold_the_raw_chip_normalised_and_its_boxes(make_export):
    folder = make_export()
    data = prepare_data(folder, transforms=False)
    item = data.train_ds[0]
    with rasterio.open(folder / "images" / f"{item['name']}.tif") as file:
        raw = file.read()
    np.testing.assert_array_equal(item["image"].numpy(), Normalization.imagenet().apply(raw))
    number = int(item["name"])
    assert item["target"]["boxes"].tolist() == [[4 + number % 3, 6, 14, 20]]
    assert item["target"]["labels"].tolist() == [1 + number % 2]


def test_items_hold_network_classes_and_ignore_pixels_without_data(make_export):
    folder = make_export(mode="Classified_Tiles", classes=((3, "a"), (7, "b")), nodata=0)
    data = prepare_data(folder, transforms=False)
    item = data.valid_ds[0]
    with rasterio.open(folder / "labels" / f"{item['name']}.tif") as file:
        values = file.read(1)
    path = folder / "images" / f"{item['name']}.tif"
    with rasterio.open(path) as file:
        empty = (file.read() == 0).all(axis=0)
    expected = np.select([values == 3, values == 7], [1, 2], 0)
    expected[empty] = IGNORE_INDEX
    np.testing.assert_array_equal(item["target"].numpy(), expected)
    assert item["target"].dtype == torch.int64


def test_an_export_stays_as_it_is(make_export):
    folder = make_export(bands=4, dtype="uint16")
    before = tree_digest(folder)
    data = prepare_data(folder, batch_size=4)
    repr(data)
    data.show_batch(2)
    next(iter(data.train_loader()))
    assert tree_digest(folder) == before


# -- arguments --------------------------------------------------------------------------------


def test_a_class_mapping_renames_by_number_or_text(make_export):
    folder = make_export()
    assert prepare_data(folder, {1: "  Pad"}).classes == ["  Pad", "tree"]
    assert prepare_data(folder, {"2": "oak", 0: "nothing"}).classes == ["building", "oak"]


def test_values_of_a_class_mapping_that_no_class_has_are_listed(make_export):
    with pytest.raises(DataError, match=r"value 5, 8, which no class.*1 \(building\), 2 \(tree\)"):
        prepare_data(make_export(), {1: "a", 5: "b", 8: "c"})


@pytest.mark.parametrize("mapping", [{"tree": 1}, ["tree"], {1.5: "x"}])
def test_a_class_mapping_that_is_none_is_refused(make_export, mapping):
    with pytest.raises(OptionError, match="class_mapping"):
        prepare_data(make_export(), mapping)


@pytest.mark.parametrize(
    ("size", "chip_size", "expected"),
    [((64, 64), 32, 32), ((48, 48), 224, 48), ((40, 64), 224, 40)],
)
def test_chip_size_cuts_larger_chips_and_follows_smaller_ones(
    make_export, size, chip_size, expected
):
    data = prepare_data(make_export(size=size), chip_size=chip_size)
    assert data.chip_size == expected
    for item in (data.train_ds[0], data.valid_ds[0]):
        assert item["image"].shape == (3, expected, expected)


def test_without_transforms_chip_size_has_no_effect(make_export):
    assert prepare_data(make_export(size=(64, 64)), chip_size=32, transforms=False).chip_size == 64


def test_oblong_chips_without_transforms_are_cut_with_a_warning(make_export):
    with pytest.warns(DataWarning, match="squares"):
        data = prepare_data(make_export(size=(40, 64)), transforms=False)
    assert data.chip_size == 40


@pytest.mark.parametrize("resize_to", [16, (16, 16)])
def test_resize_to_scales_image_and_boxes_and_limits_the_chip_size(make_export, resize_to):
    folder = make_export()
    data = prepare_data(folder, resize_to=resize_to, transforms=(None, None))
    assert data.chip_size == 16
    assert data.resize_to == (16, 16)
    item = data.valid_ds[0]
    whole = prepare_data(folder, transforms=(None, None)).valid_ds[0]
    assert item["image"].shape == (3, 16, 16)
    torch.testing.assert_close(item["target"]["boxes"] * 2, whole["target"]["boxes"])
    halved = torch.nn.functional.avg_pool2d(whole["image"], 2)
    assert torch.corrcoef(torch.stack([item["image"].ravel(), halved.ravel()]))[0, 1] > 0.9


def test_resize_to_is_refused_for_masks_with_the_formats_it_is_for(make_export):
    with pytest.raises(OptionError, match="PASCAL_VOC_rectangles"):
        prepare_data(make_export(mode="Classified_Tiles"), resize_to=16)


@pytest.mark.parametrize("wrong", [0, -3, (1, 2, 3), "big"])
def test_a_wrong_resize_to_is_refused(make_export, wrong):
    with pytest.raises(OptionError, match="resize_to"):
        prepare_data(make_export(), resize_to=wrong)


def test_the_batch_is_cut_to_the_training_set_and_estimated_for_none(make_export):
    folder = make_export()
    assert prepare_data(folder).batch_size == 7
    assert prepare_data(folder, batch_size=2).batch_size == 2
    assert prepare_data(folder, batch_size=None).batch_size in range(2, 8)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch_size", 1), ("batch_size", "many"), ("chip_size", 0), ("val_split_pct", 10),
     ("val_split_pct", -0.1), ("val_split_pct", 1.0), ("seed", "x"), ("seed", -1),
     ("collate_fn", 3), ("split", "rows"), ("num_workers", -1), ("norm_pct", 2),
     ("stratify", "perhaps"), ("transforms", "flip")],
)  # fmt: skip
def test_values_outside_their_domain_are_refused_by_name(make_export, argument, value):
    folder = make_export(bands=2)
    with pytest.raises(OptionError, match=argument):
        prepare_data(folder, **{argument: value})


def test_an_unknown_keyword_is_refused_with_the_nearest_known_one(make_export):
    with pytest.raises(UnknownOptionError, match=r"'num_worker'.*'num_workers'"):
        prepare_data(make_export(), num_worker=2)


@pytest.mark.parametrize(
    ("keyword", "owner"),
    [("n_masks", "panoptic"), ("min_points", "point clouds"), ("downsample_factor", "super-res"),
     ("n_temporal", "PSETAE"), ("forecast_timesteps", "ClimaX")],
)  # fmt: skip
def test_keywords_of_other_data_say_what_they_are_for(make_export, keyword, owner):
    with pytest.raises(UnknownOptionError, match=owner):
        prepare_data(make_export(), **{keyword: 3})


def test_an_unknown_dataset_type_names_the_known_ones(make_export):
    folder = make_export()
    (folder / "esri_accumulated_stats.json").unlink()
    (folder / "esri_model_definition.emd").unlink()
    with pytest.raises(NotSupportedError, match=r"'PASCAL_VOC_rectangles'"):
        prepare_data(folder, dataset_type="PASCAL_VOC_rectangle")


def test_the_package_itself_needs_no_torch():
    code = "import sys, geodl.data; list(geodl.data.DATASETS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_dataset_type_of_the_table_can_be_loaded():
    assert set(BOTH) <= set(DATASETS)
    for name in BOTH:
        builder = DATASETS[name]
        assert "stratify" in builder.keywords


# -- the split --------------------------------------------------------------------------------


def test_the_split_depends_on_names_and_seed_only(make_export, tmp_path):
    first = prepare_data(make_export("one", chips=30), val_split_pct=0.2)
    second = prepare_data(make_export("two", chips=30, seed=9), val_split_pct=0.2)
    other = prepare_data(tmp_path / "one", val_split_pct=0.2, seed=1)
    names = [[d.valid_ds.names, d.train_ds.names] for d in (first, second, other)]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_a_block_split_keeps_overlapping_chips_apart(make_export):
    folder = make_export(chips=40, stride=16)
    data = prepare_data(folder, split="block", val_split_pct=0.1)
    assert data.split == "block"

    def cells(names):
        return {(int(n) // 4, int(n) % 4) for n in names}

    valid, train = cells(data.valid_ds.names), cells(data.train_ds.names)
    assert len(valid) == 4
    assert len(train) > 10
    assert not any(abs(a - c) < 2 and abs(b - d) < 2 for a, b in valid for c, d in train)


def test_folders_in_pixel_space_lie_apart_in_a_block_split(make_export):
    folders = [make_export(name, chips=12, space="PIXEL_SPACE") for name in ("one", "two")]
    data = prepare_data(folders, split="block", val_split_pct=0.1)
    assert len(data.train_ds) == 22  # in map space each would hide the other's twin


def test_a_block_split_of_one_place_in_two_folders_drops_the_twins(make_export):
    folders = [make_export(name, chips=12) for name in ("one", "two")]
    data = prepare_data(folders, split="block", val_split_pct=0.1)
    places = [{n[2:] for n in d.names} for d in (data.train_ds, data.valid_ds)]
    assert not places[0] & places[1]


def test_a_block_split_without_positions_takes_neighbours_by_number(make_export):
    folder = make_export(chips=20, georeferenced=False)
    with pytest.warns(DataWarning, match="no position"):
        data = prepare_data(folder, split="block", val_split_pct=0.2)
    numbers = sorted(int(n) for n in data.valid_ds.names)
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert len(data.train_ds) == 16


@pytest.mark.parametrize("mode", BOTH)
def test_stratify_keeps_class_shares(make_export, mode):
    data = prepare_data(make_export(mode=mode, chips=20), stratify=True, val_split_pct=0.2)
    assert len(data.valid_ds) == 4
    if mode == BOTH[0]:  # every other chip is of class 1
        labels = [int(data.valid_ds[i]["target"]["labels"][0]) for i in range(4)]
        assert sorted(labels) == [1, 1, 2, 2]


def test_chips_of_one_class_each_are_stratified_unless_told_otherwise(make_export):
    folder = make_export(mode="Labeled_Tiles", chips=20)

    def validates(**options):
        data = prepare_data(folder, val_split_pct=0.2, **options)
        return sorted(int(data.valid_ds[i]["target"]) for i in range(4))

    assert [validates(seed=seed) for seed in range(6)] == [[0, 0, 1, 1]] * 6
    free = [validates(seed=seed, stratify=False) for seed in range(6)]
    assert any(found != [0, 0, 1, 1] for found in free)
    assert len(prepare_data(folder, split="block").valid_ds) == 2


def test_stratify_and_block_exclude_each_other(make_export):
    with pytest.raises(OptionError, match="exclude"):
        prepare_data(make_export(), split="block", stratify=True)


# -- normalisation ----------------------------------------------------------------------------


def test_plain_rgb_takes_imagenet_statistics(make_export):
    data = prepare_data(make_export(band_names=("Red", "Green", "Blue")))
    assert data.normalization == Normalization.imagenet()
    assert "ImageNet" in repr(data)


def test_multispectral_chips_take_the_exports_statistics(make_export):
    stats = [(100, 300, 150, 20), (0, 1000, 500, 100), (7, 7, 7, 0), (0, 10, 5, 1)]
    data = prepare_data(make_export(bands=4, dtype="uint16", stats=stats))
    found = data.normalization
    assert found.minimum == (100, 0, 7, 0)
    assert found.maximum == (300, 1000, 8, 10)
    assert found.scaled_mean == (0.25, 0.5, 0, 0.5)
    assert found.scaled_std == (0.1, 0.1, 1.0, 0.1)


def test_missing_statistics_are_computed_and_cached_in_the_working_folder(make_export, tmp_path):
    folder, working = make_export(bands=2, dtype="int16"), tmp_path / "work"
    data = prepare_data(folder, working_dir=working)
    pixels = []
    for path in sorted((folder / "images").glob("*.tif")):
        with rasterio.open(path) as file:
            pixels.append(file.read().reshape(2, -1))
    values = np.concatenate(pixels, axis=1).astype(np.float64)
    span = np.ptp(values, axis=1)
    np.testing.assert_allclose(data.normalization.minimum, values.min(1))
    np.testing.assert_allclose(data.normalization.scaled_std, values.std(1) / span)
    cache = working / "esri_normalization_stats.json"
    assert "batch_stats_for_norm_pct_30" in json.loads(cache.read_text())
    assert prepare_data(folder, working_dir=working).normalization == data.normalization


@pytest.mark.parametrize("bands", [1, 4, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_any_band_count_and_dtype_gives_finite_items(make_export, bands, dtype):
    data = prepare_data(make_export(bands=bands, dtype=dtype))
    for dataset in (data.train_ds, data.valid_ds):
        image = dataset[0]["image"]
        assert image.shape == (bands, 32, 32)
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        assert torch.isfinite(image).all()


# -- several folders --------------------------------------------------------------------------


def test_folders_are_merged_and_classes_united_by_value(make_export):
    one = make_export("one", classes=((1, "building"),), bands=1, stats=[(0, 10, 4, 1)])
    two = make_export(
        "two", classes=((2, "tree"), (1, "building")), bands=1, stats=[(5, 30, 8, 3)],
        cell_size=0.25, space="IMAGE_SPACE",
    )  # fmt: skip
    data = prepare_data([one, two], val_split_pct=0.25)
    assert len(data.train_ds) + len(data.valid_ds) == 16
    assert data.classes == ["building", "tree"]
    assert data.class_counts == {1: 12, 2: 4}
    assert f"{one} and 1 more\n" in repr(data)
    assert "more" not in repr(prepare_data(one))
    assert data.normalization.minimum == (0,)
    assert data.normalization.maximum == (30,)
    assert data.normalization.scaled_mean[0] == pytest.approx(6 / 30)
    assert data.cell_size == (0.25, 0.5)
    assert data.image_space == "IMAGE_SPACE"
    assert data.path == one
    assert len(set(data.train_ds.names) | set(data.valid_ds.names)) == 16


def test_folders_with_two_names_for_one_class_warn_and_a_mapping_settles_it(make_export):
    one = make_export("one", classes=((1, "house"),))
    two = make_export("two", classes=((1, "building"),))
    with pytest.warns(DataWarning, match="'house'.*'building'"):
        assert prepare_data([one, two]).classes == ["house"]
    assert prepare_data([one, two], {1: "roof"}).classes == ["roof"]


@pytest.mark.parametrize(
    ("difference", "name"),
    [({"bands": 4}, "band count"), ({"dtype": "uint16"}, "dtype"), ({"size": (16, 32)}, "tile"),
     ({"mode": "Classified_Tiles"}, "format")],
)  # fmt: skip
def test_folders_that_differ_are_not_merged(make_export, difference, name):
    folders = [make_export("one"), make_export("two", **difference)]
    with pytest.raises(DataError, match=rf"the {name}.*two"):
        prepare_data(folders)


@pytest.mark.parametrize("path", [[], 3, [None], None])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(OptionError, match="folder"):
        prepare_data(path)


def test_a_folder_named_twice_is_refused(make_export):
    folder = make_export()
    with pytest.raises(OptionError, match="twice"):
        prepare_data([folder, str(folder)])


# -- bad data ---------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        prepare_data(tmp_path / "nowhere")


def test_a_folder_that_is_no_export_says_what_is_missing(tmp_path):
    with pytest.raises(GeodlError, match=r"esri_accumulated_stats\.json|map\.txt"):
        prepare_data(tmp_path)


def test_one_chip_is_too_few(make_export):
    with pytest.raises(DataError, match="at least two"):
        prepare_data(make_export(chips=1))


@pytest.mark.filterwarnings("ignore::geodl.base.errors.DataWarning")
def test_a_chip_without_label_file_is_left_out(make_export):
    folder = make_export()
    (folder / "labels" / "000000003.xml").unlink()
    data = prepare_data(folder)
    assert len(data.train_ds) + len(data.valid_ds) == 7
    assert "000000003" not in data.train_ds.names + data.valid_ds.names
    assert data.class_counts == {1: 4, 2: 3}  # chip 3 was of class 2


def read_all(folder, **options):
    data = prepare_data(folder, transforms=False, **options)
    for dataset in (data.train_ds, data.valid_ds):
        for i in range(len(dataset)):
            dataset[i]


ONE_OBJECT = "<annotation><object><name>{}</name>{}</object></annotation>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"


@pytest.mark.parametrize(
    "text",
    ["<annotation><object></annotation>", ONE_OBJECT.format(1, ""), ONE_OBJECT.format(77, BOX)],
)
def test_a_broken_box_file_is_named_when_it_is_read(make_export, text):
    folder = make_export()
    (folder / "labels" / "000000003.xml").write_text(text)
    with pytest.raises(FormatError, match=r"000000003\.xml"):
        read_all(folder)


def test_a_mask_of_another_size_is_named_when_it_is_read(make_export):
    folder = make_export("big", mode="Classified_Tiles")
    small = make_export("small", mode="Classified_Tiles", size=(16, 16))
    name = "labels/000000003.tif"
    (folder / name).write_bytes((small / name).read_bytes())
    with pytest.raises(FormatError, match=r"000000003\.tif"):
        read_all(folder)


def test_a_truncated_image_is_named_when_it_is_read(make_export):
    folder = make_export()
    path = folder / "images" / "000000003.tif"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FormatError, match=r"000000003\.tif"):
        read_all(folder)


# -- the data object --------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("mode", BOTH)
def test_repr_counts_classes_over_both_sets(make_export, mode, counts):
    folder = make_export(mode=mode, chips=9, counts=counts)
    data = prepare_data(folder)
    text = repr(data)
    total = {1: 0, 2: 0}
    for path in sorted((folder / "labels").iterdir()):
        if mode == "Classified_Tiles":
            with rasterio.open(path) as file:
                values = file.read(1)
            for value in total:
                total[value] += int((values == value).sum())
        else:
            for value in total:
                total[value] += path.read_text().count(f"<name>{value}</name>")
    assert data.class_counts == total
    for value, name in ((1, "building"), (2, "tree")):
        line = next(line for line in text.splitlines() if name in line)
        assert line.split() == [str(value), name, str(total[value])]
    assert "8 to train, 1 to validate" in text
    assert mode in text


def test_training_batches_drop_a_last_single_item_and_keep_other_short_ones(make_export):
    folder = make_export(chips=10)  # 9 to train
    sizes = {}
    for batch in (2, 4, 5, 9):
        data = prepare_data(folder, batch_size=batch)
        sizes[batch] = [len(b["name"]) for b in data.train_loader()]
    assert sizes == {2: [2] * 4, 4: [4, 4], 5: [5, 4], 9: [9]}


def test_a_training_set_of_one_chip_still_gives_a_batch(make_export):
    data = prepare_data(make_export(chips=2))
    assert [len(b["name"]) for b in data.train_loader()] == [1]
    assert [len(b["name"]) for b in data.valid_loader()] == [1]


def test_validation_batches_hold_every_chip_in_order_unaugmented(make_export):
    data = prepare_data(make_export(chips=10), val_split_pct=0.5, batch_size=2)
    batches = list(data.valid_loader())
    assert [n for b in batches for n in b["name"]] == list(data.valid_ds.names)
    again = torch.cat([b["image"] for b in data.valid_loader()])
    assert torch.equal(torch.cat([b["image"] for b in batches]), again)


@pytest.mark.parametrize("mode", BOTH)
def test_batches_are_joined_by_the_default_the_tasks_or_the_users_function(make_export, mode):
    folder = make_export(mode=mode)
    batch = next(iter(prepare_data(folder).train_loader()))
    assert batch["image"].shape == (7, 3, 32, 32)
    if mode == "Classified_Tiles":
        assert batch["target"].shape == (7, 32, 32)
    else:
        assert [t["boxes"].shape for t in batch["target"]] == [(1, 4)] * 7
    assert next(iter(prepare_data(folder).train_loader(len))) == 7
    own = prepare_data(folder, collate_fn=lambda items: "own")
    assert next(iter(own.train_loader(len))) == "own"


def first_epoch(data, seed):
    loader = data.train_loader(generator=torch.Generator().manual_seed(seed))
    return [(tuple(b["name"]), b["image"]) for b in loader]


def same(one, other):
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


def test_an_epoch_is_made_by_its_generator_alone(make_export):
    data = prepare_data(make_export(chips=9), batch_size=4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = first_epoch(data, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(first, first_epoch(data, 5))
    assert not same(first, first_epoch(data, 6))


def test_worker_processes_give_the_same_epoch(make_export):
    folder = make_export(chips=9)
    alone = prepare_data(folder, batch_size=4)
    helped = prepare_data(folder, batch_size=4, num_workers=2)
    assert same(first_epoch(alone, 5), first_epoch(helped, 5))


def test_worker_processes_start_once_for_all_epochs(make_export):
    loader = prepare_data(make_export(chips=9), batch_size=4, num_workers=1).train_loader()
    before = set(multiprocessing.active_children())
    started = []
    for _ in range(2):
        assert len(list(loader)) == 2
        started.append({p.pid for p in set(multiprocessing.active_children()) - before})
    assert started[0] == started[1]
    assert len(started[0]) == 1


def test_the_data_object_survives_pickling(make_export):
    data = prepare_data(make_export())
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.valid_ds[0]["image"], data.valid_ds[0]["image"])
    assert copy.class_counts == data.class_counts


def test_models_go_under_the_working_folder(make_export, tmp_path):
    folder = make_export()
    assert prepare_data(folder).models_dir == folder / "models"
    data = prepare_data(folder, working_dir=str(tmp_path / "work"))
    assert data.models_dir == tmp_path / "work" / "models"
    assert not data.models_dir.exists()


@pytest.mark.parametrize("mode", BOTH)
def test_eight_small_chips_are_prepared_at_once(make_export, mode):
    folder = make_export(mode=mode, bands=4, dtype="uint16")
    seconds = []
    for _ in range(3):
        start = time.process_time()
        prepare_data(folder)
        seconds.append(time.process_time() - start)
    # Some 0.05 s on a usual machine.
    assert min(seconds) < 1


def test_a_misspelt_argument_is_answered_with_the_right_one(make_export):
    with pytest.raises(UnknownOptionError, match=r"'chipsize'\. Did you mean 'chip_size'"):
        prepare_data(make_export(), chipsize=32)
    with pytest.raises(OptionError, match="working_dir=5 is no path"):
        prepare_data(make_export("other"), working_dir=5)


def test_a_class_of_value_0_is_said_to_be_the_background(make_export):
    export = make_export(mode="Classified_Tiles", classes=((0, "water"), (1, "tree")))
    with pytest.warns(DataWarning, match=r"definition\.emd: the class of value 0, 'water'"):
        assert prepare_data(export).classes == ["tree"]
    nothing = make_export("plain", mode="Classified_Tiles", classes=((0, "No Data"), (1, "tree")))
    assert prepare_data(nothing).classes == ["tree"]
    boxes = make_export("boxes", classes=((0, "Background"), (1, "tree")))
    with pytest.raises(FormatError, match=r"000\.xml.*'0'.*export that class with another"):
        prepare_data(boxes).train_ds.store[0]
