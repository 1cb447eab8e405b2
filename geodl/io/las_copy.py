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
from geodl.io.copc import COPC_HIERARCHY, COPC_INFO, moved_hierarchy, read_octree
from geodl.io.las_file import LasFile, read_bytes
from geodl.io.las_layout import WAVEFORM_FORMATS
from geodl.io.las_records import ExtraColumn, laszip_record, records_of_copy
from geodl.io.laz_chunks import panics_named
from geodl.io.staging import staged

_CHUNKS_AT_ONCE = 20
# Of the position of the root page, in the data of the COPC information.
_ROOT_OFFSET = 40
_EXTERNAL_WAVEFORMS = 0b100
_COPY_BYTES = 2**24

Change = Callable[[np.ndarray, int], np.ndarray]
"""``(records uint8 (N, bytes), number of the first)`` to records of the copy, uint8 (N, more)."""


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
        ``.las`` or ``.laz``. A COPC file stays one where the name ends in ``.copc.laz``; else it
        becomes a plain file of the same points and order.
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
    with staged(target) as place, open(place, "w+b") as out:
        out.write(copy.head)
        copy.write(out, change, watch)
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
    octree: bool

    @classmethod
    def plan(cls, file: LasFile, target: Path, extra: Sequence[ExtraColumn]) -> _Copy:
        layout = file.layout
        packed = target.suffix.lower() == ".laz"
        added = sum(column.dtype.itemsize for column in extra)
        octree = target.name.lower().endswith(".copc.laz")
        if octree and read_octree(layout) is None:
            raise NotSupportedError(
                f"{file.name} has no octree; a .copc.laz is written from a COPC file only. Name "
                "the output .laz."
            )
        laszip = laszip_record(file, added, variable=octree) if packed else b""
        length = layout.record_length + added
        vlrs = records_of_copy(file, laszip, extra, octree=octree)
        gap = layout.head[layout.vlrs[-1].stop if layout.vlrs else layout.header_size :]
        start = layout.header_size + sum(map(len, vlrs)) + len(gap)
        header = bytearray(layout.head[: layout.header_size])
        struct.pack_into("<II", header, 96, start, len(vlrs))
        struct.pack_into("<BH", header, 104, layout.format_id | (0x80 if packed else 0), length)
        kept = [e for e in layout.evlrs if octree or not e.named(*COPC_HIERARCHY)]
        tail = [(e.start, e.stop - e.start) for e in kept]
        inside = any(e.start <= layout.waveform_start < e.stop for e in kept)
        if layout.waveform_start and not inside:
            # LAS 1.3 has waveform packets behind the points that no list of records names.
            tail.insert(0, (layout.waveform_start, layout.size - layout.waveform_start))
        end = layout.data_start + layout.count * layout.record_length
        if not (tail or packed or layout.compressed) and layout.size > end:
            # What some programs append names nobody, but it is the file's.
            tail.append((end, layout.size - end))
        return cls(
            file=file,
            head=bytes(header) + b"".join(vlrs) + gap,
            laszip=laszip,
            record_length=length,
            tail=tuple(tail),
            evlr_count=len(kept),
            octree=octree,
        )

    def write(self, out: BinaryIO, change: Change, watch: Any) -> None:
        """Write the points behind the head."""
        if self.octree:
            self.write_nodes(out, change, watch)
        elif self.laszip:
            self.write_packed(out, change, watch)
        else:
            self.write_plain(out, change, watch)

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

        if self.octree:
            self._settle_octree(out, places)

    def _settle_octree(self, out: BinaryIO, places: dict[int, tuple[int, int]]) -> None:
        """Let the octree point to the copy's chunks and to its own pages."""
        layout, table = self.file.layout, self.file.table
        info = layout.find(*COPC_INFO)
        hierarchy = next((e for e in layout.evlrs if e.named(*COPC_HIERARCHY)), None)
        if table is None or info is None or hierarchy is None:
            raise NotSupportedError(f"{self.file.name} has no octree behind its points.")
        shift = places[hierarchy.start][0] - hierarchy.start
        lengths = _chunk_lengths(out, len(self.head), self.laszip)
        offsets = len(self.head) + 8 + np.cumsum(lengths) - lengths
        new = zip(offsets.tolist(), lengths.tolist(), strict=True)
        chunks = dict(zip(table.offsets.tolist(), new, strict=True))
        start = hierarchy.start + hierarchy.head
        data = read_bytes(self.file.location, start, hierarchy.length)
        out.seek(start + shift)
        out.write(moved_hierarchy(data, chunks, shift))
        place = info.start + info.head + _ROOT_OFFSET
        (root,) = struct.unpack_from("<Q", layout.head, place)
        out.seek(place)
        out.write(struct.pack("<Q", root + shift))

    def write_nodes(self, out: BinaryIO, change: Change, watch: Any) -> None:
        """Points as the file's own chunks: each is a node of the octree."""
        lazrs = require("lazrs", "points")
        compressor = lazrs.ParLasZipCompressor(out, lazrs.LazVlr(self.laszip))
        table = self.file.table
        for part in self.file.parts(0):
            records = change(self.file.read_raw(part), part.first)
            stops: Any = [] if table is None else np.cumsum(table.counts[slice(*part.chunks)])[:-1]
            nodes = [np.ascontiguousarray(n).reshape(-1) for n in np.split(records, stops)]
            with panics_named(self.file.name, "its points"):
                compressor.compress_chunks(nodes)
            if watch is not None:
                watch(part.first + part.count)
        compressor.done()
        out.seek(0, os.SEEK_END)

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


def _chunk_lengths(out: BinaryIO, start: int, laszip: bytes) -> np.ndarray:
    """int64 (M,): bytes of the chunks that were just written."""
    lazrs = require("lazrs", "points")
    out.flush()
    with open(out.name, "rb") as written:
        written.seek(start)
        entries = lazrs.read_chunk_table(written, lazrs.LazVlr(laszip))
    return np.array([length for _, length in entries], np.int64)


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
