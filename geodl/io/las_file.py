"""One LAS, LAZ or COPC file: its facts, and its points by parts."""

from __future__ import annotations

import functools
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np

from geodl.base.errors import DataWarning, SourceError, SourceNotFoundError
from geodl.base.files import sha256_json
from geodl.base.packages import require
from geodl.core.points import Bounds
from geodl.io.las_layout import LasLayout, VlrPlace, read_layout
from geodl.io.las_trial import check_doubts
from geodl.io.laz_chunks import ChunkTable, decode_chunks, panics_named, read_chunk_table
from geodl.io.locations import Location, stamp_files, stamp_remote

PART_POINTS = 1_000_000
"""Points that are decoded at once: 20 chunks of the usual 50,000, thus work for some cores."""
_WKT_VLR = (b"LASF_Projection", 2112)
_MOST_WKT_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPart:
    """Consecutive points of one file.

    Parameters
    ----------
    source
        Number of the file in its cloud.
    first, count
        Points, by their place in the file.
    chunks
        First chunk and the one behind the last; (0, 0) in files that are not compressed.
    whole
        All points belong to the cloud, whatever its bounds are.
    """

    source: int
    first: int
    count: int
    chunks: tuple[int, int] = (0, 0)
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class LasFile:
    """A file that was found sound. Picklable; holds no open handle.

    Parameters
    ----------
    stamp
        JSON that changes when the file may have changed.
    point_format
        laspy's, which knows the dimensions of a record.
    crs
        WKT as the file states it, or None.
    facts
        The header for people, JSON values.
    """

    location: Location
    stamp: Any
    layout: LasLayout
    table: ChunkTable | None = field(repr=False)
    point_format: Any
    crs: str | None
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.location.text

    @property
    def count(self) -> int:
        return self.layout.count

    @functools.cached_property
    def bounds(self) -> Bounds:
        """By the header; where that names no area, by the points, which are read for it."""
        low, high = np.array(self.layout.mins[:2]), np.array(self.layout.maxs[:2])
        sound = np.isfinite([*low, *high]).all() and (low <= high).all() and (low < high).any()
        if not sound and self.count:
            # Some writers leave the fields as they were before the first point.
            ends = [(xy.min(axis=0), xy.max(axis=0)) for xy in self._places()]
            low, high = np.min([e[0] for e in ends], axis=0), np.max([e[1] for e in ends], axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def _places(self) -> Iterator[np.ndarray]:
        """float64 (N, 2) of each part: x and y."""
        for part in self.parts(0):
            yield self.xyz(self.read(part))[:, :2]

    @property
    def dimensions(self) -> list[str]:
        """laspy's names without the raw X, Y and Z."""
        names = list(self.point_format.dimension_names)
        return [name for name in names if name not in ("X", "Y", "Z")]

    @functools.cached_property
    def record_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.point_format.dtype())

    def parts(
        self, source: int, chunks: Sequence[int] | None = None, points: int = PART_POINTS
    ) -> list[PointPart]:
        """The file, or some of its chunks, in parts of about ``points`` points.

        Parameters
        ----------
        chunks
            Numbers, ascending; None takes all.
        """
        if self.table is None:
            steps = range(0, self.count, points)
            return [
                PointPart(source=source, first=a, count=min(points, self.count - a)) for a in steps
            ]
        starts, counts = self.table.starts, self.table.counts
        parts: list[PointPart] = []
        for chunk in range(len(counts)) if chunks is None else chunks:
            last = parts[-1] if parts else None
            count = int(counts[chunk])
            if last and last.chunks[1] == chunk and last.count + count <= max(points, count):
                parts[-1] = PointPart(
                    source=source,
                    first=last.first,
                    count=last.count + count,
                    chunks=(last.chunks[0], chunk + 1),
                )
            else:
                parts.append(
                    PointPart(
                        source=source,
                        first=int(starts[chunk]),
                        count=count,
                        chunks=(chunk, chunk + 1),
                    )
                )
        return parts

    def read_raw(self, part: PointPart) -> np.ndarray:
        """uint8 (N, record length): the records of a part.

        Raises
        ------
        SourceError
            Cut off, damaged, changed or out of reach; names the file.
        """
        if self.location.kind == "local" and _size(self.location) != self.layout.size:
            raise SourceError(f"{self.name} has changed since it was opened; open it again.")
        length = self.layout.record_length
        if self.table is None:
            start = self.layout.data_start + part.first * length
            data = read_bytes(self.location, start, part.count * length)
            if len(data) < part.count * length:
                raise SourceError(f"{self.name} ends inside its points; copy it again.")
            return np.frombuffer(data, np.uint8).reshape(-1, length)
        first, stop = part.chunks
        start = int(self.table.offsets[first])
        size = int(self.table.lengths[first:stop].sum())
        packed = read_bytes(self.location, start, size)
        return decode_chunks(packed, self.table, range(first, stop), length, self.name)

    def read(self, part: PointPart) -> np.ndarray:
        """(N,) records with laspy's packed fields."""
        raw = self.read_raw(part)
        return np.ascontiguousarray(raw).view(self.record_dtype).reshape(-1)

    def xyz(self, records: np.ndarray) -> np.ndarray:
        """float64 (N, 3) of packed records."""
        found = np.empty((len(records), 3))
        for axis, name in enumerate("XYZ"):
            np.multiply(records[name], self.layout.scales[axis], out=found[:, axis])
            found[:, axis] += self.layout.offsets[axis]
        return found

    def values(self, records: np.ndarray, name: str) -> np.ndarray:
        """(N,) or (N, columns) of a dimension, scaled where it is an extra one with a scale."""
        if name in ("x", "y", "z"):
            axis = "xyz".index(name)
            return records[name.upper()] * self.layout.scales[axis] + self.layout.offsets[axis]
        record = require("laspy", "points").point.record
        packed = record.PackedPointRecord(records, self.point_format)
        return np.array(packed[name])

    def identity(self) -> Any:
        """JSON that changes when the content may have changed; no path."""
        return self.stamp


