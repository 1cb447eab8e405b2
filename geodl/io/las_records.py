"""The records before the points of a copy: how they are packed, and what dimensions they have."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import NotSupportedError
from geodl.base.packages import require
from geodl.io.copc import COPC_INFO
from geodl.io.las_file import LasFile
from geodl.io.las_layout import VlrPlace
from geodl.io.laz_chunks import LASZIP_VLR, panics_named

EXTRA_BYTES_VLR = (b"LASF_Spec", 4)
_EXTRA_TYPES = {"u1": 1, "i1": 2, "u2": 3, "i2": 4, "u4": 5, "i4": 6, "u8": 7, "i8": 8,
                "f4": 9, "f8": 10}  # fmt: skip
_MOST_VLR_BYTES = 65535
_MOST_CHUNK_POINTS = 2**20


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


def laszip_record(file: LasFile, added: int, *, variable: bool) -> bytes:
    """The LASzip record of the copy; of the file's own chunk size where that is one number."""
    lazrs = require("lazrs", "points")
    layout = file.layout
    with panics_named(file.name, f"point format {layout.format_id}"):
        size = layout.extra_bytes + added
        new = lazrs.LazVlr.new_for_compression(layout.format_id, size, variable)
    data = bytearray(new.record_data())
    own = b"" if file.table is None else file.table.laszip
    if variable:
        return own if own[:2] == data[:2] and own[32:] == data[32:] else bytes(data)
    if own and 0 < struct.unpack("<I", own[12:16])[0] <= _MOST_CHUNK_POINTS:
        if own[:2] == data[:2] and own[32:] == data[32:]:
            return own
        data[12:16] = own[12:16]
    return bytes(data)


def _vlr(user_id: bytes, record_id: int, text: bytes, data: bytes) -> bytes:
    return struct.pack("<H16sHH32s", 0, user_id, record_id, len(data), text) + data


def records_of_copy(
    file: LasFile, laszip: bytes, extra: Sequence[ExtraColumn], *, octree: bool
) -> list[bytes]:
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
        elif place.named(*COPC_INFO) and not octree:
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
