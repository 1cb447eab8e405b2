"""Models of points: options, training, files, pictures and packages."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import laspy
import numpy as np
import pytest
import torch

from geodl.base.errors import (
    DataWarning,
    FormatError,
    ModelDataError,
    NotSupportedError,
    OptionError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.bundle import load_model, resolve_model
from geodl.data.prepare import prepare_data
from geodl.learn import MMDetection3D, PointCNN, RandLANet, SQNSeg
from geodl.testing.point_scene import classified_export, object_export, point_scene

SMALL = {"out_channels": [8, 16], "sub_sampling_ratio": [4, 4], "k_n": 8}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classified_export(
        tmp_path_factory.mktemp("town") / "town.pctd", train=1, side=30.0, density=2.0,
        cars=2, buildings=1, max_points=400,
    )  # fmt: skip


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return object_export(
        tmp_path_factory.mktemp("objects") / "town.pcotd", train=2, valid=1, side=24.0,
        density=2.0, cars=2, buildings=1,
    )  # fmt: skip


def prepared(folder: Path, work: Path, **options: Any) -> Any:
    kind = "PointCloudOD" if folder.suffix == ".pcotd" else "PointCloud"
    options = {"batch_size": 8, "transforms": False, **options}
    return prepare_data(folder, dataset_type=kind, working_dir=work, **options)


@pytest.fixture(scope="module")
def trained(town: Path, tmp_path_factory: pytest.TempPathFactory) -> RandLANet:
    work = tmp_path_factory.mktemp("work")
    data = prepared(town, work, extra_features=["numberOfReturns"], class_mapping={64: "Car"})
    model = RandLANet(data, encoder_params=SMALL)
    model.fit(2, 2e-2, iters_per_epoch=12, monitor="mIoU")
    return model


def test_a_town_is_learned(trained: RandLANet) -> None:
    rows = trained.record.rows
    assert rows[-1]["accuracy"] > 0.75
    table = trained.compute_precision_recall()
    assert list(table) == ["Ground", "High vegetation", "Building", "Car"]
    assert set(table["Ground"]) == {"precision", "recall", "f1"}
    assert table["Ground"]["f1"] > 0.75
    assert trained.available_metrics == [
        "train_loss", "valid_loss", "accuracy", "precision", "recall", "f1", "mIoU",
    ]  # fmt: skip


def test_a_model_says_which_points_it_takes(trained: RandLANet) -> None:
    assert (
        "input    x, y, z, numberOfReturns of blocks of 24 units with 400 points or less"
        in repr(trained)
    )


def test_iterations_of_an_epoch_are_counted(town: Path, tmp_path: Path) -> None:
    data = prepared(town, tmp_path)
    model = RandLANet(data, encoder_params=SMALL)
    seen: list[int] = []
    collate = model.task.train_collate
    model.task.train_collate = lambda items: (seen.append(len(items)), collate(items))[1]  # type: ignore[method-assign]
    model.fit(1, 1e-3, iters_per_epoch=3, checkpoint=False)
    assert len(seen) == 3


def test_the_package_holds_what_points_need(trained: RandLANet, tmp_path: Path) -> None:
    saved = trained.save(tmp_path / "town.dlpk")
    assert saved == tmp_path / "town"
    assert (saved / "town.dlpk").is_file()
    emd = json.loads((saved / "town.emd").read_text())
    assert emd["ModelType"] == "PointCloudClassification"
    attributes = emd["DataAttributes"]
    assert attributes["block_size"] == 24.0
    assert attributes["classes"] == [2, 5, 6, 64]
    assert attributes["extra_features"] == [["numberOfReturns", 4.0, 1.0]]
    assert emd["ModelParameters"]["encoder_params"] == SMALL
    assert emd["FocalLoss"] is False
    assert {"accuracy", "mIoU", "per_class_metrics"} <= set(emd)
    loaded = load_model(resolve_model(saved, tmp_path))
    spec = loaded.contract.points
    assert spec is not None
    assert spec.codes == (2, 5, 6, 64)
    block = trained.data.valid_ds[0]["points"]
    with torch.inference_mode():
        ours = trained.task.scores(trained.net, trained.task.prepare([block]))
        theirs = loaded.task.scores(loaded.net, loaded.task.prepare([block]))
        # Without levels they are made on the way.
        short = {"points": block[None], "length": torch.tensor([len(block)])}
        plain = trained.task.scores(trained.net, short)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(ours, plain)
    assert ours.shape == (1, len(block), 4)
    emd["DataAttributes"]["block_size"] = -1
    (saved / "town.emd").write_text(json.dumps(emd))
    with pytest.raises(Exception, match="block_size"):
        RandLANet.from_model(saved)


def test_raw_points_are_encoded_as_the_export_has_them(trained: RandLANet) -> None:
    scene = point_scene(100, side=30.0, density=2.0, cars=2, buildings=1)
    ref = trained.data.valid_ds.store.chips[0]
    with h5py.File(ref.blocks.folder / "ListTable.h5") as table:
        centre = table["Centers"][0]
        _, count = table["Tiles"][0, 1:3]
    item = trained.data.valid_ds[0]["points"].numpy()
    assert len(item) == count
    spec = trained.contract.points
    assert spec is not None
    world = item[:, :3] * spec.scale + centre
    assert np.abs(world[:, None, :2] - scene.xyz[None, :, :2]).sum(2).min(1).max() < 1e-3
    near = np.abs(scene.xyz[:, :2] - centre[:2]).max(axis=1) < spec.block_size / 2
    raw = {"numberOfReturns": scene.attributes["numberOfReturns"][near]}
    encoded = spec.encode(scene.xyz[near], raw, (float(centre[0]), float(centre[1])))
    assert np.median(encoded[:, 2]) == pytest.approx(0, abs=1e-6)
    assert encoded.shape[1] == item.shape[1] == 4
    assert set(np.unique(encoded[:, 3])) <= set(np.unique(np.float32([0, 1 / 3, 2 / 3, 1])))


def test_blocks_in_files_are_classified(trained: RandLANet, town: Path, tmp_path: Path) -> None:
    folder = trained.predict_h5(town / "val", tmp_path / "out", batch_size=3)
    source = next((town / "val").glob("scene*.h5"))
    with h5py.File(folder / f"{source.stem}_pred.h5") as found, h5py.File(source) as truth:
        label = found["label_seg"][:]
        assert label.dtype == np.int8
        assert found["per_class_confidence"][0].tolist() == [2, 5, 6, 64]
        shares = found["per_class_confidence"][1:]
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
        assert np.array_equal(np.array([2, 5, 6, 64])[shares.argmax(1)], label)
        np.testing.assert_allclose(found["confidence"][:], shares.max(1))
        accuracy = (label == truth["classification"][:]).mean()
    assert accuracy == pytest.approx(trained._score().meter.compute()["accuracy"], abs=1e-6)
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        trained.predict_h5(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"give .*val"):
        trained.predict_h5(town)
    with pytest.raises(UnknownOptionError, match="batch"):
        trained.predict_h5(town / "val", batchsize=3)


def test_las_files_are_classified(
    trained: RandLANet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = point_scene(100, side=30.0, density=2.0, cars=2, buildings=1)
    las = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    las.header.scales = (0.001,) * 3
    las.xyz = scene.xyz
    las.classification = scene.codes
    las.number_of_returns = scene.attributes["numberOfReturns"]
    las.write(tmp_path / "scene.laz")
    place = trained.predict_las(tmp_path / "scene.laz", print_metrics=True)
    assert place == tmp_path / "results" / "scene.laz"
    found = np.asarray(laspy.read(place).classification)
    accuracy = float((found == scene.codes).mean())
    assert accuracy > 0.75
    assert f"accuracy {accuracy:.4f}" in capsys.readouterr().out
    # A class that the model does not give.
    las.classification[:10] = 9
    las.write(tmp_path / "scene.laz")
    trained.predict_las(
        tmp_path / "scene.laz", print_metrics=True, overwrite=True, confidence=True, progress=False
    )
    assert f"10 of {len(found)} points" in capsys.readouterr().out
    assert "confidence" in laspy.read(place).point_format.dimension_names
    with pytest.raises(UnknownOptionError, match="'overwrite'"):
        trained.predict_las(tmp_path / "scene.laz", overwrit=True)


def test_pictures_take_the_documented_arguments(trained: RandLANet) -> None:
    with pytest.warns(DataWarning, match="max_display_point"):
        figure = trained.show_results(
            1, color_mapping={6: np.array([1, 2, 3])}, mask_class=[2], width=400, height=300,
            max_display_point=50,
        )  # fmt: skip
    assert (figure.layout.width, figure.layout.height) == (400, 300)
    assert len(figure.data) == 2
    assert "rgb(1,2,3)" in {c for trace in figure.data for c in trace.marker.color}
    assert all(len(trace.x) <= 50 for trace in figure.data)
    for wrong in ({"mask_class": [99]}, {"color_mapping": {6: "red"}}, {"rows": 0}):
        with pytest.raises(OptionError):
            trained.show_results(**wrong)
    trained._most_shown = 20_000


@pytest.mark.parametrize(
    ("model", "options", "match"),
    [
        (RandLANet, {"encoder_params": {"out_channels": [8]}}, "one length"),
        (RandLANet, {"encoder_params": {"k": 8}}, "k_n"),
        (RandLANet, {"encoder_parms": {}}, "encoder_params"),
        (RandLANet, {"class_weights": {3: 1.0}}, "class_weights"),
        (SQNSeg, {"focal_loss": "maybe"}, "focal_loss"),
        (PointCNN, {"encoder_params": {"P": [0, 1, 2, 3]}}, "P="),
        (PointCNN, {"encoder_params": {"K": [12, 16, 16, 1000]}}, "64 or fewer"),
        (PointCNN, {"dropout": 1.0}, "dropout"),
        (PointCNN, {"sample_point_num": 0}, "sample_point_num"),
    ],
)
def test_wrong_options_are_refused_by_name(
    town: Path, tmp_path: Path, model: Any, options: dict[str, Any], match: str
) -> None:
    with pytest.raises((OptionError, UnknownOptionError), match=match):
        model(prepared(town, tmp_path), **options)


def test_classes_of_interest_and_background_become_outputs(town: Path, tmp_path: Path) -> None:
    data = prepared(town, tmp_path, classes_of_interest=np.array([6]), background_classcode=0)
    assert data.codes == (0, 6)
    model = RandLANet(data, encoder_params=SMALL, class_weights="balanced", focal_loss=True)
    model.fit(1, 1e-2, iters_per_epoch=2)
    assert list(model.compute_precision_recall()) == ["0", "Building"]
    weights = model.parameters["class_weights"]
    assert weights[1] > weights[0]
    assert np.mean(weights) == pytest.approx(1)
    block = data.valid_ds[0]["points"]
    assert set(model.task.predict(model.net, model.task.prepare([block]))[0]) <= {0, 1}
    other = prepared(town, tmp_path, remap_classes={64: 1})
    with pytest.raises(ModelDataError, match="classes"):
        RandLANet.from_model(model.save(tmp_path / "m", compute_metrics=False), other)


def test_other_data_is_scaled_as_the_model_was_trained(
    trained: RandLANet, town: Path, tmp_path: Path
) -> None:
    saved = trained.save(tmp_path / "m", compute_metrics=False)
    copy = tmp_path / "town.pctd"
    shutil.copytree(town, copy)
    for path in copy.glob("*/Statistics.json"):
        path.write_text(path.read_text().replace('"max": 4.0', '"max": 13.0'))
    other = prepared(copy, tmp_path, extra_features=["numberOfReturns"], class_mapping={64: "Car"})
    assert other.train_ds[0]["points"][:, 3].max() < 0.3
    again = RandLANet.from_model(saved, other)
    expected = trained.data.valid_ds[0]["points"]
    assert torch.equal(again.data.valid_ds[0]["points"], expected)
    assert again.data.valid_ds is not other.valid_ds
    lacking = prepared(town, tmp_path, class_mapping={64: "Car"})
    with pytest.raises(ModelDataError, match="numberOfReturns"):
        RandLANet.from_model(saved, lacking)


def test_excluded_points_do_not_count(town: Path, tmp_path: Path) -> None:
    model = SQNSeg(prepared(town, tmp_path), encoder_params=SMALL)
    items = [model.data.train_ds[i] for i in range(2)]
    hidden = [{**item, "target": torch.full_like(item["target"], -100)} for item in items]
    assert loss_of(model, hidden) == 0
    together, alone = loss_of(model, [items[0], hidden[1]]), loss_of(model, [items[0]])
    assert together == pytest.approx(alone, rel=1e-4)


def loss_of(model: Any, items: list[dict[str, Any]]) -> float:
    return model.task.loss(model.net, model.task.collate(items))["loss"].item()


# ---- objects


def test_objects_are_found_and_written(objects: Path, tmp_path: Path) -> None:
    data = prepared(objects, tmp_path / "work", batch_size=2, class_mapping={1: "Car", 2: "House"})
    model = MMDetection3D(data, voxel_parms={"voxel_size": [0.8, 0.8, 0.8]})
    model.fit(6, 6e-3, one_cycle=False, checkpoint=False)
    losses = [row["train_loss"] for row in model.record.rows]
    assert losses[-1] < 0.7 * losses[0]
    options = {"view_type": "train", "iou_thresh": 0.1, "detect_thresh": 0.02}
    scores = model.average_precision_score(**options)
    assert set(scores) == {"Car", "House"}
    mean = model.average_precision_score(**options, mean=True)
    assert mean == pytest.approx(np.mean(list(scores.values())))
    saved = model.save(tmp_path / "finder")
    emd = json.loads((saved / "finder.emd").read_text())
    assert emd["ModelType"] == "PointCloudDetection"
    assert emd["DataAttributes"]["voxel_size"] == [0.8, 0.8, 0.8]
    folder = model.predict_h5(objects / "val", tmp_path / "out", detect_thresh=0.02)
    with h5py.File(folder / "scenes_pred.h5") as found:
        boxes, tiles = found["orientedBoundingBox"][:], found["Tiles"][:]
        assert boxes.shape[1] == 8
        assert set(found["objectCode"][:]) <= {1, 2}
        assert tiles[:, 2].sum() == len(boxes) == len(found["confidence"])
        np.testing.assert_allclose(np.hypot(boxes[:, 2], boxes[:, 3]), 1)
    figure = model.show_results(1, detect_thresh=0.99, view_type="train")
    assert len(figure.data) >= 2


def test_heights_count_from_the_blocks_median(objects: Path, tmp_path: Path) -> None:
    model = MMDetection3D(prepared(objects, tmp_path), voxel_parms={"voxel_size": [1.0, 1.0, 0.8]})
    block = model.data.valid_ds[0]["points"]
    moved = block.clone()
    moved[:, 2] += 250
    found = [
        model.task.detect(model.net, model.task.prepare([b]), threshold=0.0, nms_overlap=0.3)[0]
        for b in (block, moved)
    ]
    assert len(found[0]) == len(found[1]) > 0
    np.testing.assert_allclose(found[0].boxes[:, 2] + 250, found[1].boxes[:, 2], atol=1e-2)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"model": "second.py"}, NotSupportedError, "supported_models"),
        ({"model": "PointPillars"}, OptionError, "SECOND"),
        ({"voxel_parms": {"voxel_size": [1, 1]}}, OptionError, "voxel_size"),
        ({"voxel_parms": {"size": 1}}, UnknownOptionError, "voxel_size"),
        ({"voxel_parms": {"voxel_size": [0, 1, 1]}}, OptionError, "above 0"),
        ({"voxel_parms": {"voxel_size": [9, 9, 1]}}, OptionError, "3 or less"),
        ({"voxel_parms": {"voxel_size": [0.01, 0.01, 0.01]}}, OptionError, "larger"),
        ({"voxel_parms": [1]}, OptionError, "dict"),
    ],
)
def test_wrong_options_of_detectors_are_refused(
    objects: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        MMDetection3D(prepared(objects, tmp_path), **options)


def test_data_of_another_kind_is_refused(town: Path, objects: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelDataError, match="points"):
        RandLANet(prepared(objects, tmp_path))
    with pytest.raises(ModelDataError, match="boxes3d"):
        MMDetection3D(prepared(town, tmp_path))
    with pytest.raises(FormatError):
        MMDetection3D(prepared(objects, tmp_path)).predict_h5(tmp_path)


def test_voxels_follow_from_the_objects(objects: Path, tmp_path: Path) -> None:
    data = prepared(objects, tmp_path)
    space = MMDetection3D(data).parameters["space"]
    width = min(data.average_sizes[1][:2])
    assert space["size"][0] == pytest.approx(width / 6)
    assert space["low"][:2] == [-12, -12]
    assert space["max_voxels"] == [data.max_points] * 2
    assert not math.isnan(sum(space["low"] + space["high"]))