def read_bytes(location: Location, start: int, length: int) -> bytes:
    """A range of a file; shorter at its end.

    Raises
    ------
    SourceNotFoundError, SourceError
        Gone, or out of reach.
    """
    try:
        if location.kind == "local":
            with open(location.text, "rb", buffering=0) as file:
                return _pread(file.fileno(), start, length)
        system, path = _file_system(location.text)
        data: bytes = system.cat_file(path, start=start, end=start + length)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {location.text}; check the path.") from error
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{location.text} cannot be read: {error}") from error
    if len(data) > length:
        raise SourceError(
            f"{location.text}: the server gave {len(data)} bytes where {length} were asked for; it "
            "does not know range requests. Download the file, or serve it by another program."
        )
    return data


def _pread(handle: int, start: int, length: int) -> bytes:
    """One call of the system reads 2 GiB at most."""
    parts = []
    while length > 0:
        part = os.pread(handle, length, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@functools.lru_cache(maxsize=64)
def _file_system(text: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(text)


def _size(location: Location) -> int:
    try:
        if location.kind == "local":
            return os.stat(location.text).st_size
        system, path = _file_system(location.text)
        size = system.info(path).get("size")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {location.text}; check the path.") from error
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{location.text} cannot be read: {error}") from error
    if not isinstance(size, int):
        raise SourceError(f"{location.text}: the server does not tell its size; download the file.")
    return size


def open_las(location: Location, *, trusted: bool = False) -> LasFile:
    """Read and check what a file's header says; no point is decoded unless something is odd.

    Parameters
    ----------
    trusted
        Do not try odd files in another process first: this is that process.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is no such file, or it is no sound LAS or LAZ file; says what is wrong.
    MissingPackageError
        laspy is not installed.
    """
    where = location.text
    laspy = require("laspy", "points")
    read = functools.partial(read_bytes, location)
    layout = read_layout(read, _size(location), where)
    table = read_chunk_table(layout, read, where) if layout.compressed else None
    with panics_named(where, "the header"), _quiet_laspy():
        try:
            header = laspy.LasHeader.read_from(io.BytesIO(layout.head))
        except (laspy.errors.LaspyException, KeyError, IndexError, TypeError) as error:
            raise SourceError(f"{where} has a header that cannot be read ({error}).") from error
    size = int(np.dtype(header.point_format.dtype()).itemsize)
    if size != layout.record_length:
        raise SourceError(
            f"{where}: its extra bytes are described as {size} bytes a point, its records have "
            f"{layout.record_length}."
        )
    stamp = stamp_files([where])[0] if location.kind == "local" else stamp_remote(location)
    found = LasFile(
        location=location,
        stamp=stamp,
        layout=layout,
        table=table,
        point_format=header.point_format,
        crs=_crs(header, layout, read, where),
        facts=_facts(header, layout),
    )
    if table is not None and table.doubts and not trusted:
        check_doubts(where, sha256_json(stamp), table.doubts, layout.size)
    return found


class _quiet_laspy:
    """laspy logs what it repairs; our own checks say what matters."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("laspy")
        self._before = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._before)


def _crs(header: Any, layout: LasLayout, read: Any, where: str) -> str | None:
    """WKT from the records, WKT before GeoTIFF keys; None where none is stated or readable."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError, ProjError

    late = [e for e in layout.evlrs if e.named(*_WKT_VLR) and e.length <= _MOST_WKT_BYTES]
    try:
        crs = header.parse_crs()
        if crs is None and late:
            crs = CRS.from_wkt(_text(read, late[0]))
    except (CRSError, ProjError, ValueError, UnicodeDecodeError) as error:
        warnings.warn(
            f"{where} states a CRS that PROJ cannot read ({' '.join(str(error).split())[:160]}); "
            "it is taken as one without CRS.",
            DataWarning,
            stacklevel=2,
        )
        return None
    return None if crs is None else str(crs.to_wkt())


def _text(read: Any, place: VlrPlace) -> str:
    data: bytes = read(place.start + place.head, place.length)
    return data.rstrip(b"\0").decode("utf-8")


def _facts(header: Any, layout: LasLayout) -> dict[str, Any]:
    def text(value: Any) -> str:
        return value.decode("latin-1") if isinstance(value, bytes) else str(value)

    date = header.creation_date
    return {
        "las_version": f"1.{layout.minor}",
        "point_format": layout.format_id,
        "compressed": layout.compressed,
        "point_count": layout.count,
        "record_length": layout.record_length,
        "scales": list(layout.scales),
        "offsets": list(layout.offsets),
        "mins": list(layout.mins),
        "maxs": list(layout.maxs),
        "points_by_return": [int(n) for n in header.number_of_points_by_return],
        "system_identifier": text(header.system_identifier),
        "generating_software": text(header.generating_software),
        "creation_date": None if date is None else date.isoformat(),
        "file_source_id": int(header.file_source_id),
        "global_encoding": int(header.global_encoding.value),
        "vlrs": [f"{v.user_id.decode('latin-1')}/{v.record_id}" for v in layout.vlrs],
        "evlrs": [f"{v.user_id.decode('latin-1')}/{v.record_id}" for v in layout.evlrs],
    }
