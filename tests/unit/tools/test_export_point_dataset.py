"""Point clouds cut into blocks, read back with prepare_data."""

from __future__ import annotations

import json

import numpy as np
import pyproj
import pytest

from geodl.base.errors import (
    DataError,
    DataWarning,
    OptionError,
    OutputExistsError,
    SourceError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.data.prepare import prepare_data
from geodl.formats import validate_export
from geodl.ops.point_blocks import limited_parts, overlapping_blocks
from geodl.runtime.connect import connect
from geodl.tools.export_point_dataset import export_point_dataset

laspy = pytest.importorskip("laspy")
h5py = pytest.importorskip("h5py")


def write_cloud(path, points=300, *, seed=0, side=40.0, origin=(500.0, 700.0, 20.0), codes=(2, 6)):
    rng = np.random.default_rng(seed)
    header = laspy.LasHeader(point_format=8, version="1.4")
    header.offsets, header.scales = np.array(origin), np.array([0.001] * 3)
    cloud = laspy.LasData(header)
    xyz = rng.uniform(0, side, (points, 3)) * (1, 1, 0.2) + origin
    cloud.x, cloud.y, cloud.z = xyz.T
    cloud.classification = rng.choice(np.array(codes, np.uint8), points)
    cloud.intensity = rng.integers(0, 4000, points).astype(np.uint16)
    cloud.nir = np.arange(points).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    cloud.write(path)
    return np.asarray(cloud.xyz), np.asarray(cloud.classification)


def blocks_of(folder):
    """(centre, xyz in units of the CRS, codes, further data sets) of each block."""
    with h5py.File(folder / "ListTable.h5") as table:
        files = [name.decode() for name in np.asarray(table["Files"])]
        tiles, centers = np.asarray(table["Tiles"]), np.asarray(table["Centers"])
    side = json.loads((folder / "Statistics.json").read_text())["parameters"]["tileSize"]
    for (number, start, count), centre in zip(tiles, centers, strict=True):
        with h5py.File(folder / files[number]) as file:
            parts = {name: np.asarray(file[name])[start : start + count] for name in file}
        yield centre, parts.pop("xyz") * side / 2 + centre, parts.pop("classification"), parts


def test_each_point_lies_in_four_blocks_where_it_was(tmp_path):
    xyz, codes = write_cloud(tmp_path / "in" / "train" / "a.laz")
    write_cloud(tmp_path / "in" / "val" / "b.las", seed=1)
    output = export_point_dataset(
        tmp_path / "in", tmp_path / "out.pctd", 10, 1000, ["nearInfrared", "intensity"]
    )
    assert sorted(p.name for p in output.iterdir()) == ["train", "val"]
    seen = np.zeros(len(xyz), int)
    for centre, places, classes, more in blocks_of(output / "train"):
        rows = more["nearInfrared"].astype(int)  # the row that a point had
        seen[rows] += 1
        np.testing.assert_allclose(places, xyz[rows], atol=2e-6 * 10)
        np.testing.assert_array_equal(classes, codes[rows])
        assert np.abs(places[:, :2] - centre[:2]).max() <= 5 + 1e-5
        inside = (np.abs(xyz[:, :2] - centre[:2]) < 5 - 1e-6).all(axis=1)
        assert set(np.flatnonzero(inside)) <= set(rows.tolist())
    assert (seen == 4).all()


def test_what_is_written_is_read_by_prepare_data(tmp_path):
    for part, seed in (("train", 0), ("val", 1)):
        write_cloud(tmp_path / "in" / part / "a.laz", 400, seed=seed)
    output = export_point_dataset(
        tmp_path / "in", tmp_path / "out", 20.0, 64, ["intensity", "num_returns"]
    )
    assert validate_export(output) == ()
    data = prepare_data(
        output, dataset_type="PointCloud", transforms=False,
        extra_features=["intensity", "numberOfReturns"],
    )  # fmt: skip
    items = [items[i] for items in (data.train_ds, data.valid_ds) for i in range(len(items))]
    assert max(len(item["points"]) for item in items) <= 64
    assert data.classes == ["Ground", "Building"]
    assert sum(data.class_counts.values()) == 4 * 800
    intensity = np.concatenate([item["points"][:, 3] for item in items])
    assert (intensity.min(), intensity.max()) == (0, 1)


def test_a_crowded_block_is_written_several_times_and_no_point_is_lost():
    positions = np.arange(22_000)
    parts = limited_parts(positions, 10_000, np.random.default_rng(0))
    assert len(parts) == 3
    assert max(map(len, parts)) <= 10_000
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), positions)
    assert limited_parts(positions, 22_000, np.random.default_rng(0))[0] is positions


