"""A point cloud of one or more files: which points it has, and how they are read."""

from __future__ import annotations

import functools
import glob
import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from geodl.base.errors import DataWarning, OptionError, SourceError, SourceNotFoundError
from geodl.base.options import as_float
from geodl.core.points import Bounds
from geodl.io.copc import nodes_in, overlap, read_octree, within
from geodl.io.crs import crs_label, same_crs, transform_bounds, transformer, vertical_unit
from geodl.io.las_file import PART_POINTS, LasFile, PointPart, open_las, read_bytes
from geodl.io.locations import Location, locate
from geodl.io.manifest import manifest_path

SUFFIXES = (".las", ".laz")
_OTHERS = {
    ".e57": "E57", ".ply": "PLY", ".pcd": "PCD", ".xyz": "text", ".txt": "text", ".pts": "PTS",
    ".ept": "EPT",
}  # fmt: skip
# Those that are surely points: a folder may hold texts of any kind.
_SCANS = (".e57", ".pcd", ".pts", ".xyz")


@dataclass(frozen=True, slots=True)
class CloudPoints:
    """Points of one part that were asked for.

    Parameters
    ----------
    records
        (N,) packed records as in the file.
    index
        int64 (N,): their places in the file.
    xyz
        float64 (N, 3) in the cloud's CRS.
    """

    part: PointPart
    records: np.ndarray
    index: np.ndarray
    xyz: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Files that make one cloud. Picklable.

    Parameters
    ----------
    crs
        WKT of the first file that states one; x and y of others are brought there.
    bounds
        Closed bounds of the points that belong to it; None takes all.
    parts
        What must be read for them.
    counts
        Points inside the bounds in each part.
    part_points
        About how many points a part has.
    """

    files: tuple[LasFile, ...]
    crs: str | None
    bounds: Bounds | None
    parts: tuple[PointPart, ...]
    counts: tuple[int, ...]
    part_points: int = PART_POINTS

    @property
    def name(self) -> str:
        return self.files[0].name

    @property
    def count(self) -> int:
        return sum(self.counts)

    @functools.cached_property
    def extent(self) -> Bounds | None:
        """Bounds of all files with points by their headers, in the cloud's CRS, cut to bounds."""
        found = [_bounds_in(file, self.crs) for file in self.files if file.count]
        if not found:
            return None
        low, high = np.min(found, axis=0)[:2], np.max(found, axis=0)[2:]
        if self.bounds is not None:
            low, high = np.maximum(low, self.bounds[:2]), np.minimum(high, self.bounds[2:])
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def identity(self) -> dict[str, Any]:
        """JSON that changes when the points may have changed; no path."""
        files = [file.identity() for file in self.files]
        return {"files": files, "bounds": None if self.bounds is None else list(self.bounds)}

    def read(self, part: PointPart) -> CloudPoints:
        """The points of a part that lie inside the cloud's bounds. Raises SourceError."""
        file = self.files[part.source]
        records = file.read(part)
        xyz = file.xyz(records)
        index = np.arange(part.first, part.first + part.count, dtype=np.int64)
        _reproject(xyz, file, self.crs)
        if self.bounds is not None and not part.whole:
            keep = _closed(xyz, self.bounds)
            if not keep.all():
                records, index, xyz = records[keep], index[keep], xyz[keep]
        return CloudPoints(part, records, index, xyz)

    def field(self, points: CloudPoints, name: str) -> np.ndarray:
        """(N,) or (N, columns) of one of :attr:`fields`; x and y in the cloud's CRS.

        A dimension that the points' file lacks is 0, or NaN.
        """
        dtype, columns = self.fields[name]
        if name in ("x", "y", "z"):
            return np.ascontiguousarray(points.xyz[:, "xyz".index(name)])
        file = self.files[points.part.source]
        if name in file.dimensions:
            return file.values(points.records, name).astype(dtype, copy=False)
        shape = (len(points.index),) if columns is None else (len(points.index), columns)
        return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)

    @functools.cached_property
    def fields(self) -> dict[str, tuple[np.dtype[Any], int | None]]:
        """Dimension to dtype, and to columns where it has several; of all files together."""
        found: dict[str, tuple[np.dtype[Any], int | None]] = {
            name: (np.dtype(np.float64), None) for name in ("x", "y", "z")
        }
        for file in self.files:
            none = np.zeros(0, file.record_dtype)
            for name in file.dimensions:
                values = file.values(none, name)
                columns = values.shape[1] if values.ndim == 2 else None
                dtype, before = found.get(name, (values.dtype, columns))
                if before != columns:
                    raise SourceError(
                        f"{file.name}: {name!r} has {columns or 1} columns, in other files of the "
                        f"cloud {before or 1}; open the files one by one."
                    )
                found[name] = (np.result_type(dtype, values.dtype), columns)
        return found

    def in_bounds(self, bounds: Bounds) -> Cloud:
        """The part of the cloud inside closed bounds; reads what is needed to count its points."""
        if self.bounds is not None:
            low, high = np.maximum(bounds, self.bounds)[:2], np.minimum(bounds, self.bounds)[2:]
            bounds = float(low[0]), float(low[1]), float(high[0]), float(high[1])
        cut = replace(self, bounds=bounds)
        parts: list[PointPart] = []
        counts: list[int] = []
        for source, file in enumerate(self.files):
            for part in _parts_in(file, source, bounds, self.crs, self.part_points):
                count = part.count if part.whole else len(cut.read(part).index)
                if count:
                    parts.append(part)
                    counts.append(count)
        return replace(cut, parts=tuple(parts), counts=tuple(counts))


