"""Point clouds: classified blocks, objects, augmentation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from geodl.base.errors import (
    DataError,
    DataWarning,
    FormatError,
    NotSupportedError,
    OptionError,
    UnknownOptionError,
)
from geodl.core.contract import IGNORE_INDEX
from geodl.data import draw_points
from geodl.data.prepare import prepare_data
from geodl.data.transform3d import Transform3d, rotation_matrix
from geodl.testing.datasets import object_cloud_folder, point_cloud_folder

h5py = pytest.importorskip("h5py")

CLOUD = {"dataset_type": "PointCloud", "transforms": False, "batch_size": 2}
OBJECTS = {"dataset_type": "PointCloudOD", "transforms": False, "batch_size": 2}


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_h5(path, name, change):
    with h5py.File(path, "r+") as file:
        values = np.asarray(file[name])
        del file[name]
        changed = change(values)
        if changed is not None:
            file[name] = changed


def every(items):
    return [items[i] for i in range(len(items))]


# -- classified points ------------------------------------------------------------------------


def test_items_hold_coordinates_scaled_attributes_and_class_indices(tmp_path):
    data = prepare_data(point_cloud_folder(tmp_path), extra_features=["intensity"], **CLOUD)
    assert (data.kind, data.split, data.features, data.scale) == ("points", "folder", 4, 25)
    assert data.classes == ["Ground", "High vegetation", "Building"]
    assert len(data.train_ds) == len(data.valid_ds) == 8
    with h5py.File(tmp_path / "train" / "b.h5") as file:
        xyz, codes, intensity = (
            np.asarray(file[name]) for name in ("xyz", "classification", "intensity")
        )
    item = data.train_ds[5]
    assert item["name"] == "train/b.h5#40"
    rows = slice(40, 81)
    np.testing.assert_allclose(item["points"][:, :3], xyz[rows], atol=1e-6)
    np.testing.assert_allclose(item["points"][:, 3], intensity[rows] / 1000, atol=1e-6)
    expected = np.searchsorted([2, 5, 6], codes[rows]) + 1
    np.testing.assert_array_equal(item["target"], expected)
    counted = sum(
        int((i["target"] == 1).sum()) for i in [*every(data.train_ds), *every(data.valid_ds)]
    )
    assert data.class_counts[2] == counted
    assert "at most 44 points" in repr(data)
    assert "Ground" in repr(data)


def test_batches_are_padded_where_blocks_are_shorter(tmp_path):
    data = prepare_data(point_cloud_folder(tmp_path), **CLOUD)
    batch = next(iter(data.valid_loader(batch_size=3)))
    assert batch["points"].shape == (3, 42, 3)
    assert batch["length"].tolist() == [40, 41, 42]
    assert (batch["target"][0, 40:] == IGNORE_INDEX).all()
    assert not batch["points"][0, 40:].any()


def test_small_blocks_are_left_out(tmp_path):
    root = point_cloud_folder(tmp_path)
    data = prepare_data(root, min_points=42, **CLOUD)
    assert len(data.train_ds) == len(data.valid_ds) == 4
    with pytest.raises(DataError, match="100 points"):
        prepare_data(root, min_points=100, **CLOUD)


def test_codes_are_remapped_then_chosen_then_sent_to_the_background(tmp_path):
    root = point_cloud_folder(tmp_path)
    data = prepare_data(root, remap_classes={5: 4, 6: 4}, **CLOUD)
    assert data.class_table.values == [2, 4]
    rules = {"remap_classes": {5: 4}, "classes_of_interest": [4], "background_classcode": 1}
    data = prepare_data(root, **rules, **CLOUD)
    assert data.classes == ["Unclassified", "Medium vegetation"]
    with h5py.File(root / "train" / "a.h5") as file:
        codes = np.asarray(file["classification"])[:40]
    np.testing.assert_array_equal(data.train_ds[0]["target"] == 2, codes == 5)


def test_blocks_without_a_class_of_interest_are_left_out(tmp_path):
    root = point_cloud_folder(tmp_path, points=3, codes=(2, 200))
    data = prepare_data(root, classes_of_interest=[200], **CLOUD)
    assert 0 < len(data.train_ds) < 8
    assert all((item["target"] == 2).any() for item in every(data.train_ds))


def test_excluded_codes_are_ignored_and_names_can_be_given(tmp_path):
    root = point_cloud_folder(tmp_path)
    for part in ("train", "val"):
        edit_json(
            root / part / "Statistics.json",
            lambda value: value["parameters"].update(excludedClasses=[5]),
        )
    data = prepare_data(root, {2: "soil"}, **CLOUD)
    assert data.classes == ["soil", "Building"]
    with h5py.File(root / "train" / "a.h5") as file:
        codes = np.asarray(file["classification"])[:40]
    np.testing.assert_array_equal(data.train_ds[0]["target"] == IGNORE_INDEX, codes == 5)


def test_an_export_that_is_not_split_is_split_by_file(tmp_path):
    point_cloud_folder(tmp_path, parts=("whole",))
    data = prepare_data(tmp_path / "whole", **CLOUD)
    files = [
        {item["name"].partition("#")[0] for item in every(items)}
        for items in (data.train_ds, data.valid_ds)
    ]
    assert sorted(map(len, files)) == [1, 1]
    assert files[0].isdisjoint(files[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extra_features": ["intensty"]}, "Did you mean 'intensity'"),
        ({"extra_features": ["intensity", "intensity"]}, "twice"),
        ({"extra_features": "intensity"}, "no list"),
        ({"min_points": 0}, "min_points"),
        ({"remap_classes": {9: 1}}, "code 9"),
        ({"remap_classes": [1]}, "no dict"),
        ({"classes_of_interest": [9]}, "names 9"),
        ({"classes_of_interest": 5}, "no list"),
        ({"background_classcode": 1}, "needs classes_of_interest"),
        ({"resize_to": 4}, "resize_to"),
        ({"transforms": "flip"}, "Transform3d"),
    ],
)
def test_options_outside_their_domain_are_refused(tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        prepare_data(point_cloud_folder(tmp_path), **CLOUD | options)


def test_options_of_other_types_and_several_folders_are_refused(tmp_path):
    root = point_cloud_folder(tmp_path)
    with pytest.raises(UnknownOptionError, match="downsample_factor"):
        prepare_data(root, downsample_factor=2, **CLOUD)
    with pytest.raises(NotSupportedError, match="one folder"):
        prepare_data([root, root / "train"], **CLOUD)


def _tiles(index, value):
    def change(tiles):
        tiles[1, index] = value
        return tiles

    return change


@pytest.mark.parametrize(
    ("file", "name", "change", "words"),
    [
        ("ListTable.h5", "Tiles", _tiles(0, 7), "row 1 of 'Tiles'"),
        ("ListTable.h5", "Tiles", _tiles(2, 45), "maxPoints"),
        ("ListTable.h5", "Tiles", _tiles(1, 150), "166 rows|rows"),
        ("ListTable.h5", "Masks", lambda v: np.zeros_like(v), "denies"),
        ("ListTable.h5", "Masks", lambda v: v[:2], "one row"),
        ("ListTable.h5", "Files", lambda v: None, "no data set 'Files'"),
        ("ListTable.h5", "Files", lambda v: np.array([b"../a.h5", b"b.h5"]), "stay inside"),
        ("ListTable.h5", "Files", lambda v: np.array([b"a.h5", b"c.h5"]), r"c\.h5 is missing"),
        ("a.h5", "xyz", lambda v: v * 1.5, "-1..1"),
        ("a.h5", "xyz", lambda v: v * np.nan, "finite"),
        ("a.h5", "intensity", lambda v: v[:-1], "differ in length|rows"),
        ("a.h5", "classification", lambda v: v + 1, "not in the table"),
        ("a.h5", "classification", lambda v: None, "no data set 'classification'"),
    ],
)
def test_faults_of_blocks_are_named(tmp_path, file, name, change, words):
    root = point_cloud_folder(tmp_path)
    edit_h5(root / "train" / file, name, change)
    with pytest.raises(FormatError, match=words):
        every(prepare_data(root, extra_features=["intensity"], **CLOUD).train_ds)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("parameters"), "'parameters'"),
        (lambda v: v["parameters"].update(tileSize="wide"), "tileSize"),
        (lambda v: v["classification"].update(table=[]), "classCode"),
        (lambda v: v["classification"]["table"].append({"classCode": 2}), "more than once"),
        (lambda v: v["attributes"].update(intensity={"min": 0}), "intensity"),
    ],
)
def test_faults_of_statistics_are_named(tmp_path, change, words):
    root = point_cloud_folder(tmp_path)
    edit_json(root / "train" / "Statistics.json", change)
    with pytest.raises(FormatError, match=rf"train.Statistics\.json.*{words}"):
        prepare_data(root, **CLOUD)


def test_missing_and_truncated_files_are_named(tmp_path):
    root = point_cloud_folder(tmp_path)
    (root / "train" / "a.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(FormatError, match=r"a\.h5"):
        every(prepare_data(root, **CLOUD).train_ds)
    (root / "val" / "Statistics.json").unlink()
    with pytest.raises(FormatError, match=r"Statistics\.json is missing"):
        prepare_data(root, **CLOUD)
    (root / "val").rename(root / "other")
    with pytest.raises(FormatError, match="'val'"):
        prepare_data(root, **CLOUD)


def test_other_classes_in_validation_only_warn(tmp_path):
    root = point_cloud_folder(tmp_path, parts=("train",))
    point_cloud_folder(tmp_path, parts=("val",), codes=(2, 9))
    with pytest.warns(DataWarning, match="2, 9"):
        data = prepare_data(root, **CLOUD)
    assert data.class_table.values == [2, 5, 6, 9]


def legacy_folder(root):
    files = {}
    rng = np.random.default_rng(3)
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        name = f"{part}/x_zero_0_0.h5"
        plain = np.zeros((6, 4))
        plain[:4] = np.column_stack([rng.uniform(-5, 5, (4, 3)), [0, 50, 100, 200]])
        with h5py.File(root / name, "w") as file:
            file["data"] = plain / 10
            file["unnormalized_data"] = plain
            file["data"][:, :3] = plain[:, :3]
            file["label_seg"] = np.array([1, 2, 2, 1, 0, 0])
            file["data_num"] = np.array([4])
        with h5py.File(root / name, "r+") as file:
            file["data"][:, :3] = plain[:, :3]
        files[name] = {"total_points": 4, "unique_classes": [1, 2], "idxs": [0]}
    meta = {
        "files": files, "num_classes": 2, "classes": [1, 2], "max_point": 6, "num_extra_dim": 1,
        "extra_features": [["num_returns", 200, 0]], "block_size": [10.0, 10.0, 10.0],
    }  # fmt: skip
    (root / "meta.json").write_text(json.dumps(meta))
    return root


def test_the_older_layout_has_its_columns_in_another_order(tmp_path):
    root = legacy_folder(tmp_path)
    data = prepare_data(root, extra_features=["numberOfReturns"], **CLOUD)
    with h5py.File(root / "train" / "x_zero_0_0.h5") as file:
        plain = np.asarray(file["unnormalized_data"])[:4]
    item = data.train_ds[0]
    np.testing.assert_allclose(item["points"][:, 0] * 5, plain[:, 0], atol=1e-5)
    np.testing.assert_allclose(item["points"][:, 1] * 5, plain[:, 2], atol=1e-5)
    np.testing.assert_allclose(item["points"][:, 2] * 5, plain[:, 1], atol=1e-5)
    np.testing.assert_allclose(item["points"][:, 3], [0, 0.25, 0.5, 1], atol=1e-6)
    assert item["target"].tolist() == [1, 2, 2, 1]
    edit_h5(root / "train" / "x_zero_0_0.h5", "label_seg", lambda v: v + 5)
    with pytest.raises(FormatError, match="class 6"):
        prepare_data(root, **CLOUD).train_ds[0]
    edit_h5(root / "train" / "x_zero_0_0.h5", "data_num", lambda v: np.array([9]))
    with pytest.raises(FormatError, match="data_num is 9"):
        prepare_data(root, **CLOUD).train_ds[0]
    edit_h5(root / "val" / "x_zero_0_0.h5", "data", lambda v: v[:, :3])
    with pytest.raises(FormatError, match="columns"):
        prepare_data(root, **CLOUD).valid_ds[0]
    edit_json(root / "meta.json", lambda v: v["files"].update({"train/none.h5": {}}))
    with pytest.raises(FormatError, match=r"none\.h5"):
        prepare_data(root, **CLOUD)


# -- objects ----------------------------------------------------------------------------------


def test_boxes_have_seven_numbers_in_units_of_the_crs(tmp_path):
    data = prepare_data(object_cloud_folder(tmp_path), extra_features=["intensity"], **OBJECTS)
    assert (data.kind, data.classes, data.scale) == ("boxes3d", ["3", "8"], 1)
    item = data.train_ds[0]
    with h5py.File(tmp_path / "train" / "a.h5") as file:
        xyz = np.asarray(file["xyz"])[:20]
    np.testing.assert_allclose(item["points"][:, :3], xyz * 10, atol=1e-5)
    expected = [[1, 2, 0, 6, 2, 5, 0], [-4, 1, -1, 4, 4, 3, math.pi / 2]]
    np.testing.assert_allclose(item["target"]["boxes"], expected, atol=1e-5)
    assert item["target"]["labels"].tolist() == [1, 2]
    assert data.average_sizes[3] == pytest.approx((6, 2, 5))
    assert data.z_ranges[8] == pytest.approx((-1, 5))


def test_objects_that_are_mostly_elsewhere_are_no_target_in_validation(tmp_path):
    data = prepare_data(object_cloud_folder(tmp_path), **OBJECTS)
    assert len(data.train_ds[0]["target"]["boxes"]) == 2
    assert len(data.valid_ds[0]["target"]["boxes"]) == 1
    assert data.class_counts == {3: 6, 8: 3}


def test_object_classes_are_remapped_or_dropped(tmp_path):
    root = object_cloud_folder(tmp_path)
    data = prepare_data(root, remap_classes={8: 3}, **OBJECTS)
    assert data.train_ds[0]["target"]["labels"].tolist() == [1, 1]
    data = prepare_data(root, classes_of_interest=[8], **OBJECTS)
    assert data.classes == ["3", "8"]
    data = prepare_data(root, classes_of_interest=[8], background_classcode=True, **OBJECTS)
    assert data.classes == ["8"]
    assert data.train_ds[0]["target"]["labels"].tolist() == [1]
    assert len(data.valid_ds[0]["target"]["labels"]) == 0


def test_objects_without_codes_are_one_class(tmp_path):
    data = prepare_data(object_cloud_folder(tmp_path, codes=None), **OBJECTS)
    assert (data.classes, data.class_table.values) == (["Object"], [1])
    assert data.train_ds[0]["target"]["labels"].tolist() == [1, 1]


def _box(column, value):
    def change(boxes):
        boxes[0, column] = value
        return boxes

    return change


@pytest.mark.parametrize(
    ("file", "name", "change", "words"),
    [
        ("a.h5", "orientedBoundingBox", _box(4, 0), "half length"),
        ("a.h5", "orientedBoundingBox", _box(7, -3), "top"),
        ("a.h5", "orientedBoundingBox", _box(2, 0.5), "unit vector"),
        ("a.h5", "orientedBoundingBox", _box(0, np.nan), "finite"),
        ("a.h5", "orientedBoundingBox", lambda v: v[:4], "beyond"),
        ("a.h5", "orientedBoundingBoxCount", _box(0, 9), "more points"),
        ("a.h5", "objectCode", lambda v: v + 1, "object code 4"),
        ("ListTable.h5", "Tiles", lambda v: v[:, :3], "5 columns"),
        ("ListTable.h5", "Tiles", lambda v: v[:2], "one row|counts 6"),
    ],
)
def test_faults_of_boxes_are_named(tmp_path, file, name, change, words):
    root = object_cloud_folder(tmp_path)
    edit_h5(root / "train" / file, name, change)
    with pytest.raises(FormatError, match=words):
        every(prepare_data(root, **OBJECTS).train_ds)


def test_an_export_without_boxes_is_refused(tmp_path):
    root = object_cloud_folder(tmp_path)
    edit_json(
        root / "val" / "Statistics.json",
        lambda value: value.update(numberOfStoredOrientedBoundingBoxes=0),
    )
    with pytest.raises(FormatError, match="no box"):
        prepare_data(root, **OBJECTS)


# -- Transform3d ------------------------------------------------------------------------------


def test_half_of_the_blocks_are_changed_within_the_limits():
    torch.manual_seed(0)
    transform = Transform3d(rotation=[0, 0, 30], scaling=10)
    points = torch.tensor([[1.0, 0, 0], [0, 0, 2.0]])
    changed = [transform.points(points, 1.0) for _ in range(400)]
    same = [torch.equal(one, points) for one in changed]
    assert 150 < sum(same) < 250
    turned = torch.stack([one for one, is_same in zip(changed, same, strict=True) if not is_same])
    assert turned[:, 1, :2].abs().max() < 1e-6
    assert 1.8 <= turned[:, 1, 2].min() < 1.9
    assert 2.1 < turned[:, 1, 2].max() <= 2.2
    angle = torch.rad2deg(torch.atan2(turned[:, 0, 1], turned[:, 0, 0])).abs()
    assert 25 < angle.max() < 36


def test_jitter_is_in_units_of_the_ground():
    torch.manual_seed(1)
    transform = Transform3d(rotation=[0, 0, 0], scaling=0, jitter=0.5)
    points = torch.zeros(1000, 3)
    moved = next(m for m in (transform.points(points, 25.0) for _ in range(20)) if m.any())
    assert 0.019 < float(moved.abs().max()) <= 0.02


def test_boxes_move_with_their_points_and_only_around_z():
    torch.manual_seed(2)
    transform = Transform3d(rotation=[90, 90, 180], scaling=20, jitter=1)
    points = torch.tensor([[3.0, 1, 2]])
    boxes = torch.tensor([[3.0, 1, 2, 4, 2, 1, 0.5]])
    for _ in range(20):
        moved, box = transform.objects(points, boxes)
        torch.testing.assert_close(moved[0], box[0, :3])
        factor = box[0, 3] / 4
        torch.testing.assert_close(moved[0, 2], 2 * factor)
        turn = torch.atan2(moved[0, 1], moved[0, 0]) - math.atan2(1, 3)
        difference = box[0, 6] - 0.5 - turn
        assert abs(math.remainder(float(difference), 2 * math.pi)) < 1e-4


def test_rotations_turn_anticlockwise():
    x, y, z = torch.eye(3)
    torch.testing.assert_close(rotation_matrix(0, 0, math.pi / 2) @ x, y, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation_matrix(math.pi / 2, 0, 0) @ y, z, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation_matrix(0, math.pi / 2, 0) @ z, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"rotation": [1, 2]}, {"rotation": "x"}, {"rotation": [0, 0, -1]}, {"scaling": 100},
     {"jitter": 2}],
)  # fmt: skip
def test_transforms_outside_their_domain_are_refused(options):
    with pytest.raises(OptionError):
        Transform3d(**options)


def test_transforms_refuse_what_nothing_reads():
    with pytest.raises(UnknownOptionError, match="jiter"):
        Transform3d(jiter=1)


def test_a_seed_repeats_a_block_and_validation_stays_as_it_is(tmp_path):
    root = point_cloud_folder(tmp_path)
    data = prepare_data(root, **CLOUD | {"transforms": None})
    first, again = data.train_ds[(0, 5)], data.train_ds[(0, 5)]
    torch.testing.assert_close(first["points"], again["points"])
    plain = prepare_data(root, **CLOUD)
    changed = [data.train_ds[(0, seed)]["points"] for seed in range(8)]
    assert any(not torch.equal(one, plain.train_ds[0]["points"]) for one in changed)
    torch.testing.assert_close(data.valid_ds[0]["points"], plain.valid_ds[0]["points"])
    pair = prepare_data(root, **CLOUD | {"transforms": (None, Transform3d())})
    assert pair.train_ds.transform is None
    assert pair.valid_ds.transform is not None


# -- drawing ----------------------------------------------------------------------------------


def test_blocks_are_drawn_in_three_dimensions(tmp_path):
    data = prepare_data(point_cloud_folder(tmp_path / "a"), **CLOUD)
    figure = draw_points.with_matplotlib([data.train_ds[0], data.train_ds[1]], data.class_table)
    assert [axes.name for axes in figure.axes] == ["3d", "3d"]
    objects = prepare_data(object_cloud_folder(tmp_path / "b"), **OBJECTS)
    assert draw_points.with_matplotlib([objects.train_ds[0]], objects.class_table).to_png()
    lines = draw_points.box_lines(np.array([[1, 2, 3, 4, 2, 1, math.pi / 2]], np.float64))
    assert lines.shape == (1, 12, 2, 3)
    np.testing.assert_allclose(lines.min(axis=(0, 1, 2)), [0, 0, 3], atol=1e-9)
    np.testing.assert_allclose(lines.max(axis=(0, 1, 2)), [2, 4, 4], atol=1e-9)


def test_plotly_is_used_where_it_is_installed(tmp_path, monkeypatch):
    data = prepare_data(object_cloud_folder(tmp_path), **OBJECTS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(data.show_batch(1).axes) == 2
    monkeypatch.undo()
    pytest.importorskip("plotly")
    assert len(data.show_batch(1).data) == 2 * (1 + 24)


def test_worker_processes_read_the_same_blocks(tmp_path):
    root = point_cloud_folder(tmp_path)
    data = prepare_data(root, num_workers=1, **CLOUD | {"transforms": None})
    here = prepare_data(root, **CLOUD | {"transforms": None})
    for there, ours in zip(data.train_loader(), here.train_loader(), strict=True):
        torch.testing.assert_close(there["points"], ours["points"])