def test_blocks_of_no_points_are_none():
    assert list(overlapping_blocks(np.zeros((0, 2)), 5)) == []
    (centre, rows), *_ = overlapping_blocks(np.array([[7.0, -3.0]]), 10)
    assert (centre, rows.tolist()) == ((5, -5), [0])


def test_one_file_is_divided_and_no_point_is_in_both_sets(tmp_path):
    xyz, _ = write_cloud(tmp_path / "a.las", 500)
    output = export_point_dataset(tmp_path / "a.las", tmp_path / "out", 10, 500, ["nearInfrared"])
    rows = {
        part: {int(row) for *_, more in blocks_of(output / part) for row in more["nearInfrared"]}
        for part in ("train", "val")
    }
    assert rows["train"].isdisjoint(rows["val"])
    assert len(rows["train"] | rows["val"]) == 500
    axis = int(np.ptp(xyz[:, :2], axis=0).argmax())
    assert max(xyz[list(rows["train"]), axis]) < min(xyz[list(rows["val"]), axis])


def test_several_files_are_shared_out(tmp_path):
    for i in range(6):
        write_cloud(tmp_path / "in" / f"{i}.laz", 20, seed=i)
    output = export_point_dataset(tmp_path / "in", tmp_path / "out")
    names = {
        part: sorted(p.stem for p in (output / part).glob("?.h5")) for part in ("train", "val")
    }
    assert names == {"train": ["0", "1", "2", "3", "5"], "val": ["4"]}


def test_the_export_is_the_same_again(tmp_path):
    for i in range(3):
        write_cloud(tmp_path / "in" / f"{i}.las", 200, seed=i)
    first, second = (
        export_point_dataset(tmp_path / "in", tmp_path / name, 20, 50) for name in ("x", "y")
    )
    for part in ("train", "val"):
        for ours, theirs in zip(blocks_of(first / part), blocks_of(second / part), strict=True):
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_wrong_input_is_named_and_leaves_nothing(tmp_path):
    write_cloud(tmp_path / "in" / "a.las", 50)
    write_cloud(tmp_path / "in" / "b.las", 50)
    output = tmp_path / "out"
    with pytest.raises(OptionError, match=r"[ab]\.las has no 'intensty'.*'intensity'"):
        export_point_dataset(tmp_path / "in", output, extra_features=["intensty"])
    with pytest.raises(OptionError, match="block_size"):
        export_point_dataset(tmp_path / "in", output, block_size=0)
    with pytest.raises(OptionError, match="no list"):
        export_point_dataset(tmp_path / "in", output, extra_features="intensity")
    with pytest.raises(OptionError, match="twice"):
        export_point_dataset(tmp_path / "in", output, extra_features=["nir", "nearInfrared"])
    with pytest.raises(OptionError, match="no path"):
        export_point_dataset([tmp_path / "in"], output)
    with pytest.raises(UnknownOptionError, match=r"blocksize.*'block_size'"):
        export_point_dataset(tmp_path / "in", output, blocksize=5)
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        export_point_dataset(tmp_path / "nowhere", output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="no LAS"):
        export_point_dataset(tmp_path / "empty", output)
    (tmp_path / "in" / "c.las").write_bytes(b"LASF nothing more")
    with pytest.raises(SourceError, match=r"c\.las"):
        export_point_dataset(tmp_path / "in", output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "in"]
    output.mkdir()
    with pytest.raises(OutputExistsError, match="exists"):
        export_point_dataset(tmp_path / "in", output)


