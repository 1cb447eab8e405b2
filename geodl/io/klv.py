"""Detections and platform metadata of one video frame as MISB KLV.

The frame's packet is a UAS Datalink Local Set (MISB ST 0601) with the moving objects in its tag 74
(VMTI Local Set, MISB ST 0903).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LOCAL_SET_KEY = bytes.fromhex("060e2b34020b01010e01030101000000")
_ST0601_VERSION, _ST0903_VERSION = 17, 5
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Field:
    """How a number is packed: linearly from ``low..high`` onto all integers of its size.

    A signed field maps ``-high..high`` onto ``-(2**(n-1) - 1)..2**(n-1) - 1``.
    """

    tag: int
    size: int
    low: float
    high: float
    signed: bool = False

    def pack(self, value: float) -> bytes | None:
        """The bytes, or None outside the range."""
        if not self.low <= value <= self.high:
            return None
        if self.signed:
            most = 2 ** (8 * self.size - 1) - 1
            return round(value / self.high * most).to_bytes(self.size, "big", signed=True)
        most = 2 ** (8 * self.size) - 1
        whole = round((value - self.low) / (self.high - self.low) * most)
        return whole.to_bytes(self.size, "big")


# The fields that place a frame on the ground, by their names in ST 0601.
FIELDS: Mapping[str, _Field] = {
    "Platform Heading Angle": _Field(5, 2, 0, 360),
    "Platform Pitch Angle": _Field(6, 2, -20, 20, signed=True),
    "Platform Roll Angle": _Field(7, 2, -50, 50, signed=True),
    "Sensor Latitude": _Field(13, 4, -90, 90, signed=True),
    "Sensor Longitude": _Field(14, 4, -180, 180, signed=True),
    "Sensor True Altitude": _Field(15, 2, -900, 19000),
    "Sensor Horizontal Field of View": _Field(16, 2, 0, 180),
    "Sensor Vertical Field of View": _Field(17, 2, 0, 180),
    "Sensor Relative Azimuth Angle": _Field(18, 4, 0, 360),
    "Sensor Relative Elevation Angle": _Field(19, 4, -180, 180, signed=True),
    "Sensor Relative Roll Angle": _Field(20, 4, 0, 360),
}
TIME_STAMP = "Precision Time Stamp"


def frame_packet(
    number: int,
    seconds: float,
    boxes: np.ndarray,
    scores: np.ndarray,
    numbers: Sequence[int],
    size_xy: tuple[int, int],
    said: Mapping[str, str],
) -> bytes:
    """The KLV packet of one frame.

    Parameters
    ----------
    number
        Of the frame, from 0.
    seconds
        Its time in the video; the time stamp where ``said`` has none.
    boxes, scores, numbers
        (N, 4) x0, y0, x1, y1 px; 0..1; numbers of the objects.
    size_xy
        Width and height of the frame, px.
    said
        The frame's row in a csv file: ``Precision Time Stamp`` (microseconds since 1970) and the
        names of ``FIELDS``, in any spelling of upper and lower case; others play no part.
    """
    row = {name.strip().casefold(): text for name, text in said.items()}
    stamp = _number(row.get(TIME_STAMP.casefold()))
    micro = round(seconds * _MICROSECONDS) if stamp is None or stamp < 0 else int(stamp)
    content = _item(2, micro.to_bytes(8, "big"))
    for name, field in FIELDS.items():
        value = _number(row.get(name.casefold()))
        packed = None if value is None else field.pack(value)
        if packed is not None:
            content += _item(field.tag, packed)
    content += _item(65, bytes([_ST0601_VERSION]))
    content += _item(74, _vmti(number, boxes, scores, numbers, size_xy))
    packet = LOCAL_SET_KEY + _length(len(content) + 4) + content + b"\x01\x02"
    return packet + checksum(packet).to_bytes(2, "big")


def checksum(data: bytes) -> int:
    """Sum of 16-bit words of all that comes before it (ST 0601)."""
    padded = data + b"\0" * (len(data) % 2)
    return int(np.frombuffer(padded, ">u2").sum(dtype=np.uint64)) & 0xFFFF


def _vmti(
    number: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    numbers: Sequence[int],
    size_xy: tuple[int, int],
) -> bytes:
    width, height = size_xy
    count = _unsigned(len(boxes))
    content = _item(4, bytes([_ST0903_VERSION])) + _item(5, count) + _item(6, count)
    content += _item(7, _unsigned(number + 1))
    content += _item(8, _unsigned(width)) + _item(9, _unsigned(height))
    series = b""
    corners = np.floor(boxes).clip(0, [width - 1, height - 1] * 2).astype(np.int64)
    for (x0, y0, x1, y1), score, target in zip(
        corners.tolist(), scores.tolist(), numbers, strict=True
    ):
        # Pixels are counted from 1, row by row.
        places = ((x0 + x1) // 2, (y0 + y1) // 2), (x0, y0), (x1, y1)
        pack = _oid(target)
        for tag, (x, y) in enumerate(places, start=1):
            pack += _item(tag, _unsigned(y * width + x + 1))
        pack += _item(5, bytes([round(min(max(score, 0.0), 1.0) * 100)]))
        series += _length(len(pack)) + pack
    return content + _item(101, series) if series else content


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else float("nan")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _item(tag: int, value: bytes) -> bytes:
    return bytes([tag]) + _length(len(value)) + value


def _length(count: int) -> bytes:
    """A length as BER has it: one byte below 128, else the number of bytes first."""
    if count < 128:
        return bytes([count])
    content = _unsigned(count)
    return bytes([0x80 | len(content)]) + content


def _oid(value: int) -> bytes:
    """A number as BER-OID has it: seven bits to the byte."""
    content = bytes([value & 0x7F])
    while value := value >> 7:
        content = bytes([0x80 | (value & 0x7F)]) + content
    return content


def _unsigned(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
