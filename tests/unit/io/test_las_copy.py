"""Copies of point files that differ in what was changed and in nothing else."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from geodl.base.errors import NotSupportedError
from geodl.io.las_copy import copy_cloud, most_code, with_values
from geodl.io.las_file import open_las
from geodl.io.las_records import ExtraColumn
from geodl.io.locations import locate
from geodl.testing.cloud import make_cloud

EXTRA = (("height", "f4"), ("echo", "3u2"))
# Of the header: what packing and added dimensions set (start of points, number of records, point
# format, record length, start and number of extended records).
FREE = {*range(96, 107), *range(235, 247)}


def relabelled(file: Path, target: Path, *, columns: bool = False) -> tuple[Any, Any]:
    """The file and its copy as laspy reads them; class codes are 9, less 1 at every third point."""
    extra = [ExtraColumn("confidence", np.dtype("<f4"))] if columns else []

    def choose(present: np.ndarray, first: int) -> tuple[np.ndarray, list[np.ndarray]]:
        place = np.arange(first, first + len(present))
        values = (place / 7).astype("<f4")
        return np.where(place % 3, 9, 8), [values] if columns else []

    source = open_las(locate(file))
    change = partial(with_values, format_id=source.layout.format_id, choose=choose)
    copy_cloud(source, target, change, extra=extra)
    return laspy.read(file), laspy.read(target)


def assert_same_but_class(before: Any, after: Any) -> None:
    assert len(before) == len(after)
    for name in before.point_format.dimension_names:
        if name != "classification":
            assert np.asarray(before[name]).tobytes() == np.asarray(after[name]).tobytes(), name
    place = np.arange(len(after))
    np.testing.assert_array_equal(after.classification, np.where(place % 3, 9, 8))


def records_of(file: Path, *, later: bool = False) -> list[tuple[bytes, int, bytes]]:
    found = open_las(locate(file)).layout
    data = file.read_bytes()
    return [
        (v.user_id, v.record_id, data[v.start + v.head : v.stop])
        for v in (found.evlrs if later else found.vlrs)
        if v.record_id not in (22204, 4) and v.user_id != b"copc"
    ]


@pytest.mark.parametrize("point_format", range(11))
@pytest.mark.parametrize("suffixes", [(".las", ".las"), (".las", ".laz"), (".laz", ".las")])
def test_only_classes_change_in_every_point_format(
    tmp_path: Path, point_format: int, suffixes: tuple[str, str]
) -> None:
    file = make_cloud(
        tmp_path / f"a{suffixes[0]}", points=700, point_format=point_format, extra=EXTRA
    )
    copy = tmp_path / f"b{suffixes[1]}"
    assert_same_but_class(*relabelled(file, copy))
    before, after = file.read_bytes(), copy.read_bytes()
    changed = {i for i in range(before[94]) if before[i] != after[i]}
    assert changed <= FREE
    assert records_of(file) == records_of(copy)


@pytest.mark.parametrize("point_format", [0, 3, 6, 10])
def test_added_dimensions_follow_the_files_own(tmp_path: Path, point_format: int) -> None:
    file = make_cloud(tmp_path / "a.las", points=500, point_format=point_format, extra=EXTRA)
    before, after = relabelled(file, tmp_path / "b.laz", columns=True)
    assert_same_but_class(before, after)
    assert [d.name for d in after.point_format.extra_dimensions] == ["height", "echo", "confidence"]
    np.testing.assert_array_equal(after["confidence"], (np.arange(500) / 7).astype("f4"))


def test_bytes_that_nobody_described_stay_before_added_ones(tmp_path: Path) -> None:
    header = laspy.LasHeader(point_format=1)
    header.add_extra_dim(laspy.ExtraBytesParams(name="secret", type="u4"))
    cloud = laspy.LasData(header)
    cloud.x = np.arange(50.0)
    cloud["secret"] = np.arange(50) * 1000
    cloud.write(tmp_path / "described.las")
    data = bytearray((tmp_path / "described.las").read_bytes())
    # The description becomes a record of somebody else's.
    data[227 + 2 : 227 + 18] = b"somebody".ljust(16, b"\0")
    (tmp_path / "a.las").write_bytes(data)
    before, after = relabelled(tmp_path / "a.las", tmp_path / "b.las", columns=True)
    assert_same_but_class_without(before, after, "ExtraBytes")
    own = np.asarray(after["undocumented_0"]).astype(np.uint8).tobytes()
    assert own == (np.arange(50) * 1000).astype("<u4").tobytes()
    np.testing.assert_array_equal(after["confidence"], (np.arange(50) / 7).astype("f4"))


def assert_same_but_class_without(before: Any, after: Any, left_out: str) -> None:
    for name in before.point_format.dimension_names:
        if name not in ("classification", left_out):
            np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]))


@pytest.mark.parametrize("columns", [False, True])
def test_bytes_behind_the_points_stay(tmp_path: Path, columns: bool) -> None:
    source, target = make_cloud(tmp_path / "a.las", points=50), tmp_path / "b.las"
    source.write_bytes(source.read_bytes() + b"appended by a program")
    before, after = relabelled(source, target, columns=columns)
    assert_same_but_class(before, after)
    assert target.read_bytes().endswith(b"appended by a program")


def test_packed_copy_keeps_every_byte_before_the_points(tmp_path: Path) -> None:
    file = make_cloud(tmp_path / "a.laz", points=120_000, point_format=7)
    relabelled(file, tmp_path / "b.laz")
    start = open_las(locate(file)).layout.data_start
    assert file.read_bytes()[:start] == (tmp_path / "b.laz").read_bytes()[:start]
    with laspy.open(tmp_path / "b.laz") as reader:
        reader.seek(100_001)
        assert reader.read_points(5).classification.tolist() == [9, 8, 9, 9, 8]


def test_extended_records_and_flags_of_old_formats_stay(tmp_path: Path) -> None:
    file = make_cloud(tmp_path / "a.las", points=300, point_format=6)
    cloud = laspy.read(file)
    cloud.evlrs = laspy.vlrs.vlrlist.VLRList(
        [laspy.VLR("me", 7, "text", b"x" * 70_000), laspy.VLR("me", 8, "", b"")]
    )
    cloud.write(tmp_path / "e.laz")
    relabelled(tmp_path / "e.laz", tmp_path / "b.laz", columns=True)
    assert records_of(tmp_path / "b.laz", later=True) == [
        (b"me", 7, b"x" * 70_000),
        (b"me", 8, b""),
    ]
    old = laspy.read(make_cloud(tmp_path / "old.las", points=300, point_format=1))
    old.withheld[:] = np.arange(300) % 2
    old.key_point[:] = 1
    old.write(tmp_path / "flags.las")
    before, after = relabelled(tmp_path / "flags.las", tmp_path / "f.las")
    assert_same_but_class(before, after)
    assert np.asarray(after.withheld).sum() == 150


def test_waveforms_in_the_file_are_found_at_their_new_place(tmp_path: Path) -> None:
    cloud = laspy.read(make_cloud(tmp_path / "a.las", points=300, point_format=4))
    packets = bytes(range(256)) * 3
    data = bytearray((tmp_path / "a.las").read_bytes())
    record = struct.pack("<H16sHQ32s", 0, b"LASF_Spec", 65535, len(packets), b"") + packets
    struct.pack_into("<Q", data, 227, len(data))
    (tmp_path / "w.las").write_bytes(bytes(data) + record)
    relabelled(tmp_path / "w.las", tmp_path / "b.las", columns=True)
    after = (tmp_path / "b.las").read_bytes()
    (start,) = struct.unpack("<Q", after[227:235])
    assert after[start:] == record
    assert len(cloud) == 300


def test_waveforms_beside_the_file_are_copied(tmp_path: Path) -> None:
    file = make_cloud(tmp_path / "a.las", points=50, point_format=4)
    data = bytearray(file.read_bytes())
    data[6] |= 0b100
    file.write_bytes(data)
    (tmp_path / "a.wdp").write_bytes(b"waves")
    relabelled(file, tmp_path / "b.las")
    assert (tmp_path / "b.wdp").read_bytes() == b"waves"


def test_waveforms_that_packing_would_lose_are_refused(tmp_path: Path) -> None:
    file = make_cloud(tmp_path / "a.las", points=500, point_format=9)
    data = bytearray(file.read_bytes())
    start = open_las(locate(file)).layout.data_start
    noise = np.random.default_rng(0).integers(0, 256, (500, 59), np.uint8)
    data[start:] = noise.tobytes()
    file.write_bytes(data)
    with pytest.raises(NotSupportedError, match=r"write a \.las file"):
        relabelled(file, tmp_path / "b.laz")
    assert not (tmp_path / "b.laz").exists()
    assert_same_but_class(*relabelled(file, tmp_path / "b.las"))


def test_most_code_is_what_the_format_holds() -> None:
    assert [most_code(number) for number in (0, 5, 6, 10)] == [31, 31, 255, 255]


@pytest.mark.real
@pytest.mark.parametrize("columns", [False, True])
def test_an_octree_stays_one_under_its_name(
    sample_data: Path, tmp_path: Path, columns: bool
) -> None:
    file = sample_data / "lidar_formats" / "1.2-with-color.copc.laz"
    copy = tmp_path / "b.copc.laz"
    assert_same_but_class(*relabelled(file, copy, columns=columns))
    with laspy.CopcReader.open(file) as one, laspy.CopcReader.open(copy) as other:
        for level in range(4):
            before, after = one.query(level=level), other.query(level=level)
            np.testing.assert_array_equal(before.gps_time, after.gps_time)
        corner = laspy.copc.Bounds(one.header.mins[:2], (one.header.mins + 600)[:2])
        before, after = one.query(bounds=corner), other.query(bounds=corner)
        assert 0 < len(before) < 1065
        np.testing.assert_array_equal(before.gps_time, after.gps_time)
        assert set(after.classification) <= {8, 9}
    plain = make_cloud(tmp_path / "a.laz", points=10)
    with pytest.raises(NotSupportedError, match="COPC file only"):
        relabelled(plain, tmp_path / "c.copc.laz")
