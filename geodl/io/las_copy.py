"""A copy of a LAS or LAZ file in which some values of its points differ, and nothing else does.

The copy is made of the file's own bytes: header fields, records and points are not parsed and
written anew but kept. Only what the change itself needs is set: positions of later parts, the
LASzip record, and the length and description of added dimensions.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geodl.base.errors import NotSupportedError, OutputError
from geodl.base.packages import require
from geodl.io.copc import COPC_HIERARCHY, COPC_INFO
from geodl.io.las_file import LasFile, read_bytes
from geodl.io.las_layout import WAVEFORM_FORMATS, VlrPlace
from geodl.io.laz_chunks import LASZIP_VLR, panics_named
from geodl.io.staging import staged

EXTRA_BYTES_VLR = (b"LASF_Spec", 4)
_EXTRA_TYPES = {"u1": 1, "i1": 2, "u2": 3, "i2": 4, "u4": 5, "i4": 6, "u8": 7, "i8": 8,
                "f4": 9, "f8": 10}  # fmt: skip
_MOST_VLR_BYTES = 65535
_CHUNKS_AT_ONCE = 20
_MOST_CHUNK_POINTS = 2**20
_EXTERNAL_WAVEFORMS = 0b100
_COPY_BYTES = 2**24

Change = Callable[[np.ndarray, int], np.ndarray]
"""``(records uint8 (N, bytes), number of the first)`` to records of the copy, uint8 (N, more)."""


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A dimension that the copy has besides the file's own.

    Parameters
    ----------
    name
        At most 32 bytes.
    dtype
        A plain number.
    """

    name: str
    dtype: np.dtype[Any]
    description: str = ""

    def record(self) -> bytes:
        """Its 192 bytes of the extra bytes record, LAS 1.4 table 24."""
        kind = _EXTRA_TYPES[self.dtype.str[1:]]
        name, text = self.name.encode()[:32], self.description.encode()[:32]
        return struct.pack("<2sBB32s4s24s24s24s24s24s32s", b"", kind, 0, name, *[b""] * 6, text)


def copy_cloud(
    file: LasFile,
    target: Path,
    change: Change,
    *,
    extra: Sequence[ExtraColumn] = (),
    watch: Callable[[int], None] | None = None,
) -> None:
    """Write a copy with changed points; it appears when it is whole.

    Parameters
    ----------
    target
        ``.las`` or ``.laz``. A COPC file becomes a plain LAZ file of the same points and order.
    change
        Called with consecutive records of the file, in order.
    extra
        Dimensions that ``change`` appends to each record.
    watch
        Called with the number of points written so far.

    Raises
    ------
    NotSupportedError
        Waveforms that the decoder cannot pack, dimensions that the file cannot take.
    OutputError
        The copy cannot be written.
    SourceError
        The file cannot be read.
    """
    copy = _Copy.plan(file, target, extra)
    with staged(target) as place, open(place, "wb") as out:
        out.write(copy.head)
        (copy.write_packed if copy.laszip else copy.write_plain)(out, change, watch)
        start = out.tell()
        for position, length in copy.tail:
            _copy_range(file, position, length, out)
        copy.settle(out, start)
    _copy_waveform_file(file, target)