def open_cloud(
    source: Any, *, bounds: Sequence[float] | None = None, part_points: int = PART_POINTS
) -> Cloud:
    """Open files, folders, or lists of both. Headers are read, and for bounds what they need.

    Raises
    ------
    SourceNotFoundError, SourceError
        Nothing there, or a file that is no sound LAS or LAZ; names it.
    OptionError
        Bounds that are none.
    """
    area = None if bounds is None else as_bounds(bounds)
    files = tuple(open_las(location) for location in cloud_locations(source))
    crs = next((file.crs for file in files if file.crs is not None), None)
    if crs is not None:
        _warn_of_others(files, crs)
    parts = tuple(p for k, file in enumerate(files) for p in file.parts(k, points=part_points))
    cloud = Cloud(
        files=files,
        crs=crs,
        bounds=None,
        parts=parts,
        counts=tuple(p.count for p in parts),
        part_points=part_points,
    )
    return cloud if area is None else cloud.in_bounds(area)


def warn_of_degrees(crs: str | None, name: str, block_size: float) -> None:
    """Tell that blocks of points in degrees are no shapes: heights are in metres or feet."""
    if crs is not None and pyproj.CRS(crs).is_geographic:
        warnings.warn(
            f"{name} lies in {crs_label(crs)}: x and y are degrees, heights are not, and blocks of "
            f"{block_size:g} degrees are what a network will see. Bring the points into a CRS in "
            "metres first, with open_points(..., pipeline=[filters.reprojection]) for example.",
            DataWarning,
            stacklevel=4,
        )


def as_bounds(bounds: Any) -> Bounds:
    """Four finite numbers, the least before the greatest. Raises OptionError."""
    try:
        numbers = [as_float(value, "bounds") for value in bounds]
    except TypeError:
        numbers = []
    if len(numbers) != 4 or numbers[0] > numbers[2] or numbers[1] > numbers[3]:
        raise OptionError(f"bounds={bounds!r}: expected (xmin, ymin, xmax, ymax).")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def cloud_locations(source: Any) -> list[Location]:
    """The files of a path, folder, pattern, URL, or list of these.

    Raises
    ------
    SourceNotFoundError
        Nothing there.
    SourceError
        A format that is not read; says how to convert it.
    """
    if isinstance(source, (str, os.PathLike)):
        return _one(str(os.fspath(source)))
    if not isinstance(source, Iterable) or isinstance(source, (bytes, Mapping)):
        raise OptionError(
            f"A {type(source).__name__} is no point cloud; give a path, a folder, a URL, or a list "
            "of these."
        )
    found = [place for item in source for place in cloud_locations(item)]
    if not found:
        raise SourceNotFoundError("The list of point clouds is empty; name at least one file.")
    once = list(dict.fromkeys(found))
    if len(once) < len(found):
        twice = next(place for place in once if found.count(place) > 1)
        warnings.warn(
            f"{twice.text} is named more than once ({len(found) - len(once)} repeats in all); each "
            "file is taken once.",
            DataWarning,
            stacklevel=3,
        )
    return once


def _one(text: str) -> list[Location]:
    if glob.has_magic(text) and "://" not in text and not os.path.exists(text):
        names = sorted(glob.glob(os.path.expanduser(text), recursive=True))
        files = [name for name in names if name.lower().endswith(SUFFIXES)]
        if not files:
            raise SourceNotFoundError(f"No LAS or LAZ file matches {text}.")
        return [locate(name) for name in files]
    place = locate(text)
    if place.local is not None and place.local.is_dir():
        return [locate(name) for name in clouds_in(place.local)]
    if place.suffix in _OTHERS:
        raise _other_format(Path(text))
    return [place]


def _other_format(path: Path) -> SourceError:
    command = shlex.join(["pdal", "translate", path.name, f"{path.stem}.laz"])
    return SourceError(
        f"{path} is {_OTHERS[path.suffix.lower()]}, which is not read; convert it to LAZ once, for "
        f"example with `{command}`."
    )


