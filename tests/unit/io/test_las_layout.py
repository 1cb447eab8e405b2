"""Headers that lie: each is refused by name, in bounded time, before a decoder sees it."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import laspy
import numpy as np
import pytest

import geodl
from geodl.base.errors import GeodlError, SourceError
from geodl.io import las_trial
from geodl.io.las_file import open_las
from geodl.io.locations import locate
from geodl.testing.cloud import make_cloud


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, point_format in (("a.las", 6), ("b.laz", 6), ("c.laz", 1), ("d.las", 1)):
        path = make_cloud(folder / name, points=3000, point_format=point_format)
        found[name] = path.read_bytes()
    return found


def patched(data: bytes, place: int, layout: str, *values: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, place, *values)
    return bytes(changed)


def patch(place: int, layout: str, *values: float) -> Callable[[bytes], bytes]:
    return lambda data: patched(data, place, layout, *values)


def table_patch(place: int, value: int) -> Callable[[bytes], bytes]:
    """Change a number of the chunk table."""

    def change(data: bytes) -> bytes:
        (start,) = struct.unpack_from("<I", data, 96)
        (table,) = struct.unpack_from("<q", data, start)
        return patched(data, table + place, "<I", value)

    return change


LIES = {
    "no LAS": ("a.las", patch(0, "<4s", b"LASE"), "no LAS or LAZ"),
    "version": ("a.las", patch(25, "<B", 9), "LAS 1.9"),
    "header size": ("a.las", patch(94, "<H", 20), "header states 20"),
    "start": ("a.las", patch(96, "<I", 2**31), "begin at byte"),
    "records": ("a.las", patch(100, "<I", 2**32 - 1), "records are said"),
    "record length": ("a.las", patch(375 + 20, "<H", 65535), "too late"),
    "format": ("a.las", patch(104, "<B", 44), "point format 44"),
    "point length": ("a.las", patch(105, "<H", 12), "records are said to have 12"),
    "count": ("a.las", patch(247, "<Q", 2**60), "counts 1152921504606846976"),
    "old count": ("d.las", patch(107, "<I", 2**32 - 1), "counts 4294967295"),
    "one more": ("d.las", patch(107, "<I", 3001), "room for 3000"),
    "scale": ("a.las", patch(131, "<d", 0.0), "scale is 0"),
    "offset": ("a.las", patch(155, "<d", np.nan), "not all finite"),
    "extended": ("a.las", patch(235, "<QI", 2**40, 3), "extended records"),
    "many extended": ("a.las", patch(235, "<QI", 400, 2**32 - 1), "extended records"),
    "packed count": ("b.laz", patch(247, "<Q", 2**50), "chunks"),
    "packed count, old": ("c.laz", patch(107, "<I", 2**32 - 1), "chunks"),
    "chunks": ("b.laz", table_patch(4, 2**32 - 1), "chunks are said"),
    "no chunk": ("b.laz", table_patch(4, 0), "chunks are said"),
}


@contextlib.contextmanager
def little_is_done() -> Iterator[None]:
    """A lie about counts and lengths costs neither time nor memory."""
    started = time.process_time()
    # What Python and NumPy ask for; the process may have held more before.
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 20


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named_at_once(files: dict[str, bytes], tmp_path: Path, lie: str) -> None:
    name, change, words = LIES[lie]
    path = tmp_path / name
    path.write_bytes(change(files[name]))
    with little_is_done(), pytest.raises(SourceError, match=words) as caught:
        geodl.open_points(path).compute()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.las", "b.laz", "c.laz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(
    files: dict[str, bytes], tmp_path: Path, name: str, share: float
) -> None:
    data = files[name]
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError):
        geodl.open_points(tmp_path / name).compute()


@pytest.mark.parametrize("name", ["b.laz", "c.laz"])
def test_damage_anywhere_gives_an_error_or_what_laspy_reads(
    files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    generator = np.random.default_rng(5)
    path = tmp_path / name
    errors = 0
    for _ in range(40):
        data = bytearray(files[name])
        place = int(generator.integers(0, len(data)))
        data[place : place + 4] = generator.integers(0, 256, 4, np.uint8).tobytes()[
            : len(data) - place
        ]
        path.write_bytes(data)
        try:
            found = geodl.open_points(path, dims=["intensity"]).compute()
        except GeodlError as error:
            assert str(path) in str(error)  # noqa: PT017
            errors += 1
            continue
        read = laspy.read(path)
        np.testing.assert_array_equal(found.intensity, read.intensity)
        np.testing.assert_array_equal(found.z, read.z)
    assert 0 < errors < 40


@pytest.mark.parametrize("name", ["b.laz", "c.laz"])
def test_any_chunk_table_is_named_or_right(
    files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    generator = np.random.default_rng(3)
    data = files[name]
    (start,) = struct.unpack_from("<I", data, 96)
    (table,) = struct.unpack_from("<q", data, start)
    path = tmp_path / name
    for _ in range(4):
        noise = generator.integers(0, 256, len(data) - table - 8, np.uint8).tobytes()
        path.write_bytes(data[: table + 8] + noise)
        try:
            assert geodl.open_points(path).compute().sizes["point"] == 3000
        except SourceError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_layers_that_do_not_fit_their_chunk_never_reach_the_decoder(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    data = files["b.laz"]
    (start,) = struct.unpack_from("<I", data, 96)
    path = tmp_path / "b.laz"
    # The first chunk: the offset of the table, one whole record, its points, then its layers.
    path.write_bytes(patched(data, start + 8 + 30 + 4, "<I", 2**31))
    with pytest.raises(SourceError, match="layers of a chunk"):
        geodl.open_points(path).compute()


def test_an_odd_file_is_tried_in_another_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Points that are all alike shrink to almost nothing, as in a file made to fill memory.
    cloud = laspy.LasData(laspy.LasHeader(point_format=6))
    cloud.x = np.zeros(200_000)
    path = tmp_path / "same.laz"
    cloud.write(path)
    table = open_las(locate(path), trusted=True).table
    assert table is not None
    assert "200000 points are said" in table.doubts[0]
    assert geodl.open_points(path).sizes["point"] == 200_000
    # Too little memory for it: the trial fails, and nothing is decoded here.
    las_trial._try.cache_clear()
    monkeypatch.setattr(las_trial, "MEMORY_BYTES", 2**20)
    with pytest.raises(SourceError, match=r"decoding it in another process"):
        geodl.open_points(path)
    las_trial._try.cache_clear()
    monkeypatch.setattr(las_trial, "_LEAST_S", 0.01)
    monkeypatch.setattr(las_trial, "_S_PER_MB", 0.0)
    with pytest.raises(SourceError, match="did not end within"):
        geodl.open_points(path)
    las_trial._try.cache_clear()


def test_a_laszip_without_chunks_is_named(files: dict[str, bytes], tmp_path: Path) -> None:
    data = files["c.laz"]
    place = data.index(b"laszip encoded") + 52
    path = tmp_path / "old.laz"
    path.write_bytes(patched(data, place, "<H", 1))
    with pytest.raises(SourceError, match="before 2011"):
        geodl.open_points(path)


@pytest.mark.real
def test_the_broken_sample_is_named(sample_data: Path) -> None:
    with little_is_done(), pytest.raises(SourceError, match="before 2011"):
        geodl.open_points(
            sample_data / "lidar_formats" / "simple-laszip-compressor-version-1.2r0.laz"
        )