def check_copy(file: LasFile, target: Path, extra: Sequence[ExtraColumn]) -> None:
    """Raise what :func:`copy_cloud` would raise before it writes, without writing."""
    _Copy.plan(file, target, extra)


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """Bytes of a copy that are known before its points.

    Parameters
    ----------
    head
        All bytes before the points; positions of later parts are still those of the file.
    laszip
        Data of the LASzip record; empty for LAS.
    tail
        Ranges of the file that follow the points.
    """

    file: LasFile
    head: bytes
    laszip: bytes
    record_length: int
    tail: tuple[tuple[int, int], ...]
    evlr_count: int

    @classmethod
    def plan(cls, file: LasFile, target: Path, extra: Sequence[ExtraColumn]) -> _Copy:
        layout = file.layout
        packed = target.suffix.lower() == ".laz"
        added = sum(column.dtype.itemsize for column in extra)
        laszip = _laszip(file, added) if packed else b""
        length = layout.record_length + added
        vlrs = _vlr_bytes(file, laszip, extra)
        gap = layout.head[layout.vlrs[-1].stop if layout.vlrs else layout.header_size :]
        start = layout.header_size + sum(map(len, vlrs)) + len(gap)
        header = bytearray(layout.head[: layout.header_size])
        struct.pack_into("<II", header, 96, start, len(vlrs))
        struct.pack_into("<BH", header, 104, layout.format_id | (0x80 if packed else 0), length)
        kept = [e for e in layout.evlrs if not e.named(*COPC_HIERARCHY)]
        tail = [(e.start, e.stop - e.start) for e in kept]
        inside = any(e.start <= layout.waveform_start < e.stop for e in kept)
        if layout.waveform_start and not inside:
            # LAS 1.3 has waveform packets behind the points that no list of records names.
            tail.insert(0, (layout.waveform_start, layout.size - layout.waveform_start))
        return cls(
            file=file,
            head=bytes(header) + b"".join(vlrs) + gap,
            laszip=laszip,
            record_length=length,
            tail=tuple(tail),
            evlr_count=len(kept),
        )

    def settle(self, out: BinaryIO, start: int) -> None:
        """Set the positions of the parts behind the points, which begin at ``start``."""
        layout = self.file.layout
        places = {}
        for position, length in self.tail:
            places[position] = (start, length)
            start += length
        if layout.minor >= 4 and layout.evlrs:
            first = next((e for e in layout.evlrs if e.start in places), None)
            out.seek(235)
            out.write(struct.pack("<QI", places[first.start][0] if first else 0, self.evlr_count))
        if layout.waveform_start:
            for position, (new, length) in places.items():
                if position <= layout.waveform_start < position + length:
                    out.seek(227)
                    out.write(struct.pack("<Q", new + layout.waveform_start - position))

    def write_plain(self, out: BinaryIO, change: Change, watch: Any) -> None:
        for first, records in self._records(change):
            out.write(np.ascontiguousarray(records).data)
            if watch is not None:
                watch(first + len(records))

    def write_packed(self, out: BinaryIO, change: Change, watch: Any) -> None:
        """Points as chunks, packed on all cores, and the chunk table behind them."""
        lazrs = require("lazrs", "points")
        vlr = lazrs.LazVlr(self.laszip)
        start = out.tell()
        out.write(struct.pack("<q", -1))
        chunks: list[tuple[int, int]] = []
        done = 0
        for records in _regrouped(self._records(change), vlr.chunk_size() * _CHUNKS_AT_ONCE):
            with panics_named(self.file.name, "its points"):
                packed = lazrs.compress_points(vlr, records.reshape(-1), True)
            (stop,) = struct.unpack("<q", packed[:8])
            table = lazrs.read_chunk_table_only(io.BytesIO(packed[stop:]), vlr)
            if self.file.layout.format_id in WAVEFORM_FORMATS:
                self._check_packed(packed[8:stop], table, records)
            out.write(memoryview(packed)[8:stop])
            chunks += [(min(vlr.chunk_size(), len(records)), length) for _, length in table]
            done += len(records)
            if watch is not None:
                watch(done)
        end = out.tell()
        lazrs.write_chunk_table(out, chunks, vlr)
        after = out.tell()
        out.seek(start)
        out.write(struct.pack("<q", end))
        out.seek(after)

    def _check_packed(self, packed: bytes, table: Any, records: np.ndarray) -> None:
        """lazrs 0.8 loses waveform fields of some records; found by unpacking what it packed."""
        lazrs = require("lazrs", "points")
        size = lazrs.LazVlr(self.laszip).chunk_size()
        counts = [min(size, len(records) - size * k) for k in range(len(table))]
        back = np.empty_like(records)
        entries = [(count, length) for count, (_, length) in zip(counts, table, strict=True)]
        lazrs.decompress_points_with_chunk_table(packed, self.laszip, back.reshape(-1), entries)
        if not np.array_equal(back, records):
            raise NotSupportedError(
                f"{self.file.name}: its waveform fields do not survive packing; write a .las file."
            )

    def _records(self, change: Change) -> Iterator[tuple[int, np.ndarray]]:
        for part in self.file.parts(0):
            yield part.first, change(self.file.read_raw(part), part.first)


def _regrouped(parts: Iterator[tuple[int, np.ndarray]], count: int) -> Iterator[np.ndarray]:
    """The same records in groups of ``count``, the last with what is left."""
    waiting: list[np.ndarray] = []
    held = 0
    for _, records in parts:
        waiting.append(records)
        held += len(records)
        while held >= count:
            whole = np.concatenate(waiting)
            yield np.ascontiguousarray(whole[:count])
            waiting, held = [whole[count:]], held - count
    if held:
        yield np.ascontiguousarray(np.concatenate(waiting))


def _laszip(file: LasFile, added: int) -> bytes:
    """The LASzip record of the copy; of the file's own chunk size where that is one number."""
    lazrs = require("lazrs", "points")
    layout = file.layout
    with panics_named(file.name, f"point format {layout.format_id}"):
        new = lazrs.LazVlr.new_for_compression(layout.format_id, layout.extra_bytes + added)
    data = bytearray(new.record_data())
    own = b"" if file.table is None else file.table.laszip
    if own and 0 < struct.unpack("<I", own[12:16])[0] <= _MOST_CHUNK_POINTS:
        if own[:2] == data[:2] and own[32:] == data[32:]:
            return own
        data[12:16] = own[12:16]
    return bytes(data)


def _vlr(user_id: bytes, record_id: int, text: bytes, data: bytes) -> bytes:
    return struct.pack("<H16sHH32s", 0, user_id, record_id, len(data), text) + data