def test_files_in_different_units_are_refused(tmp_path):
    for name, crs in (("train", 32633), ("val", 2225)):
        write_cloud(tmp_path / "in" / name / "a.las", 50)
        cloud = laspy.read(tmp_path / "in" / name / "a.las")
        cloud.header.add_crs(pyproj.CRS(crs))
        cloud.write(tmp_path / "in" / name / "a.las")
    with pytest.raises(DataError, match="one CRS"):
        export_point_dataset(tmp_path / "in", tmp_path / "out")


def test_a_file_that_makes_the_decoder_panic_is_named(tmp_path, sample_data):
    file = sample_data / "lidar_formats" / "simple-laszip-compressor-version-1.2r0.laz"
    with pytest.raises(SourceError, match="before 2011"):
        export_point_dataset(file, tmp_path / "out")
    (tmp_path / "a.e57").write_bytes(b"ASTM-E57")
    with pytest.raises(SourceError, match="convert it"):
        export_point_dataset(tmp_path, tmp_path / "out")


def test_classes_that_only_validate_are_told(tmp_path):
    write_cloud(tmp_path / "in" / "train" / "a.las", 50, codes=(2,))
    write_cloud(tmp_path / "in" / "val" / "a.las", 50, codes=(2, 9))
    with pytest.warns(DataWarning, match="9 are in 'val' only"):
        export_point_dataset(tmp_path / "in", tmp_path / "out")


def test_a_set_without_points_is_refused(tmp_path):
    write_cloud(tmp_path / "in" / "train" / "a.las", 50)
    write_cloud(tmp_path / "in" / "val" / "a.las", 0)
    with pytest.raises(DataError, match="'val'"):
        export_point_dataset(tmp_path / "in", tmp_path / "out")


def test_real_tiles_make_blocks_to_train_on(tmp_path, sample_data):
    files = sorted((sample_data / "lidar_ign").glob("test_data_770*.laz"))[:2]
    (tmp_path / "in").mkdir()
    for file in files:
        (tmp_path / "in" / file.name).symlink_to(file)
    output = export_point_dataset(
        tmp_path / "in", tmp_path / "out", 25.0, 8192, ["intensity", "nearInfrared"]
    )
    with pytest.warns(DataWarning, match="64"):  # a user class that one tile has
        data = prepare_data(
            output, dataset_type="PointCloud", extra_features=["intensity"], batch_size=2
        )
    assert "Building" in data.classes
    assert len(data.train_ds) > 9
    batch = next(iter(data.train_loader()))
    assert batch["points"].shape[0] == 2
    assert batch["points"].shape[2] == 4
    total = sum(len(laspy.read(file).points) for file in files)
    assert sum(data.class_counts.values()) == 4 * total


def test_a_copc_file_gives_the_blocks_of_its_las(tmp_path, sample_data):
    made = []
    for name in ("1.2-with-color.copc.laz", "1.2-with-color.las"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).symlink_to(sample_data / "lidar_formats" / name)
        out = export_point_dataset(folder, tmp_path / f"{name}-out", 500.0, 8192, ["intensity"])
        made.append([list(blocks_of(out / part)) for part in ("train", "val")])
    for ours, theirs in zip(*made, strict=True):
        assert len(ours) == len(theirs) > 0
        # COPC orders points by its tree: blocks hold the same ones in another order.
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                np.sort(one[1], axis=0), np.sort(other[1], axis=0), atol=1e-5
            )


def test_the_workers_of_a_client_write_the_same(tmp_path, cluster_address):
    for i in range(3):
        write_cloud(tmp_path / "in" / f"{i}.las", 100, seed=i)
    alone = export_point_dataset(tmp_path / "in", tmp_path / "alone", 20, 50)
    with connect(cluster_address):
        shared = export_point_dataset(tmp_path / "in", tmp_path / "shared", 20, 50)
    for part in ("train", "val"):
        for ours, theirs in zip(blocks_of(alone / part), blocks_of(shared / part), strict=True):
            np.testing.assert_array_equal(ours[1], theirs[1])
            np.testing.assert_array_equal(ours[2], theirs[2])
