"""Videos, their csv files, and their tracks of metadata."""

import csv
import struct

import numpy as np
import pytest

from geodl.base.errors import (
    DataWarning,
    FormatError,
    NotSupportedError,
    OutputError,
    SourceError,
    SourceNotFoundError,
)
from geodl.core.detections import Detections
from geodl.io.klv import LOCAL_SET_KEY, checksum, frame_packet
from geodl.io.movie_boxes import boxes, file_boxes, find, is_movie
from geodl.io.video import VideoReader, check_video_suffix, ffmpeg_encoder, open_writer
from geodl.io.video_metadata import MetadataTrack
from geodl.io.vmti import VmtiCsv, vmti_cell

WIDTH, HEIGHT = 96, 64


def film(path, frames=8, fps=10.0):
    """A bright bar that moves right by 8 px a frame."""
    with open_writer(path, WIDTH, HEIGHT, fps) as writer:
        for t in range(frames):
            picture = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
            picture[:, 8 * t : 8 * t + 8] = (40, 60, 220)
            writer.write(picture)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".MOV", ".mkv", ".avi"])
def test_frames_come_back_in_order(tmp_path, suffix):
    path = film(tmp_path / f"film{suffix}")
    with VideoReader(path) as reader:
        assert (reader.width, reader.height, reader.fps) == (WIDTH, HEIGHT, 10.0)
        frames = list(reader)
    assert len(frames) == reader.frame_count == 8
    for t, frame in enumerate(frames):
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert abs(int(frame[..., 2].mean(axis=0).argmax()) - (8 * t + 4)) <= 4


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.mp4"):
        VideoReader(tmp_path / "none.mp4")
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 500)
    with pytest.raises(SourceError, match=r"junk\.mp4.*ffmpeg"):
        VideoReader(tmp_path / "junk.mp4")
    whole = film(tmp_path / "film.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4"):
        VideoReader(tmp_path / "cut.mp4")
    with pytest.raises(NotSupportedError, match=r"\.mp4"):
        check_video_suffix("film.gif", "output_file_path")
    with pytest.raises(OutputError, match="cannot write"):
        open_writer(tmp_path / "missing" / "film.avi", 10, 10, 5.0)


def test_a_video_that_breaks_off_is_read_as_far_as_it_goes_and_warned_of(tmp_path):
    path = film(tmp_path / "film.avi", frames=300)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with VideoReader(path) as reader, pytest.warns(DataWarning, match=r"film\.avi breaks off"):
        assert 0 < sum(1 for _ in reader) < 300


def cell(number=1):
    return vmti_cell(np.array([[3.75, 5.25, 13.75, 10.25]]), np.array([0.75]), [number], 100)


def test_a_cell_has_the_documented_numbers_latest_first():
    # x, y, w, h = 3, 5, 10, 5: top row 4, bottom row 9, centre (8, 7).
    assert cell() == "1 75.0 403 913 708;\n"
    both = vmti_cell(
        np.array([[0, 0, 4, 4], [3.75, 5.25, 13.75, 10.25]]), np.array([0.5, 0.75]), [7, 1], 100
    )
    assert both == "1 75.0 403 913 708;7 50.0 0 304 202;\n"
    assert vmti_cell(np.zeros((0, 4)), np.zeros(0), [], 100) == "\n"


def write(path, cells):
    with VmtiCsv(path) as table:
        for text in cells:
            table.write(text)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_new_csv_has_the_one_column(tmp_path):
    with VmtiCsv(tmp_path / "a.csv") as table:
        for text in ("\n", cell()):
            assert table.write(text) == {}
    assert read(tmp_path / "a.csv") == [["vmtilocaldataset"], ["\n"], [cell()]]


def test_a_csv_that_is_there_keeps_its_columns_and_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,name\n1,a\n2\n3,c\n")
    with VmtiCsv(path) as table:
        said = [table.write(cell(k)) for k in (1, 2)]
    assert said == [{"time": "1", "name": "a"}, {"time": "2"}]
    expected = [["time", "name", "vmtilocaldataset"], ["1", "a", cell(1)], ["2", "", cell(2)],
                ["3", "c", ""]]  # fmt: skip
    assert read(path) == expected
    with pytest.warns(DataWarning, match="last 2 frames"):
        write(path, [cell(k) for k in range(5)])
    again = read(path)
    assert again[0][-2:] == ["vmtilocaldataset"] * 2
    assert [row[-1] for row in again[1:]] == [cell(0), cell(1), cell(2)]


