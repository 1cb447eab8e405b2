"""A track of timed metadata put into an MP4 or MOV file, without touching its pictures.

The containers are those of ISO/IEC 14496-12; a QuickTime file has the same boxes. Pictures stay
where they are in the file: the old list of contents becomes free space, and a new one with one
track more comes last.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from geodl.base.errors import FormatError

_COPIED = 2**20
KLV_URI = "urn:smpte:ul:060E2B34.020B0101.0E010301.01000000"
"""What the samples are: the key of the UAS Datalink Local Set."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a file or in the bytes of another.

    Parameters
    ----------
    kind
        Four letters.
    start, content, stop
        Where it, its content and what follows it begin.
    """

    kind: bytes
    start: int
    content: int
    stop: int


def is_movie(path: Path) -> bool:
    """Whether a file is an MP4 or MOV with one list of contents for all of it."""
    with open(path, "rb") as file:
        try:
            kinds = [box.kind for box in file_boxes(file)]
        except FormatError:
            return False
    return kinds.count(b"moov") == 1 and b"moof" not in kinds


def add_track(
    source: Path, target: Path, samples: Path, sizes: Sequence[int], seconds_each: float
) -> None:
    """Write a copy of a movie with one metadata sample for each picture.

    Parameters
    ----------
    source
        Passes :func:`is_movie`.
    target
        Written.
    samples
        A file with all samples, one after the other.
    sizes
        Bytes of each.
    seconds_each
        Duration of a sample, where the movie's own times of pictures do not fit their number.

    Raises
    ------
    FormatError
        The movie's boxes are broken.
    """
    shutil.copyfile(source, target)
    with open(target, "r+b") as file:
        moov = next(box for box in file_boxes(file) if box.kind == b"moov")
        file.seek(moov.start)
        contents = file.read(moov.stop - moov.start)[moov.content - moov.start :]
        if moov.stop == file.seek(0, os.SEEK_END):
            file.truncate(moov.start)
        else:
            file.seek(moov.start + 4)
            file.write(b"free")
        file.seek(0, os.SEEK_END)
        file.write(struct.pack(">I4sQ", 1, b"mdat", 16 + sum(sizes)))
        offset = file.tell()
        with open(samples, "rb") as given:
            shutil.copyfileobj(given, file, _COPIED)
        file.write(_box(b"moov", _with_track(contents, offset, sizes, seconds_each)))


def file_boxes(file: BinaryIO) -> Iterator[Box]:
    """The outer boxes of a file."""
    end = file.seek(0, os.SEEK_END)
    start = 0
    while start < end:
        file.seek(start)
        box = _box_at(file.read(16), start, end)
        yield box
        start = box.stop


def boxes(data: bytes) -> Iterator[Box]:
    """The boxes in the content of another."""
    start = 0
    while start < len(data):
        box = _box_at(data[start : start + 16], start, len(data))
        yield box
        start = box.stop


def find(data: bytes, *path: bytes) -> bytes | None:
    """The content of the first box on a path of kinds."""
    for kind in path:
        box = next((b for b in boxes(data) if b.kind == kind), None)
        if box is None:
            return None
        data = data[box.content : box.stop]
    return data


def _box_at(head: bytes, start: int, end: int) -> Box:
    if len(head) < 8:
        raise FormatError(f"the movie's boxes are broken: {len(head)} bytes too many at its end")
    size, kind = struct.unpack_from(">I4s", head)
    content = start + 8
    if size == 1 and len(head) >= 16:
        (size,) = struct.unpack_from(">Q", head, 8)
        content = start + 16
    stop = end if size == 0 else start + size
    if not content <= stop <= end:
        raise FormatError(f"the movie's box {kind!r} at byte {start} is cut off or broken")
    return Box(kind, start, content, stop)


def _with_track(moov: bytes, offset: int, sizes: Sequence[int], seconds_each: float) -> bytes:
    """The list of contents with one track more."""
    header = find(moov, b"mvhd")
    if header is None:
        raise FormatError("the movie has no header (mvhd)")
    long = header[0] == 1
    scale, duration = struct.unpack_from(">IQ" if long else ">II", header, 20 if long else 12)
    number = struct.unpack_from(">I", header, len(header) - 4)[0]
    video, times, media_scale = _video_times(moov, len(sizes))
    if times is None:
        media_scale = 1_000_000
        delta = max(1, round(seconds_each * media_scale))
        times = struct.pack(">III", 1, len(sizes), delta)
    track = _track(number, video, scale, duration, media_scale, times, offset, sizes)
    parts = []
    for box in boxes(moov):
        content = moov[box.content : box.stop]
        if box.kind == b"mvhd":
            content = content[:-4] + struct.pack(">I", number + 1)
        parts.append(_box(box.kind, content))
    return b"".join(parts) + track


def _video_times(moov: bytes, count: int) -> tuple[int, bytes | None, int]:
    """Number of the video track, its table of durations if it has ``count`` pictures, its scale."""
    for box in boxes(moov):
        track = moov[box.content : box.stop]
        handler = find(track, b"mdia", b"hdlr") if box.kind == b"trak" else None
        if handler is None or handler[8:12] != b"vide":
            continue
        head, media = find(track, b"tkhd") or b"", find(track, b"mdia", b"mdhd") or b""
        number = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0]
        scale = struct.unpack_from(">I", media, 20 if media[0] == 1 else 12)[0]
        table = (find(track, b"mdia", b"minf", b"stbl", b"stts") or b"")[4:]
        entries = struct.unpack(f">{len(table) // 4}I", table[: len(table) // 4 * 4])[1:]
        return number, table if sum(entries[::2]) == count else None, scale
    raise FormatError("the movie has no video track")


def _track(
    number: int,
    video: int,
    scale: int,
    duration: int,
    media_scale: int,
    times: bytes,
    offset: int,
    sizes: Sequence[int],
) -> bytes:
    entries = struct.unpack(f">{len(times) // 4}I", times)[1:]
    lasting = sum(n * d for n, d in zip(entries[::2], entries[1::2], strict=True))
    unity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    head = struct.pack(">QQIIQ", 0, 0, number, 0, round(lasting * scale / max(media_scale, 1)))
    head += bytes(16) + unity + bytes(8)
    media = struct.pack(">QQIQHH", 0, 0, media_scale, lasting, 0x55C4, 0)
    entry = bytes(6) + struct.pack(">H", 1) + _full(b"uri ", KLV_URI.encode() + b"\0")
    table = b"".join(
        [
            _full(b"stsd", struct.pack(">I", 1) + _box(b"urim", entry)),
            _full(b"stts", times),
            _full(b"stsc", struct.pack(">IIII", 1, 1, len(sizes), 1)),
            _full(b"stsz", struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes)),
            _full(b"co64", struct.pack(">IQ", 1, offset)),
        ]
    )
    reference = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))
    handler = bytes(4) + b"meta" + bytes(12) + b"VMTI\0"
    inner = _full(b"nmhd", b"") + reference + _box(b"stbl", table)
    mdia = _full(b"mdhd", media, version=1) + _full(b"hdlr", handler) + _box(b"minf", inner)
    # Enabled, in the movie.
    content = _full(b"tkhd", head, version=1, flags=3)
    content += _box(b"tref", _box(b"cdsc", struct.pack(">I", video)))
    return _box(b"trak", content + _box(b"mdia", mdia))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + content)
