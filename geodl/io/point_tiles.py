"""Tiles of a Dataset of points: sorted in memory, or on disk where it is large."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from geodl.base.errors import OptionError, OutputError, UnknownOptionError
from geodl.base.files import read_json, sha256_json, write_json
from geodl.base.options import nearest
from geodl.core.points import PointPlan, PointTile, PointTileSpec
from geodl.io.las_file import PART_POINTS
from geodl.io.point_cells import (
    SortedCloud,
    SortedPart,
    part_stem,
    save_part,
    sort_part,
    sort_points,
)

MEMORY_POINTS = 4_000_000
"""Clouds of more points are sorted on disk: some 300 MB."""
CELLS_PER_TILE = 4
# Each thread holds a part in memory.
_THREADS = 4


class KeptFolder:
    """A temporary folder that lasts as long as this object; a copy sent elsewhere only names it."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="geodl-points-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (self.path,)


@dataclass(frozen=True)
class PointTiles:
    """Tiles of a cloud, read one by one as they are asked for.

    Parameters
    ----------
    cloud
        The sorted points.
    plan
        Which tiles there are.
    """

    cloud: SortedCloud
    plan: PointPlan
    _held: Any = None

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[PointTile]:
        for spec in self.plan.blocks():
            yield self.cloud.read(spec)

    def __getitem__(self, number: int) -> PointTile:
        return self.cloud.read(self.spec(number))

    def spec(self, number: int) -> PointTileSpec:
        """Place of a tile."""
        return self.plan.tile(*self.plan.tiles[number])


def tiles_of(
    dataset: xr.Dataset,
    size: float,
    buffer: float,
    dims: Sequence[str] | None,
    folder: str | os.PathLike[str] | None,
) -> PointTiles:
    """See :meth:`geodl.tools.points_accessor.PointsAccessor.tiles`."""
    PointPlan(size=size, buffer=buffer, tiles=())
    cloud, held = sorted_points(dataset, dims, tile=size, folder=folder)
    return PointTiles(
        cloud,
        PointPlan(size=size, buffer=buffer, tiles=tuple(cloud.tile_counts(CELLS_PER_TILE))),
        held,
    )


def sorted_points(
    dataset: xr.Dataset,
    dims: Sequence[str] | None,
    *,
    tile: float,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[SortedCloud, Any]:
    """The points of a Dataset by cell, and what must be kept as long as they are read.

    Raises
    ------
    UnknownOptionError
        A dimension that the Dataset does not have.
    OptionError
        The folder holds another cloud.
    OutputError
        It cannot be written.
    """
    names = _names(dataset, dims)
    cell = tile / CELLS_PER_TILE
    parts = _parts(dataset, names, cell)
    if folder is None and dataset.sizes["point"] <= MEMORY_POINTS:
        return SortedCloud.of((make() for _, make in parts), cell), None
    held = None
    if folder is None:
        held = KeptFolder()
        folder = held.path
    place = Path(folder)
    facts = sha256_json([dataset_identity(dataset), names, cell, tile])
    try:
        place.mkdir(parents=True, exist_ok=True)
        header = place / "sorted.json"
        if header.exists() and read_json(header) != facts:
            raise OptionError(
                f"{place} holds another cloud, or this one in other tiles; name a new folder."
            )
        write_json(header, facts)
        return SortedCloud.gather(place, _sorted_on_disk(place, parts), cell), held
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error}") from error


def _sorted_on_disk(
    place: Path, parts: Iterator[tuple[str, Callable[[], SortedPart]]]
) -> list[str]:
    """Sort what is not there yet, some parts at once; the names of all."""
    # Decoding and sorting leave Python's lock alone.
    stems = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="geodl-sort") as pool:
        waiting: deque[Future[None]] = deque()
        for stem, make in parts:
            stems.append(stem)
            if (place / f"{stem}.cells.npy").exists():
                continue
            waiting.append(pool.submit(_save, place, stem, make))
            if len(waiting) > _THREADS:
                waiting.popleft().result()
        for last in waiting:
            last.result()
    return stems


def _save(place: Path, stem: str, make: Callable[[], SortedPart]) -> None:
    save_part(place, stem, make())


def _names(dataset: xr.Dataset, dims: Sequence[str] | None) -> list[str]:
    known = [str(name) for name in dataset.data_vars if name not in ("x", "y", "z")]
    if dims is None:
        return known
    for name in dims:
        if name not in known:
            raise UnknownOptionError(
                f"dims: the points have no dimension {name!r}.{nearest(name, known)} They have: "
                f"{', '.join(known)}."
            )
    return list(dims)


def dataset_identity(dataset: xr.Dataset) -> Any:
    """JSON that changes when the points may have changed."""
    from geodl.io.points import known_cloud

    cloud = known_cloud(dataset)
    if cloud is not None:
        return cloud.identity()
    return [tokenize(variable.data) for variable in dataset.data_vars.values()]


def _parts(dataset: xr.Dataset, names: Sequence[str], cell: float) -> Iterator[Any]:
    """Name and maker of each sorted part; points of files keep their place there."""
    from geodl.io.points import known_cloud

    cloud = known_cloud(dataset)
    if cloud is not None:
        for part in cloud.parts:
            yield (
                part_stem(part),
                lambda part=part: sort_part(cloud, cloud.read(part), names, cell),
            )
        return
    for first, stop in chunk_bounds(dataset):
        yield (
            f"{first:012d}",
            lambda first=first, stop=stop: _sort_chunk(dataset, names, first, stop, cell),
        )


def _sort_chunk(
    dataset: xr.Dataset, names: Sequence[str], first: int, stop: int, cell: float
) -> SortedPart:
    values = chunk_values(dataset, ["x", "y", "z", *names], first, stop)
    fields: list[Any] = [(axis, np.float64) for axis in "xyz"]
    fields += [("source", np.int32), ("index", np.int64)]
    fields += [(name, values[name].dtype, values[name].shape[1:]) for name in names]
    points = np.zeros(stop - first, fields)
    points["index"] = np.arange(first, stop)
    for name, own in values.items():
        points[name] = own
    return sort_points(points, cell)


def chunk_bounds(dataset: xr.Dataset) -> list[tuple[int, int]]:
    """First point of each chunk, and the one behind its last."""
    count = dataset.sizes["point"]
    chunks = dataset.x.chunksizes.get("point")
    if chunks is None:
        chunks = tuple(min(PART_POINTS, count - a) for a in range(0, count, PART_POINTS))
    stops = np.cumsum(chunks).tolist()
    return list(zip([0, *stops][: len(stops)], stops, strict=True))


def chunk_values(
    dataset: xr.Dataset, names: Sequence[str], first: int, stop: int
) -> Mapping[str, np.ndarray]:
    """Some points of some dimensions, read at once."""
    found = dataset[list(names)].isel(point=slice(first, stop)).compute()
    return {name: found[name].values for name in names}