def test_a_failed_run_leaves_the_csv_as_it_was(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time\n1\n")
    with pytest.raises(ZeroDivisionError):
        write(path, (1 / k and cell() for k in (1, 0)))
    assert path.read_text() == "time\n1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    path.write_bytes(b"\xff\xfe\xfd,\n\x80\n")
    with pytest.raises(FormatError, match=r"a\.csv.*UTF-8"), VmtiCsv(path):
        pass
    with pytest.raises(OutputError, match="missing"):
        VmtiCsv(tmp_path / "missing" / "a.csv")


def items(data):
    """(tag, value) of a local set, read by the book."""
    place = 0
    while place < len(data):
        tag, length = data[place], data[place + 1]
        place += 2
        if length & 0x80:
            more = length & 0x7F
            length = int.from_bytes(data[place : place + more], "big")
            place += more
        yield tag, data[place : place + length]
        place += length


def unpack(packet):
    assert packet[:16] == LOCAL_SET_KEY
    assert checksum(packet[:-2]) == int.from_bytes(packet[-2:], "big")
    length, start = packet[16], 17
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(packet[17:start], "big")
    assert len(packet) == start + length
    return dict(items(packet[start:]))


def test_a_packet_holds_time_platform_and_targets():
    said = {"Sensor latitude": "45", "Sensor Longitude": "", "precision time stamp": "1700000000",
            "Platform Pitch Angle": "30", "Sensor True Altitude": "-900"}  # fmt: skip
    many = np.tile([[10.0, 20.0, 29.5, 39.5]], (9, 1))
    packet = frame_packet(4, 0.4, many, np.full(9, 0.5), [200, *range(8)], (100, 80), said)
    found = unpack(packet)
    assert int.from_bytes(found[2], "big") == 1700000000
    assert int.from_bytes(found[13], "big") == round(45 / 90 * (2**31 - 1))
    assert found[15] == b"\0\0"
    assert 14 not in found
    assert 6 not in found, "a pitch of 30 degrees is outside the field's range"
    vmti = dict(items(found[74]))
    assert (vmti[5], vmti[7], vmti[8], vmti[9]) == (b"\x09", b"\x05", b"\x64", b"\x50")
    first = vmti[101][1 : 1 + vmti[101][0]]
    assert first[:2] == b"\x81\x48", "200 takes two bytes of seven bits"
    target = {tag: int.from_bytes(value, "big") for tag, value in items(first[2:])}
    assert target == {1: 29 * 100 + 19 + 1, 2: 20 * 100 + 11, 3: 39 * 100 + 30, 5: 50}
    empty = unpack(frame_packet(4, 0.4, many[:0], np.zeros(0), [], (9, 9), {}))
    assert int.from_bytes(empty[2], "big") == 400000
    assert 101 not in dict(items(empty[74]))


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_multiplexed_video_plays_as_before_and_carries_a_packet_for_each_frame(tmp_path, suffix):
    source, target = film(tmp_path / f"film{suffix}"), tmp_path / "film_multiplex.MOV"
    assert is_movie(source) == (suffix == ".mp4")
    packets = []
    with VideoReader(source) as reader, MetadataTrack(source, target, reader) as track:
        for t, frame in enumerate(reader):
            found = Detections(
                np.array([[8.0 * t, 0, 8 * t + 8, 63]]), np.array([0.5]), np.array([1])
            )
            track.write(frame, found, [3], {})
            packets.append(
                frame_packet(t, t / 10, found.boxes, found.scores, [3], (WIDTH, HEIGHT), {})
            )
    with VideoReader(target) as reader:
        frames = list(reader)
    assert len(frames) == 8
    if suffix == ".mp4":
        with VideoReader(source) as reader:
            assert all(np.array_equal(a, b) for a, b in zip(frames, reader, strict=True))
    data = target.read_bytes()
    with open(target, "rb") as file:
        moov = next(box for box in file_boxes(file) if box.kind == b"moov")
    content = data[moov.content : moov.stop]
    last = [b for b in boxes(content) if b.kind == b"trak"][-1]
    table = (b"mdia", b"minf", b"stbl")
    track = content[last.content : last.stop]
    sizes = find(track, *table, b"stsz")
    lengths = struct.unpack(f">{len(sizes) // 4}I", sizes)[3:]
    start = struct.unpack(">Q", find(track, *table, b"co64")[8:])[0]
    assert lengths == tuple(map(len, packets))
    assert data[start : start + sum(lengths)] == b"".join(packets)
    times = struct.unpack(">4I", find(track, *table, b"stts"))
    scale = struct.unpack(">I", find(track, b"mdia", b"mdhd")[20:24])[0]
    assert times[2] == 8
    assert times[3] / scale == pytest.approx(0.1)


def test_the_ffmpeg_program_encodes_h264_also_of_odd_sizes(tmp_path):
    if ffmpeg_encoder() is None:
        pytest.skip("there is no ffmpeg program with an H.264 encoder")
    with open_writer(tmp_path / "odd.mp4", 33, 21, 5.0) as writer:
        for level in (0, 120, 250):
            writer.write(np.full((21, 33, 3), level, np.uint8))
    with VideoReader(tmp_path / "odd.mp4") as reader:
        assert (reader.width, reader.height) == (34, 22)
        assert [round(frame[:20, :30].mean(), -1) for frame in reader] == [0, 120, 250]
    assert b"avc1" in (tmp_path / "odd.mp4").read_bytes()
    writer = open_writer(tmp_path / "missing" / "film.mp4", 32, 32, 5.0)
    with pytest.raises(OutputError, match=r"ffmpeg cannot write .*film\.mp4"):
        fill(writer)


def fill(writer):
    with writer:
        for _ in range(2000):
            writer.write(np.zeros((32, 32, 3), np.uint8))
