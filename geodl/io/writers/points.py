"""Datasets of points written as LAS, LAZ or Parquet, chunk by chunk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import xarray as xr

from geodl.base.errors import DataError, OptionError
from geodl.base.options import check_choice
from geodl.base.packages import require
from geodl.io.las_layout import RECORD_SIZES
from geodl.io.point_tiles import chunk_bounds, chunk_values
from geodl.io.staging import staged

_AXES = ("x", "y", "z")
# Formats of LAS 1.4, each with what the one before lacks.
_NEWER = (6, 7, 8)
_MOST = 2**31 - 1
# A metre.
_COARSE_DEG = 1e-5
# What GPS times count from, and whether return numbers are made up.
_KEPT_ENCODING = 0b1001
_MOST_NAME_BYTES = 32


def write_las(
    dataset: xr.Dataset, path: str | os.PathLike[str], *, point_format: int | None = None
) -> Path:
    """Write points as LAS or LAZ; it appears when it is whole.

    Parameters
    ----------
    dataset
        With ``x``, ``y``, ``z`` along ``point``. Scales (of several files the finest), offsets,
        point format, GPS time's type, source and system are those of the file it was opened from,
        where its ``attrs`` tell them.
    path
        ``.las`` or ``.laz``.
    point_format
        0 to 10; None takes the Dataset's own if it has all its dimensions, else the least of 6, 7
        and 8 that holds colours and infrared. Other variables become extra dimensions.

    Returns
    -------
    The path.

    Raises
    ------
    OptionError
        Another suffix or point format.
    DataError
        Coordinates, values or a variable that LAS cannot hold.
    OutputError
        It cannot be written.
    """
    laspy = require("laspy", "points")
    target = Path(os.path.abspath(os.path.expanduser(path)))
    check_choice(target.suffix.lower(), (".las", ".laz"), f"path {target.name}: the suffix")
    header = _header(laspy, dataset, point_format)
    names = [name for name in header.point_format.dimension_names if name in dataset]
    with staged(target) as place:
        packed = target.suffix.lower() == ".laz"
        with laspy.open(place, mode="w", header=header, do_compress=packed) as writer:
            for first, stop in chunk_bounds(dataset):
                values = chunk_values(dataset, [*_AXES, *names], first, stop)
                record = laspy.ScaleAwarePointRecord.zeros(stop - first, header=header)
                for axis, name in enumerate(_AXES):
                    record[name.upper()] = _whole(values[name], header, axis)
                for name in names:
                    record[name][:] = _fitting(values[name], header.point_format, name)
                writer.write_points(record)
    return target


def _header(laspy: Any, dataset: xr.Dataset, point_format: int | None) -> Any:
    attrs = dataset.attrs
    wanted = _point_format(laspy, dataset, point_format)
    crs = pyproj.CRS(attrs["crs_wkt"]) if "crs_wkt" in attrs else None
    # GeoTIFF keys, which formats before 6 hold, name a CRS by its number; LAS 1.4 holds any text.
    keyed = crs is None or _has_number(crs) or wanted >= _NEWER[0]
    header = laspy.LasHeader(version=None if keyed else "1.4", point_format=wanted)
    own = set(header.point_format.dimension_names)
    for name, variable in dataset.data_vars.items():
        if name not in own and name not in _AXES and variable.dims[:1] == ("point",):
            header.add_extra_dim(_extra(laspy, str(name), variable))
    _place(header, dataset, geographic=crs is not None and crs.is_geographic)
    _keep_facts(header, _files(dataset)[:1])
    if crs is not None:
        header.add_crs(crs, keep_compatibility=keyed)
    return header


def _has_number(crs: pyproj.CRS) -> bool:
    # Names go into the keys as ASCII.
    return not crs.is_compound and crs.to_epsg(100) is not None and crs.name.isascii()


def _files(dataset: xr.Dataset) -> list[Mapping[str, Any]]:
    """Facts of the files that the points were opened from, as far as attrs hold them."""
    attrs = dataset.attrs
    return list(attrs.get("files", ())) or ([attrs] if "scales" in attrs else [])


def _place(header: Any, dataset: xr.Dataset, *, geographic: bool) -> None:
    """Set scales, of several files the finest ones, and offsets."""
    files = _files(dataset)
    scales = np.array([1e-7, 1e-7, 1e-3] if geographic else [1e-3] * 3)
    if files:
        found = np.min(np.abs([file["scales"] for file in files]), axis=0)
        # Metres that became degrees would lose all but their first digits.
        metric = geographic and found[:2].max() > _COARSE_DEG
        scales = np.minimum(found, scales) if metric else found
    header.scales = scales
    if len(files) == 1 and np.array_equal(scales, np.abs(files[0]["scales"])):
        header.offsets = np.array(files[0]["offsets"])
    else:
        header.offsets = np.floor(_least(dataset))


def _keep_facts(header: Any, files: Sequence[Mapping[str, Any]]) -> None:
    """What the header says of all points, as the first file has it."""
    for file in files:
        header.global_encoding.value |= int(file.get("global_encoding", 0)) & _KEPT_ENCODING
        header.file_source_id = int(file.get("file_source_id", 0))
        header.system_identifier = str(file.get("system_identifier", "OTHER"))


def _fitting(values: np.ndarray, point_format: Any, name: str) -> np.ndarray:
    """Values in the dtype of a dimension: LAS would wrap what it cannot hold, or cut it off.

    xarray turns whole numbers to floating ones, in ``where`` for example; they are none the worse.
    """
    dimension = point_format.dimension_by_name(name)
    if not dimension.is_standard or dimension.kind.name == "FloatingPoint" or not values.size:
        return values
    low, high = int(dimension.min), int(dimension.max)
    least, most = values.min(), values.max()
    whole = values.dtype.kind in "iub" or bool((values == np.floor(values)).all())
    if not (low <= least and most <= high and whole):
        raise DataError(
            f"{name} has values from {least} to {most}; LAS holds whole numbers from {low} to "
            f"{high} there (point format {point_format.id}). Scale or round them, choose another "
            "point_format, or rename the variable: under another name it is an extra dimension."
        )
    return values.astype(np.int64)


def _point_format(laspy: Any, dataset: xr.Dataset, asked: int | None) -> int:
    if asked is not None:
        return int(check_choice(asked, tuple(RECORD_SIZES), "point_format"))
    stated = dataset.attrs.get("point_format")
    if stated in RECORD_SIZES:
        names = set(laspy.PointFormat(stated).dimension_names) - {"X", "Y", "Z"}
        if names <= set(map(str, dataset.data_vars)):
            return int(stated)
    colour, infrared = "red" in dataset, "nir" in dataset
    return _NEWER[2] if infrared else _NEWER[1] if colour else _NEWER[0]


def _extra(laspy: Any, name: str, variable: xr.DataArray) -> Any:
    dtype = variable.dtype
    columns = variable.shape[1] if variable.ndim == 2 else 1
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    if dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype == np.float16 or variable.ndim > 2:
        raise DataError(f"{name!r} of dtype {variable.dtype} is no dimension that LAS can hold.")
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise DataError(f"The dimension name {name!r} is longer than 32 bytes; rename it.")
    kind = f"{columns if columns > 1 else ''}{dtype.str[1:]}"
    return laspy.ExtraBytesParams(name=name, type=kind)


def _least(dataset: xr.Dataset) -> np.ndarray:
    found = [np.zeros(3)] if not dataset.sizes["point"] else []
    for first, stop in chunk_bounds(dataset):
        if stop > first:
            values = chunk_values(dataset, _AXES, first, stop)
            found.append(np.array([values[axis].min() for axis in _AXES]))
    least: np.ndarray = np.min(found, axis=0)
    return least


def _whole(values: np.ndarray, header: Any, axis: int) -> np.ndarray:
    numbers = np.round((values - header.offsets[axis]) / header.scales[axis])
    if not np.isfinite(numbers).all() or (len(numbers) and np.abs(numbers).max() > _MOST):
        raise DataError(
            f"{_AXES[axis]} of the points does not fit LAS with the scale {header.scales[axis]:g} "
            f"and offset {header.offsets[axis]:g}; mend coordinates that are not finite, write "
            "clouds that lie far apart one by one, or drop attrs['scales'] of coordinates in "
            "another unit."
        )
    return numbers.astype(np.int32)


def write_points_parquet(dataset: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write points as a Parquet table: one column for each variable, one row group for each chunk.

    Variables of several columns become lists. The CRS is in the table's metadata, ``crs_wkt``.

    Raises
    ------
    OptionError
        Another suffix.
    OutputError
        It cannot be written.
    """
    target = Path(os.path.abspath(os.path.expanduser(path)))
    if target.suffix.lower() not in (".parquet", ".pq"):
        raise OptionError(f"path {target.name}: expected the suffix .parquet")
    names = [str(name) for name in dataset.data_vars]
    schema = pa.schema([(name, _arrow_type(dataset[name])) for name in names])
    facts = {
        "crs_wkt": dataset.attrs.get("crs_wkt") or "",
        "geodl": json.dumps(dataset.attrs, default=str),
    }
    schema = schema.with_metadata(facts)
    with staged(target) as place, pq.ParquetWriter(place, schema) as writer:
        for first, stop in chunk_bounds(dataset):
            values = chunk_values(dataset, names, first, stop)
            writer.write_table(_table(values, names, schema))
    return target


def _arrow_type(variable: xr.DataArray) -> Any:
    kind = pa.from_numpy_dtype(variable.dtype)
    return kind if variable.ndim == 1 else pa.list_(kind, variable.shape[1])


def _table(values: Any, names: Sequence[str], schema: Any) -> Any:
    columns = []
    for name in names:
        own = values[name]
        if own.ndim == 1:
            columns.append(pa.array(own))
        else:
            flat = pa.array(np.ascontiguousarray(own).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, own.shape[1]))
    return pa.Table.from_arrays(columns, schema=schema)
