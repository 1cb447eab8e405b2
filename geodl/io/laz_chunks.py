"""The compressed points of a LAZ file: its chunk table, and decoding that cannot run away.

lazrs decodes; it trusts lengths that it finds, and reports what it did not expect by a panic,
which is no ``Exception`` in Python. Lengths are checked here first, and panics become errors.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import GeodlError, SourceError
from geodl.base.packages import require
from geodl.io.las_layout import LasLayout, ReadBytes, broken

LASZIP_VLR = (b"laszip encoded", 22204)
# Compressors of the LASzip specification that work in chunks: older and layered ones.
_CHUNKED = (2, 3)
_VARIABLE = 2**32 - 1
# LASzip's items of the layered compressor, with the number of layers that each has in a chunk.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
_BYTE14 = 14
# Real clouds shrink to between a third and a twentieth.
_MOST_RATIO = 100
# Points that one chunk holds; the compressor's default is 50,000.
_MOST_CHUNK_POINTS = 2**24
# Larger than any file, small enough to be added up.
_ABSURD = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTable:
    """Where the chunks of a LAZ file lie.

    Parameters
    ----------
    laszip
        Data of the LASzip record, which says how points are compressed.
    counts, offsets, lengths
        int64 (M,): points, first byte in the file, and bytes of each chunk.
    layers
        Layers of a chunk; 0 for the older compressor.
    doubts
        What is odd, though it breaks no rule: reasons to try decoding in another process first.
    """

    laszip: bytes
    counts: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    layers: int
    doubts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> np.ndarray:
        """int64 (M,): number of the first point of each chunk."""
        return np.cumsum(self.counts) - self.counts


@contextmanager
def panics_named(where: str, what: str) -> Iterator[None]:
    """Errors and panics of the decoder as one error that names the file.

    Raises
    ------
    SourceError
        In place of whatever the decoder raised.
    """
    try:
        yield
    except BaseException as error:
        name = type(error).__name__
        expected = isinstance(error, (RuntimeError, ValueError, OSError))
        if isinstance(error, GeodlError) or not (expected or name == "PanicException"):
            raise
        raise SourceError(
            f"{where}: {what} cannot be decoded ({' '.join(str(error).split()) or name}); the file "
            "is damaged. Copy or export it again."
        ) from None


def read_chunk_table(layout: LasLayout, read: ReadBytes, where: str) -> ChunkTable:
    """The chunk table of a compressed file.

    Raises
    ------
    SourceError
        The file has none, or one that it cannot hold.
    """
    place = layout.find(*LASZIP_VLR)
    if place is None:
        raise broken(where, "it is said to be compressed but has no LASzip record")
    laszip = layout.data_of(place)
    layers, variable, doubts = _read_laszip(laszip, layout, where)
    if layout.count == 0:
        none = np.zeros(0, np.int64)
        return ChunkTable(
            laszip=laszip, counts=none, offsets=none, lengths=none, layers=layers, doubts=()
        )
    start, number, table = _find_table(layout, read, where)
    room = start - layout.data_start - 8
    if number == 0 or number > room:
        raise broken(where, f"{number} chunks are said to lie in {room} bytes")
    size = struct.unpack("<I", laszip[12:16])[0]
    needed = number if variable else -(-layout.count // size) if size else 0
    if not 0 < needed <= number:
        raise broken(where, f"{layout.count} points in chunks of {size} are said to be {number}")
    lazrs = require("lazrs", "points")
    with panics_named(where, "the chunk table"):
        entries = lazrs.read_chunk_table_only(io.BytesIO(table), lazrs.LazVlr(laszip))
    # Some writers close with an empty chunk.
    bounded = [(min(count, _ABSURD), min(length, _ABSURD)) for count, length in entries[:needed]]
    counts, lengths = np.array(bounded, np.int64).reshape(-1, 2).T.copy()
    if not variable:
        counts[:] = size
        counts[-1] = layout.count - size * (needed - 1)
    _check_table(layout, counts, lengths, room, where)
    if layout.count * layout.record_length > _MOST_RATIO * max(1, room):
        doubts.append(f"{layout.count} points are said to be packed into {room} bytes")
    if lengths.sum() != room:
        doubts.append(f"its chunks take {lengths.sum()} of {room} bytes")
    if counts.max() > _MOST_CHUNK_POINTS:
        doubts.append(f"one chunk is said to hold {counts.max()} points")
    offsets = layout.data_start + 8 + np.cumsum(lengths) - lengths
    return ChunkTable(
        laszip=laszip,
        counts=counts,
        offsets=offsets,
        lengths=lengths,
        layers=layers,
        doubts=tuple(doubts),
    )


def _check_table(
    layout: LasLayout, counts: np.ndarray, lengths: np.ndarray, room: int, where: str
) -> None:
    if (lengths <= 0).any() or (counts <= 0).any() or lengths.sum() > room:
        raise broken(where, f"its chunk table adds up to {lengths.sum()} bytes of {room}")
    if counts.sum() != layout.count:
        raise broken(
            where, f"its chunks hold {counts.sum()} points, its header counts {layout.count}"
        )
    # A chunk begins with one whole record.
    if (lengths < layout.record_length).any():
        raise broken(where, f"a chunk has {lengths.min()} bytes, less than one point")


def _read_laszip(data: bytes, layout: LasLayout, where: str) -> tuple[int, bool, list[str]]:
    """Layers of a chunk, whether chunks differ in points, and what is odd."""
    if len(data) < 34:
        raise broken(where, f"its LASzip record has {len(data)} bytes")
    compressor, coder = struct.unpack("<HH", data[:4])
    (items,) = struct.unpack("<H", data[32:34])
    if compressor not in _CHUNKED:
        raise SourceError(
            f"{where} was packed by a LASzip of before 2011 without chunks (compressor "
            f"{compressor}), which the decoder does not know; unpack it with LASzip or PDAL once."
        )
    if len(data) < 34 + 6 * items or not items:
        raise broken(where, f"its LASzip record lists {items} items in {len(data)} bytes")
    numbers = struct.unpack(f"<{3 * items}H", data[34 : 34 + 6 * items])
    kinds, sizes = numbers[0::3], numbers[1::3]
    if sum(sizes) != layout.record_length:
        raise broken(
            where,
            f"its LASzip record describes points of {sum(sizes)} bytes, its header of "
            f"{layout.record_length}",
        )
    layers = 0
    if compressor == 3:
        layers = sum(
            size if kind == _BYTE14 else _LAYERS.get(kind, 0)
            for kind, size in zip(kinds, sizes, strict=True)
        )
    doubts = [] if coder == 0 else [f"its LASzip record names the coder {coder}"]
    return layers, struct.unpack("<I", data[12:16])[0] == _VARIABLE, doubts


def _find_table(layout: LasLayout, read: ReadBytes, where: str) -> tuple[int, int, bytes]:
    """Where the table begins, how many chunks it lists, and its bytes."""
    room = layout.size - layout.data_start
    if room < 24:
        raise broken(where, f"its points take {room} bytes")
    (start,) = struct.unpack("<q", read(layout.data_start, 8))
    if start == -1:
        # Written by a program that could not go back: the offset stands at the end.
        (start,) = struct.unpack("<q", read(layout.size - 8, 8))
    if not layout.data_start + 8 < start <= layout.size - 8:
        raise broken(where, f"its chunk table is said to lie at byte {start} of {layout.size}")
    stop = min([layout.size, *(e.start for e in layout.evlrs if e.start > start)])
    table = read(start, stop - start) if stop - start < 2**28 else b""
    if len(table) < 8:
        raise broken(where, "its chunk table is cut off")
    return start, struct.unpack("<I", table[4:8])[0], table


def decode_chunks(
    packed: bytes, table: ChunkTable, chunks: Sequence[int], record_length: int, where: str
) -> np.ndarray:
    """Points of consecutive chunks.

    Parameters
    ----------
    packed
        The bytes of the chunks, one after another.
    chunks
        Their numbers, for checks and messages.

    Returns
    -------
    uint8 (N, record_length)

    Raises
    ------
    SourceError
        Damaged chunks; names the file and the first point.
    """
    lazrs = require("lazrs", "points")
    counts, lengths = table.counts[list(chunks)], table.lengths[list(chunks)]
    what = f"the points from number {table.starts[chunks[0]]} on"
    if len(packed) != lengths.sum():
        raise broken(where, f"{what} are cut off")
    if table.layers:
        _check_layers(packed, table.layers, counts, lengths, record_length, f"{where}: {what}")
    points = np.empty((int(counts.sum()), record_length), np.uint8)
    entries: list[Any] = list(zip(counts.tolist(), lengths.tolist(), strict=True))
    with panics_named(where, what):
        # One call for many chunks: lazrs decodes them on all cores.
        lazrs.decompress_points_with_chunk_table(packed, table.laszip, points.reshape(-1), entries)
    return points


def _check_layers(
    packed: bytes,
    layers: int,
    counts: np.ndarray,
    lengths: np.ndarray,
    record_length: int,
    what: str,
) -> None:
    """Hold the layers of each chunk to its size: the decoder makes room for what they state."""
    head = record_length + 4 + 4 * layers
    start = 0
    for count, length in zip(counts.tolist(), lengths.tolist(), strict=True):
        if length < head:
            raise broken(what, f"a chunk has {length} bytes, its layers need {head}")
        numbers = np.frombuffer(packed, "<u4", layers + 1, start + record_length)
        if numbers[0] != count or int(numbers[1:].sum(dtype=np.int64)) > length - head:
            raise broken(what, f"the layers of a chunk do not fit into its {length} bytes")
        start += length