def _vlr_bytes(file: LasFile, laszip: bytes, extra: Sequence[ExtraColumn]) -> list[bytes]:
    """Records before the points: the file's own, in their order, but those that describe packing
    and added dimensions."""
    layout = file.layout
    found = []
    described = False
    packed = _vlr(*LASZIP_VLR, b"lazrs", laszip) if laszip else b""
    for place in layout.vlrs:
        own = layout.head[place.start : place.stop]
        if place.named(*LASZIP_VLR):
            found.append(own if packed and layout.data_of(place) == laszip else packed)
            packed = b""
        elif place.named(*COPC_INFO):
            continue
        elif place.named(*EXTRA_BYTES_VLR) and extra and not described:
            described = True
            found.append(_described(file, place, extra))
        else:
            found.append(own)
    if extra and not described:
        data = _undescribed(layout.extra_bytes) + b"".join(c.record() for c in extra)
        found.append(_vlr(*EXTRA_BYTES_VLR, b"extra dimensions", data))
    return [record for record in [*found, packed] if record]


def _described(file: LasFile, place: VlrPlace, extra: Sequence[ExtraColumn]) -> bytes:
    """The file's own description of its extra bytes, and that of the added ones behind it."""
    layout = file.layout
    own = layout.data_of(place)
    listed = sum(np.dtype(d).itemsize for d in _extra_dtypes(own))
    if listed > layout.extra_bytes or len(own) % 192:
        raise NotSupportedError(
            f"{file.name} describes {listed} extra bytes a point and has {layout.extra_bytes}; "
            "added dimensions would be misread. Ask for the classes alone."
        )
    data = own + _undescribed(layout.extra_bytes - listed) + b"".join(c.record() for c in extra)
    if len(data) > _MOST_VLR_BYTES:
        raise NotSupportedError(f"{file.name} has no room for {len(extra)} more dimensions.")
    head = bytearray(layout.head[place.start : place.start + place.head])
    struct.pack_into("<H", head, 20, len(data))
    return bytes(head) + data


def _extra_dtypes(data: bytes) -> Iterator[Any]:
    """The dtype of each described dimension; types 11 to 30 are pairs and triples."""
    names = list(_EXTRA_TYPES)
    for start in range(0, len(data) - 191, 192):
        kind, options = data[start + 2], data[start + 3]
        if kind == 0:
            yield f"V{options}" if options else []
        elif kind <= 30:
            yield f"{(kind - 1) // 10 + 1}{names[(kind - 1) % 10]}"


def _undescribed(count: int) -> bytes:
    """Descriptions of bytes that nobody has described, which lie before added ones."""
    pieces = [min(255, count - start) for start in range(0, count, 255)]
    return b"".join(
        struct.pack("<2sBB32s156x", b"", 0, piece, f"undocumented_{k}".encode())
        for k, piece in enumerate(pieces)
    )


def _copy_range(file: LasFile, start: int, length: int, out: BinaryIO) -> None:
    for first in range(start, start + length, _COPY_BYTES):
        size = min(_COPY_BYTES, start + length - first)
        data = read_bytes(file.location, first, size)
        if len(data) != size:
            raise OutputError(f"{file.name} ends inside its records; copy it again.")
        out.write(data)


def _copy_waveform_file(file: LasFile, target: Path) -> None:
    """Waveforms in a file of their own are found by its name: the copy needs one too."""
    (encoding,) = struct.unpack("<H", file.layout.head[6:8])
    if not encoding & _EXTERNAL_WAVEFORMS or file.layout.format_id not in WAVEFORM_FORMATS:
        return
    own = None if file.location.local is None else file.location.local.with_suffix(".wdp")
    if own is not None and own.exists():
        beside = target.with_suffix(".wdp")
        if not (beside.exists() and os.path.samefile(own, beside)):
            shutil.copyfile(own, beside)


def with_values(
    records: np.ndarray,
    first: int,
    *,
    format_id: int,
    choose: Callable[[np.ndarray, int], tuple[np.ndarray, Sequence[np.ndarray]]],
) -> np.ndarray:
    """Records with other class codes and appended columns.

    Parameters
    ----------
    records
        uint8 (N, bytes).
    choose
        Takes the present codes uint8 (N,) and the number of the first point; gives the new codes
        and the columns to append, (N,) or (N, columns) each.

    Returns
    -------
    uint8 (N, bytes and those of the columns)
    """
    place, mask = (15, 0x1F) if format_id < 6 else (16, 0xFF)
    # Formats 0 to 5 keep three flags in the upper bits of the code's byte.
    present = records[:, place] & mask
    codes, columns = choose(present, first)
    flat = [np.ascontiguousarray(c).view(np.uint8).reshape(len(records), -1) for c in columns]
    changed = np.concatenate([records, *flat], axis=1)
    changed[:, place] = (records[:, place] & np.uint8(~mask & 0xFF)) | codes.astype(np.uint8)
    return changed


def most_code(format_id: int) -> int:
    """The greatest class code of a point format."""
    return 31 if format_id < 6 else 255
