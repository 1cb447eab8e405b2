"""What the bytes of a LAS or LAZ header say, checked against the size of the file.

Decoders trust headers: a wrong count or length makes them hang, exhaust memory or abort. Whatever
a header promises is held to the file's size here, before a decoder sees it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from geodl.base.errors import SourceError

ReadBytes = Callable[[int, int], bytes]
"""``(start, length)`` to bytes; fewer at the end of the file."""

HEADER_SIZES = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375}
"""Least size of the header by minor version of LAS 1."""
RECORD_SIZES = {0: 20, 1: 28, 2: 26, 3: 34, 4: 57, 5: 63, 6: 30, 7: 36, 8: 38, 9: 59, 10: 67}
"""Bytes of a point record by point format."""
WAVEFORM_FORMATS = frozenset({4, 5, 9, 10})

_VLR_HEAD, _EVLR_HEAD = 54, 60
# A header with its records is a few kilobytes; scanner logs reach some megabytes.
_MOST_HEAD_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VlrPlace:
    """A variable length record: who wrote it, and where its bytes lie in the file.

    Parameters
    ----------
    start, head, length
        Of the record, of its own header and of its data, in bytes.
    """

    user_id: bytes
    record_id: int
    start: int
    head: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.head + self.length

    def named(self, user_id: bytes, record_id: int) -> bool:
        return self.user_id == user_id and self.record_id == record_id


@dataclass(frozen=True, slots=True, kw_only=True)
class LasLayout:
    """The parts of a LAS or LAZ file, all inside the file.

    Parameters
    ----------
    size
        Of the file.
    minor
        LAS version 1.minor.
    data_start
        First byte of the points; ``head`` holds all bytes before.
    evlrs
        Extended records behind the points.
    waveform_start
        0 without waveform packets in the file.
    """

    size: int
    minor: int
    header_size: int
    data_start: int
    format_id: int
    compressed: bool
    record_length: int
    count: int
    scales: tuple[float, float, float]
    offsets: tuple[float, float, float]
    mins: tuple[float, float, float]
    maxs: tuple[float, float, float]
    vlrs: tuple[VlrPlace, ...]
    evlrs: tuple[VlrPlace, ...]
    evlr_start: int
    waveform_start: int
    head: bytes

    @property
    def extra_bytes(self) -> int:
        """Bytes of a record behind those of its format."""
        return self.record_length - RECORD_SIZES[self.format_id]

    @property
    def data_stop(self) -> int:
        """First byte that cannot belong to the points."""
        later = [p for p in (self.evlr_start, self.waveform_start) if p >= self.data_start]
        return min([*later, self.size])

    def find(self, user_id: bytes, record_id: int) -> VlrPlace | None:
        """The first such record before the points."""
        return next((v for v in self.vlrs if v.named(user_id, record_id)), None)

    def data_of(self, place: VlrPlace) -> bytes:
        """The data of a record before the points."""
        return self.head[place.start + place.head : place.stop]


def read_layout(read: ReadBytes, size: int, where: str) -> LasLayout:
    """Parse a header and hold it to the size of the file.

    Raises
    ------
    SourceError
        No LAS file, another version or point format, or lengths that the file cannot hold; says
        which, with both numbers.
    """
    start = read(0, 375)
    minor = _minor_version(start, where)
    header_size, data_start, vlr_count, raw_format, record_length, count = struct.unpack(
        "<HIIBHI", start[94:111]
    )
    least = HEADER_SIZES[minor]
    if header_size < least or len(start) < least:
        raise broken(where, f"its header states {header_size} bytes, LAS 1.{minor} has {least}")
    if not header_size <= data_start <= size:
        raise broken(where, f"points are said to begin at byte {data_start} of {size}")
    if data_start > _MOST_HEAD_BYTES:
        raise broken(where, f"its header is said to take {data_start} bytes")
    # Bit 7 marks compressed points; older writers set bit 6 as well.
    format_id = raw_format & 0x3F
    _check_format(format_id, record_length, where)
    waveform, evlr_start, evlr_count = 0, 0, 0
    if minor >= 3:
        (waveform,) = struct.unpack("<Q", start[227:235])
    if minor >= 4:
        evlr_start, evlr_count, count = struct.unpack("<QIQ", start[235:255])
    head = read(0, data_start)
    if len(head) < data_start:
        raise broken(where, f"it ends after {len(head)} bytes, inside its header")
    numbers = struct.unpack("<12d", start[131:227])
    _check_numbers(numbers, count, where)
    layout = LasLayout(
        size=size,
        minor=minor,
        header_size=header_size,
        data_start=data_start,
        format_id=format_id,
        compressed=bool(raw_format & 0x80),
        record_length=record_length,
        count=count,
        scales=(numbers[0], numbers[1], numbers[2]),
        offsets=(numbers[3], numbers[4], numbers[5]),
        maxs=(numbers[6], numbers[8], numbers[10]),
        mins=(numbers[7], numbers[9], numbers[11]),
        vlrs=_vlrs(head, header_size, vlr_count, where),
        evlrs=_evlrs(read, evlr_start, evlr_count, data_start, size, where),
        evlr_start=evlr_start if evlr_count else 0,
        waveform_start=waveform if data_start <= waveform < size else 0,
        head=head,
    )
    if not layout.compressed:
        _check_points(layout, where)
    return layout


def broken(where: str, reason: str) -> SourceError:
    """The error of a file that breaks its own promises."""
    return SourceError(f"{where} is damaged: {reason}. Copy or export the file again.")


def _minor_version(start: bytes, where: str) -> int:
    if start[:4] != b"LASF":
        raise SourceError(
            f"{where} is no LAS or LAZ file: it begins with {start[:4]!r} in place of b'LASF'."
        )
    if len(start) < 227:
        raise broken(where, f"its header is cut off after {len(start)} bytes")
    major, minor = start[24], start[25]
    if major != 1 or minor not in HEADER_SIZES:
        raise SourceError(
            f"{where} is LAS {major}.{minor}; LAS 1.0 to 1.4 are read. Convert it, for example "
            "with PDAL."
        )
    return minor


def _check_format(format_id: int, record_length: int, where: str) -> None:
    if format_id not in RECORD_SIZES:
        raise SourceError(f"{where} has the point format {format_id}; 0 to 10 are read.")
    if record_length < RECORD_SIZES[format_id]:
        raise broken(
            where,
            f"its records are said to have {record_length} bytes, point format {format_id} needs "
            f"{RECORD_SIZES[format_id]}",
        )


def _check_numbers(numbers: tuple[float, ...], count: int, where: str) -> None:
    scales, offsets = numbers[:3], numbers[3:6]
    if not all(math.isfinite(v) for v in (*scales, *offsets)):
        raise broken(where, f"scales {scales} and offsets {offsets} are not all finite")
    if count and not all(scales):
        raise broken(where, f"a scale is 0 ({scales}), which leaves no coordinates")


def _check_points(layout: LasLayout, where: str) -> None:
    held = (layout.data_stop - layout.data_start) // layout.record_length
    if layout.count > held:
        raise broken(
            where, f"its header counts {layout.count} points, there is room for {held} in the file"
        )


def _vlrs(head: bytes, start: int, count: int, where: str) -> tuple[VlrPlace, ...]:
    if count * _VLR_HEAD > len(head) - start:
        raise broken(
            where, f"{count} records are said to lie in {len(head) - start} bytes of its header"
        )
    places = []
    for number in range(count):
        if start + _VLR_HEAD > len(head):
            raise broken(where, f"record {number} of its header is cut off")
        user, record, length = struct.unpack("<16sHH", head[start + 2 : start + 22])
        place = VlrPlace(
            user_id=user.split(b"\0")[0],
            record_id=record,
            start=start,
            head=_VLR_HEAD,
            length=length,
        )
        if place.stop > len(head):
            raise broken(
                where, f"record {number} of its header ends {place.stop - len(head)} bytes too late"
            )
        places.append(place)
        start = place.stop
    return tuple(places)


def _evlrs(
    read: ReadBytes, start: int, count: int, data_start: int, size: int, where: str
) -> tuple[VlrPlace, ...]:
    if not count:
        return ()
    if start < data_start or start + count * _EVLR_HEAD > size:
        raise broken(where, f"{count} extended records are said to begin at byte {start} of {size}")
    places = []
    for number in range(count):
        head = read(start, _EVLR_HEAD)
        if len(head) < _EVLR_HEAD:
            raise broken(where, f"extended record {number} is cut off")
        user, record, length = struct.unpack("<16sHQ", head[2:28])
        if length > size - start - _EVLR_HEAD:
            raise broken(
                where, f"extended record {number} is said to hold {length} bytes, the file ends"
            )
        place = VlrPlace(
            user_id=user.split(b"\0")[0],
            record_id=record,
            start=start,
            head=_EVLR_HEAD,
            length=length,
        )
        places.append(place)
        start = place.stop
    return tuple(places)
