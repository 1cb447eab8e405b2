"""A point cloud as a lazily read ``xarray.Dataset``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import dask.array as da
import dask.base
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from geodl.base.errors import OptionError, UnknownOptionError
from geodl.base.options import as_int, check_known, nearest
from geodl.io.cloud import Cloud, CloudPoints, as_bounds, open_cloud
from geodl.io.las_file import PART_POINTS, PointPart

Chunks = str | int | Mapping[str, Any]


def open_dataset(
    source: Any,
    *,
    dims: str | Sequence[str] | None = None,
    bounds: Sequence[float] | None = None,
    chunks: Chunks = "auto",
    pipeline: Sequence[Any] | None = None,
) -> xr.Dataset:
    """Open a point cloud lazily; see :func:`geodl.tools.open_points.open_points`."""
    if pipeline is not None:
        from geodl.io.pdal import run_pipeline

        source = run_pipeline(source, pipeline)
    cloud = open_cloud(source, bounds=bounds, part_points=_part_points(chunks))
    return as_dataset(cloud, dims)


def _part_points(chunks: Any) -> int:
    if isinstance(chunks, Mapping):
        check_known(chunks, ("point",), "chunks")
        chunks = chunks.get("point", "auto")
    if isinstance(chunks, str) and chunks == "auto":
        return PART_POINTS
    if chunks == -1:
        return 2**62
    try:
        return as_int(chunks, "chunks", minimum=1)
    except OptionError:
        raise OptionError(
            f"chunks={chunks!r}: expected a number of points, 'auto', or -1 for whole files."
        ) from None


class PointReader:
    """Reads parts of one cloud; the object that a Dataset's tasks share."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def __call__(self, part: PointPart) -> CloudPoints:
        return self.cloud.read(part)

    def field(self, points: CloudPoints, name: str) -> np.ndarray:
        return self.cloud.field(points, name)

    def nothing(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """What a cloud without points has of a dimension."""
        return np.zeros(shape, dtype)


# By what is read, and by the names of the arrays that read it.
_shared: WeakValueDictionary[str, PointReader] = WeakValueDictionary()
_readers: WeakValueDictionary[tuple[str, ...], PointReader] = WeakValueDictionary()


def as_dataset(cloud: Cloud, dims: str | Sequence[str] | None = None) -> xr.Dataset:
    """A cloud as a lazily read Dataset; see :func:`open_dataset`."""
    names = _wanted(cloud, dims)
    token = tokenize([file.name for file in cloud.files], cloud.identity(), cloud.parts)
    # Opened again it is the same reader: both Datasets are known as long as one of them lives.
    reader = _shared.setdefault(token, PointReader(cloud))
    arrays = _lazy_fields(cloud, reader, names, token)
    variables = {}
    for name in names:
        columns = cloud.fields[name][1]
        shape = ("point",) if columns is None else ("point", f"{name}_column")
        variables[name] = (shape, arrays[name])
    dataset = xr.Dataset(variables, attrs=_attributes(cloud))
    _readers[tuple(array.name for array in arrays.values())] = reader
    return dataset


def known_cloud(dataset: xr.Dataset) -> Cloud | None:
    """The cloud that an untouched Dataset was made from, else None."""
    if not all(dask.base.is_dask_collection(v.data) for v in dataset.data_vars.values()):
        return None
    reader = _readers.get(tuple(v.data.name for v in dataset.data_vars.values()))
    return None if reader is None else reader.cloud


def _wanted(cloud: Cloud, dims: str | Sequence[str] | None) -> list[str]:
    known = list(cloud.fields)
    if dims is None:
        return known
    if not isinstance(dims, (str, Iterable)):
        raise OptionError(
            f"dims={dims!r}: expected names of dimensions, ['intensity'] for example."
        )
    asked = [dims] if isinstance(dims, str) else [str(name) for name in dims]
    for name in asked:
        if name not in known:
            raise UnknownOptionError(
                f"dims: {cloud.name} has no dimension {name!r}.{nearest(name, known)} "
                f"It has: {', '.join(known)}."
            )
    return list(dict.fromkeys(["x", "y", "z", *asked]))


def _lazy_fields(
    cloud: Cloud, reader: PointReader, names: Sequence[str], token: str
) -> dict[str, da.Array]:
    """Each dimension as a Dask array; all of them share one read per part."""
    label = re.sub(r"[^A-Za-z0-9]+", "_", Path(cloud.name).stem).strip("_")[:40] or "points"
    read = f"geodl_read_{label}-{token}"
    reads = {(read, k): (reader, part) for k, part in enumerate(cloud.parts)}
    arrays = {}
    for name in names:
        dtype, columns = cloud.fields[name]
        key = f"geodl_{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{tokenize(token, name)}"
        rest = () if columns is None else (0,)
        tasks: dict[Any, Any] = {
            (key, k, *rest): (reader.field, (read, k), name) for k in range(len(cloud.parts))
        }
        layers: dict[str, Any] = {read: reads, key: tasks}
        graph = HighLevelGraph(layers, {read: set(), key: {read}})
        tail = () if columns is None else ((columns,),)
        if not cloud.parts:
            # A task holds the reader, by which the Dataset is known.
            shape = (0, *[c[0] for c in tail])
            nothing: dict[str, Any] = {key: {(key, 0, *rest): (reader.nothing, shape, dtype)}}
            graph = HighLevelGraph(nothing, {key: set()})
            arrays[name] = da.Array(graph, key, chunks=((0,), *tail), dtype=dtype)
            continue
        arrays[name] = da.Array(graph, key, chunks=(cloud.counts, *tail), dtype=dtype)
    return arrays


def _attributes(cloud: Cloud) -> dict[str, Any]:
    facts = [{"path": file.name, **file.facts} for file in cloud.files]
    attributes: dict[str, Any] = dict(facts[0]) if len(facts) == 1 else {"files": facts}
    if cloud.crs is not None:
        attributes["crs_wkt"] = cloud.crs
    if cloud.bounds is not None:
        attributes["bounds"] = list(cloud.bounds)
    return attributes


def points_within(dataset: xr.Dataset, bounds: Sequence[float]) -> xr.Dataset:
    """See :meth:`geodl.tools.points_accessor.PointsAccessor.within`."""
    area = as_bounds(bounds)
    cloud = known_cloud(dataset)
    if cloud is not None:
        cut = cloud.in_bounds(area)
        found = as_dataset(cut, [str(name) for name in dataset.data_vars])
        return found.assign_attrs({**dataset.attrs, "bounds": found.attrs["bounds"]})
    x, y = dataset.x.data, dataset.y.data
    inside = (x >= area[0]) & (x <= area[2]) & (y >= area[1]) & (y <= area[3])
    return dataset.isel(point=np.flatnonzero(np.asarray(inside)))


def cloud_of(points: Any) -> Cloud:
    """The cloud that a tool was given: whatever `open_points` takes, or what it returned.

    Raises
    ------
    OptionError
        A Dataset that was changed: its points have no place in a file any more.
    """
    if isinstance(points, Cloud):
        return points
    if not isinstance(points, xr.Dataset):
        return open_cloud(points)
    found = known_cloud(points)
    if found is None:
        raise OptionError(
            "This Dataset of points is not as open_points returned it; pass the path, or write it "
            "first: points.geodl.to_las('changed.laz')."
        )
    return found