def clouds_in(folder: Path, *, below: bool = True) -> list[Path]:
    """LAS and LAZ files of a folder, without copies that geodl made of others in it.

    Parameters
    ----------
    below
        Look into the folders below as well.

    Raises
    ------
    SourceNotFoundError, SourceError
        It holds none; a format that is not read, and how to convert it.
    """
    files = sorted(f for f in (folder.rglob("*") if below else folder.iterdir()) if f.is_file())
    names = [f for f in files if f.suffix.lower() in SUFFIXES]
    scans = [f for f in files if f.suffix.lower() in _SCANS]
    if not names and scans:
        raise _other_format(scans[0])
    if not names:
        raise SourceNotFoundError(f"{folder} holds no LAS or LAZ file.")
    # Classified copies beside their sources would double every point.
    made = [f for f in names if _is_product(f, folder)]
    made = made if len(made) < len(names) else []
    for left, reason in (
        (scans, "no LAS or LAZ; convert them"),
        (made, "made by geodl; name them"),
    ):
        if left:
            warnings.warn(
                f"{folder}: {left[0].relative_to(folder)} and {len(left) - 1} more files are left "
                f"out, as they are {reason} to have them read.",
                DataWarning,
                stacklevel=4,
            )
    return [f for f in names if f not in made]


def _is_product(file: Path, folder: Path) -> bool:
    inner = [folder / part for part in file.relative_to(folder).parents][:-1]
    return any(manifest_path(path).exists() for path in (file, *inner))


def _warn_of_others(files: Sequence[LasFile], crs: str) -> None:
    without = [file.name for file in files if file.crs is None]
    if without:
        warnings.warn(
            f"{without[0]} and {len(without) - 1} more of {len(files)} files state no CRS; they "
            f"are taken to lie in {crs_label(crs)}.",
            DataWarning,
            stacklevel=3,
        )
    units = {unit: file.name for file in files if (unit := vertical_unit(file.crs)) is not None}
    if len(units) > 1:
        (one, first), (other, second) = list(units.items())[:2]
        warnings.warn(
            f"Heights of {first} are in {one}, those of {second} in {other}; they stay as they "
            "are. Open the files apart, or bring them into one unit.",
            DataWarning,
            stacklevel=3,
        )


def _bounds_in(file: LasFile, crs: str | None) -> Bounds:
    if file.crs is None or crs is None or same_crs(file.crs, crs):
        return file.bounds
    return transform_bounds(file.bounds, file.crs, crs, file.name)


def _reproject(xyz: np.ndarray, file: LasFile, target: str | None) -> None:
    """Bring x and y to another CRS, in place; heights stay as they are. Raises SourceError."""
    if file.crs is None or target is None or same_crs(file.crs, target):
        return
    move = transformer(file.crs, target).transform
    xyz[:, 0], xyz[:, 1] = move(xyz[:, 0], xyz[:, 1])
    lost = len(xyz) - int(np.isfinite(xyz[:, :2]).all(axis=1).sum())
    if lost:
        raise SourceError(
            f"{file.name}: {lost} of {len(xyz)} points in {crs_label(file.crs)} have no place in "
            f"{crs_label(target)}, that of the first file; open this file alone."
        )


def _closed(xyz: np.ndarray, bounds: Bounds) -> np.ndarray:
    x, y = xyz[:, 0], xyz[:, 1]
    return (x >= bounds[0]) & (x <= bounds[2]) & (y >= bounds[1]) & (y <= bounds[3])


def _parts_in(
    file: LasFile, source: int, bounds: Bounds, crs: str | None, points: int
) -> list[PointPart]:
    """Parts that may hold points of an area, in the file's own order."""
    if not file.count:
        return []
    place = _bounds_in(file, crs)
    if not overlap(place, bounds):
        return []
    # Reprojected bounds are near enough to skip by, not to keep by.
    exact = file.crs is None or crs is None or same_crs(file.crs, crs)
    whole = exact and within(place, bounds)
    octree = read_octree(file.layout) if exact and not whole else None
    if octree is None or file.table is None:
        return [replace(part, whole=whole) for part in file.parts(source, points=points)]
    read = functools.partial(read_bytes, file.location)
    nodes = nodes_in(octree, bounds, read, file.name)
    chunk_of = {int(offset): k for k, offset in enumerate(file.table.offsets)}
    unknown = [offset for offset, _ in nodes if offset not in chunk_of]
    if unknown:
        raise SourceError(
            f"{file.name} is damaged: its octree has a node at byte {unknown[0]}, where no chunk "
            "begins. Write the file again."
        )
    found = []
    for inside in (True, False):
        chunks = sorted(chunk_of[o] for o, square in nodes if within(square, bounds) == inside)
        parts = file.parts(source, chunks, points)
        found += [replace(part, whole=inside) for part in parts]
    return sorted(found, key=lambda part: part.first)
