"""``classify_points``: what comes out, and what it must not depend on."""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

import geodl
from geodl.base.errors import (
    DataError,
    DataWarning,
    ModelDataError,
    OptionError,
    OutputExistsError,
    RunCancelledError,
    RunMismatchError,
    UnknownOptionError,
)
from geodl.bundle import load_model, resolve_model
from geodl.core.points import PointFeature
from geodl.data.prepare import prepare_data
from geodl.io.cloud import open_cloud
from geodl.io.manifest import read_manifest
from geodl.learn import RandLANet
from geodl.ops.point_blocks import overlapping_blocks
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_points import tiny_points
from geodl.tools import point_job
from geodl.tools.classify_points import classify_points
from geodl.tools.export_point_dataset import export_point_dataset

SIDE = 20.0
SMALL = {"out_channels": [4], "sub_sampling_ratio": [2], "k_n": 4}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cloud(tmp_path_factory.mktemp("cloud") / "scene.laz", points=6000, side=90)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_points(tmp_path_factory.mktemp("model") / "tiny", block_size=SIDE, max_points=4000)


@pytest.fixture(scope="module")
def whole(cloud: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.laz"
    classify_points(cloud, model, path, probabilities=True, confidence=True, progress=False)
    return path


def codes(path: Path) -> np.ndarray:
    return np.asarray(laspy.read(path).classification)


def test_scores_are_the_mean_over_the_four_blocks_of_a_point(cloud: Path, whole: Path) -> None:
    read = laspy.read(cloud)
    xyz = np.asarray(read.xyz)
    total, votes = np.zeros(len(xyz)), np.zeros(len(xyz))
    for _, positions in overlapping_blocks(xyz[:, :2], SIDE):
        z = xyz[positions, 2]
        total[positions] += (z - z.mean()) / (SIDE / 2)
        votes[positions] += 1
    assert set(votes) == {4}
    share = 1 / (1 + np.exp(-16 * total / votes))
    found = laspy.read(whole)
    np.testing.assert_allclose(found["probability_6"], share, atol=1e-4)
    np.testing.assert_allclose(found["probability_2"], 1 - share, atol=1e-4)
    clear = abs(share - 0.5) > 1e-3
    np.testing.assert_array_equal(
        np.asarray(found.classification)[clear], np.where(share > 0.5, 6, 2)[clear]
    )
    np.testing.assert_allclose(found["confidence"], np.maximum(share, 1 - share), atol=1e-4)


@pytest.mark.parametrize(("size", "buffer"), [(13.7, 20.0), (40.0, 33.0), (1000.0, 20.0)])
def test_classes_do_not_depend_on_tiles(
    cloud: Path, model: Path, whole: Path, tmp_path: Path, size: float, buffer: float
) -> None:
    found = classify_points(
        cloud, model, tmp_path / "a.las", tile_size=size, buffer=buffer, progress=False
    )
    np.testing.assert_array_equal(found.classification.values, codes(whole))


def test_blocks_above_the_limit_are_divided_alike_in_every_tile(tmp_path: Path) -> None:
    cloud = make_cloud(tmp_path / "dense.laz", points=2000, side=50)
    small = tiny_points(tmp_path / "small", block_size=SIDE, max_points=70)
    found = [
        classify_points(cloud, small, tmp_path / f"{k}.laz", tile_size=size, progress=False)
        for k, size in enumerate((17.0, 80.0))
    ]
    np.testing.assert_array_equal(*(one.classification.values for one in found))


def test_several_files_are_one_cloud(cloud: Path, model: Path, whole: Path, tmp_path: Path) -> None:
    read = laspy.read(cloud)
    # Every third point is in the second file: blocks need both.
    second = np.arange(len(read)) % 3 == 1
    for name, chosen in (("one.laz", ~second), ("two.las", second)):
        part = laspy.LasData(read.header)
        part.points = read.points[chosen]
        part.write(tmp_path / name)
    files = [tmp_path / "one.laz", tmp_path / "two.las"]
    result = classify_points(files, model, tmp_path / "out", progress=False)
    assert result.attrs["path"] == str(tmp_path / "out")
    np.testing.assert_array_equal(codes(tmp_path / "out" / "one.laz"), codes(whole)[~second])
    np.testing.assert_array_equal(codes(tmp_path / "out" / "two.las"), codes(whole)[second])
    # In the order of the list, whatever else lies in the folder.
    (tmp_path / "back").mkdir()
    back = classify_points(files[::-1], model, tmp_path / "back", progress=False)
    np.testing.assert_array_equal(back.x, geodl.open_points(files[::-1]).x)
    (tmp_path / "back" / "other.las").write_bytes(b"")
    again = classify_points(files, model, tmp_path / "back", overwrite=True, progress=False)
    np.testing.assert_array_equal(again.x, geodl.open_points(files).x)
    with pytest.raises(OptionError, match="name a folder"):
        classify_points(files, model, tmp_path / "out.laz")


def test_chosen_classes_change_and_kept_ones_stay(
    cloud: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    before, answer = codes(cloud), codes(whole)

    def run(name: str, classes: Any) -> np.ndarray:
        return codes(
            Path(
                classify_points(
                    cloud, model, tmp_path / name, classes=classes, progress=False
                ).attrs["path"]
            )
        )

    np.testing.assert_array_equal(
        run("a.las", np.array([5])), np.where(before == 5, answer, before)
    )
    np.testing.assert_array_equal(
        run("b.las", {"keep": [5, 6]}), np.where(before == 2, answer, before)
    )
    np.testing.assert_array_equal(run("e.las", "5, 9"), np.where(before == 5, answer, before))
    assert set(run("c.las", {"write": [6]})) == {6}
    with pytest.raises(UnknownOptionError, match="keep"):
        run("d.las", {"kept": [2]})
    with pytest.raises(OptionError, match="2, 6"):
        run("d.las", {"write": [9]})


def test_points_outside_the_bounds_keep_their_class(
    cloud: Path, model: Path, tmp_path: Path
) -> None:
    x0, y0 = 500_020.0, 5_500_010.0
    bounds = (x0, y0, x0 + 30, y0 + 50)
    points = geodl.open_points(cloud, bounds=bounds)
    classify_points(points, model, tmp_path / "a.laz", classes={"write": [6]}, progress=False)
    read = laspy.read(cloud)
    x, y = np.asarray(read.x), np.asarray(read.y)
    inside = (x >= x0) & (x <= bounds[2]) & (y >= y0) & (y <= bounds[3])
    np.testing.assert_array_equal(
        codes(tmp_path / "a.laz"), np.where(inside, 6, np.asarray(read.classification))
    )


def test_bounds_that_hold_no_point_change_none(cloud: Path, model: Path, tmp_path: Path) -> None:
    nowhere = geodl.open_points(cloud, bounds=(0, 0, 1, 1))
    assert nowhere.compute().sizes["point"] == 0
    gc.collect()
    classify_points(nowhere, model, tmp_path / "a.laz", progress=False)
    np.testing.assert_array_equal(codes(tmp_path / "a.laz"), codes(cloud))


def test_a_changed_dataset_is_refused(cloud: Path, model: Path, tmp_path: Path) -> None:
    points = geodl.open_points(cloud)
    with pytest.raises(OptionError, match="to_las"):
        classify_points(points.isel(point=slice(0, 100)), model, tmp_path / "a.laz")


def test_features_are_read_and_missing_ones_named(cloud: Path, tmp_path: Path) -> None:
    returns = PointFeature(name="numberOfReturns", minimum=(1.0,), maximum=(3.0,))
    own = tiny_points(tmp_path / "own", block_size=SIDE, features=[returns])
    classify_points(cloud, own, tmp_path / "a.laz", progress=False)
    red = PointFeature(name="red", minimum=(0.0,), maximum=(255.0,))
    other = tiny_points(tmp_path / "other", block_size=SIDE, features=[red])
    with pytest.raises(ModelDataError, match="has no red"):
        classify_points(cloud, other, tmp_path / "b.laz", progress=False)


def test_codes_that_the_point_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    old = make_cloud(tmp_path / "old.las", points=200, side=30, point_format=1)
    model = tiny_points(tmp_path / "m", classes={2: "Ground", 64: "Own"}, block_size=SIDE)
    with pytest.raises(OptionError, match="end at 31"):
        classify_points(old, model, tmp_path / "a.las", progress=False)
    classify_points(old, model, tmp_path / "b.las", classes={"write": [2]}, progress=False)
    assert set(codes(tmp_path / "b.las")) == {2}


def test_what_stands_there_is_not_replaced_unasked(
    cloud: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.laz"
    classify_points(cloud, model, path, progress=False)
    with pytest.raises(OutputExistsError):
        classify_points(cloud, model, path, progress=False)
    classify_points(cloud, model, path, overwrite=True, classes=[5], progress=False)
    assert set(codes(path)) > {2}
    with pytest.raises(OptionError, match="input itself"):
        classify_points(path, model, path, overwrite=True, progress=False)
    with pytest.raises(OptionError, match="suffix"):
        classify_points(cloud, model, tmp_path / "a.tif", progress=False)


def test_a_second_run_to_the_same_product_sees_the_new_points(model: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.las", tmp_path / "out.las"
    for points, side in ((500, 90), (900, 200)):
        make_cloud(source, points=points, side=side, seed=points)
        classify_points(source, model, target, confidence=True, overwrite=True, progress=False)
        assert (laspy.read(target)["confidence"] > 0).all()


def test_a_folder_takes_the_copy_of_one_file_too(
    cloud: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    found = classify_points(cloud, model, tmp_path / "classified", progress=False)
    assert found.attrs["path"] == str(tmp_path / "classified")
    np.testing.assert_array_equal(codes(tmp_path / "classified" / cloud.name), codes(whole))
    with pytest.raises(OutputExistsError):
        classify_points(cloud, model, tmp_path / "classified", progress=False)
    for wrong in (None, 3, "s3://bucket/a.laz"):
        with pytest.raises(OptionError, match="no path"):
            classify_points(cloud, model, wrong)  # type: ignore[arg-type]


def test_the_manifest_tells_what_was_done(whole: Path, cloud: Path) -> None:
    manifest = read_manifest(whole)
    assert manifest["points"] == 6000
    assert manifest["blocks"]["done"] == manifest["tiles"] > 0
    assert manifest["inputs"][0]["name"] == str(cloud)
    assert {"read", "model", "sort", "finalise"} <= set(manifest["seconds"])
    assert json.dumps(manifest)
    assert not Path(f"{whole}.run").exists()


def test_a_cancelled_run_goes_on_with_its_own_tiles(
    cloud: Path, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.laz"
    watched = point_job.run_blocks

    def stopping(*given: Any, watch: Any = None, **options: Any) -> Any:
        def stop(done: int, total: int) -> None:
            if done == 3:
                options["cancel"].set()

        return watched(*given, watch=watch and stop, **options)

    monkeypatch.setattr(point_job, "run_blocks", stopping)
    future = classify_points(cloud, model, path, tile_size=15, progress=False, future=True)
    with pytest.raises(RunCancelledError):
        future.result(timeout=120)
    assert not path.exists()
    monkeypatch.undo()
    with pytest.raises(RunMismatchError):
        classify_points(cloud, model, path, classes=[2], progress=False)
    classify_points(cloud, model, path, tile_size=31, progress=False)
    np.testing.assert_array_equal(codes(path), codes(whole))
    manifest = read_manifest(path)
    assert manifest["layout"]["size"] == 15
    assert manifest["blocks"]["resumed"] >= 3


def test_points_in_degrees_are_told(model: Path, tmp_path: Path) -> None:
    degrees = make_cloud(tmp_path / "a.las", points=9, side=1e-4, origin=(8.0, 47.0), crs=4326)
    with pytest.warns(DataWarning, match="x and y are degrees"):
        classify_points(degrees, model, tmp_path / "b.las", progress=False)
    with pytest.warns(DataWarning, match="x and y are degrees"), pytest.raises(DataError):
        export_point_dataset(degrees, tmp_path / "out")


def test_a_model_of_metres_meets_points_in_feet(model: Path, tmp_path: Path) -> None:
    def town(name: str, crs: int) -> tuple[Path, Any]:
        for part in ("train", "val"):
            (tmp_path / name / part).mkdir(parents=True)
            cloud = tmp_path / name / part / "a.laz"
            make_cloud(cloud, points=500, side=60, crs=crs)
        blocks = export_point_dataset(tmp_path / name, tmp_path / f"{name}.pctd", block_size=20)
        return cloud, prepare_data(blocks, working_dir=tmp_path, batch_size=2, transforms=False)

    (_, metres), (feet, other) = town("metres", 32633), town("feet", 2263)
    assert (metres.unit_m, other.unit_m) == (1.0, pytest.approx(0.3048, rel=1e-4))
    with pytest.warns(DataWarning, match=r"TinyPoints does not say in which unit .* 6.09"):
        classify_points(feet, model, tmp_path / "a.laz", dry_run=True)
    saved = RandLANet(metres, encoder_params=SMALL).save(tmp_path / "m", compute_metrics=False)
    with pytest.raises(ModelDataError, match=r"units of 1 m; .* \(EPSG:2263\) is 0.3048"):
        classify_points(feet, saved, tmp_path / "a.laz", dry_run=True)
    with pytest.raises(ModelDataError, match="export points in one unit"):
        RandLANet.from_model(saved, other)
    own = RandLANet(other, encoder_params=SMALL)
    classify_points(feet, own, tmp_path / "b.laz", dry_run=True)


def test_tiles_far_smaller_than_their_buffer_are_told(
    cloud: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.warns(DataWarning, match="buffer of 20 reads each point 81 times; tiles of 40"):
        plan: Any = classify_points(cloud, model, tmp_path / "a.laz", tile_size=5, dry_run=True)
    assert plan.tile_size == 5
    with pytest.raises(OptionError, match=r"tile_size=1 with a buffer of 20 reads .* 1681 times"):
        classify_points(cloud, model, tmp_path / "a.laz", tile_size=1)
    classify_points(cloud, model, tmp_path / "a.laz", tile_size=1, buffer=0, dry_run=True)


def test_a_dry_run_tells_all_and_writes_nothing(
    cloud: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.laz"
    plan: Any = classify_points(cloud, model, path, tile_size=30, dry_run=True)
    assert (plan.points, plan.files, plan.tile_size, plan.buffer) == (6000, 1, 30.0, SIDE)
    # Tiles lie on the lattice of the CRS, whose origin is no corner of the cloud.
    assert plan.tiles == 16
    assert plan.worker_hours > 0
    assert "6000 points" in str(plan)
    assert json.loads(json.dumps(plan.to_json()))["output"] == str(path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputExistsError):
        classify_points(cloud, model, whole, dry_run=True)
    with pytest.raises(OptionError, match="Dask"):
        classify_points(cloud, model, path, report=tmp_path / "a.html")


def test_an_estimate_writes_nothing(cloud: Path, model: Path, tmp_path: Path) -> None:
    hours = classify_points(cloud, model, tmp_path / "a.laz", estimate=True)
    assert isinstance(hours, float)
    assert 0 < hours < 0.1
    assert list(tmp_path.iterdir()) == []


def test_a_cloud_without_points_gives_one(model: Path, tmp_path: Path) -> None:
    header = laspy.LasHeader(point_format=6)
    laspy.LasData(header).write(tmp_path / "none.laz")
    found = classify_points(tmp_path / "none.laz", model, tmp_path / "a.laz", progress=False)
    assert found.sizes["point"] == 0


READABLE = (
    "1.2-with-color.copc.laz", "1.2-with-color.las", "autzen-bmx-2010.las", "autzen-bmx-2023.las",
    "autzen-dd.las", "autzen_trim.laz", "bad-geotiff-keys.las", "extrabytes.las",
    "file_with_both_wkt_and_geotiff_vlrs.las", "fullwave.laz", "las14_pdrf6.laz",
    "malformed_extrabytes.las", "no-points.las",
)  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("name", READABLE)
def test_real_files_of_every_kind_change_in_their_classes_only(
    sample_data: Path, tmp_path: Path, name: str
) -> None:
    # Some are in feet, and sparse; some in degrees.
    model = tiny_points(tmp_path / "wide", block_size=0.01 if "dd" in name else 500.0)
    file, copy = sample_data / "lidar_formats" / name, tmp_path / "copy.laz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", geodl.base.errors.DataWarning)
        classify_points(file, model, copy, progress=False)
    before, after = laspy.read(file), laspy.read(copy)
    assert len(before) == len(after)
    for dimension in before.point_format.dimension_names:
        if dimension != "classification":
            one, other = np.asarray(before[dimension]), np.asarray(after[dimension])
            assert one.tobytes() == other.tobytes(), dimension
    for fact in ("scales", "offsets", "mins", "maxs", "creation_date", "system_identifier"):
        assert np.array_equal(getattr(before.header, fact), getattr(after.header, fact)), fact
    # The octree goes with its record, and each packing has its own.
    records = [
        [
            v.record_data_bytes()
            for v in read.header.vlrs
            if v.user_id not in ("copc", "laszip encoded")
        ]
        for read in (before, after)
    ]
    assert records[0] == records[1]
    assert set(np.unique(after.classification)) <= {2, 6}


def test_dense_clouds_are_cut_into_smaller_tiles(
    cloud: Path, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_job, "TILE_POINTS", 1_000_000)
    monkeypatch.setattr(point_job, "_MOST_TILE_POINTS", 600)
    found = classify_points(cloud, model, tmp_path / "a.laz", progress=False)
    np.testing.assert_array_equal(found.classification.values, codes(whole))
    manifest = read_manifest(tmp_path / "a.laz")
    assert manifest["layout"]["size"] > 90
    assert manifest["tiles"] > 4
    fixed = classify_points(cloud, model, tmp_path / "b.laz", tile_size=100, progress=False)
    np.testing.assert_array_equal(fixed.classification.values, codes(whole))
    assert read_manifest(tmp_path / "b.laz")["tiles"] <= 4


def test_tiles_suit_points_and_workers(model: Path, tmp_path: Path) -> None:
    few = open_cloud(make_cloud(tmp_path / "wide.laz", points=500, side=3000))
    area = (few.extent[2] - few.extent[0]) * (few.extent[3] - few.extent[1])
    spec = load_model(resolve_model(model, tmp_path)).contract.points

    def points(count: int, workers: int) -> float:
        cloud = replace(few, counts=(count,))
        size, buffer = point_job.tile_sizes(cloud, spec, None, None, workers)
        assert buffer == SIDE
        assert size % SIDE == 0
        return (size + 2 * buffer) ** 2 * count / area / 1e6

    assert points(40_000_000, 1) == pytest.approx(2, rel=0.05)
    assert points(40_000_000, 2) == pytest.approx(2, rel=0.05)
    assert points(40_000_000, 16) == pytest.approx(40 / 48, rel=0.05)
    assert points(4_000_000, 16) == pytest.approx(0.5, rel=0.05)
