"""`export_point_dataset`: LAS and LAZ files as blocks to train on."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import (
    DataError,
    DataWarning,
    OptionError,
    OutputExistsError,
    SourceNotFoundError,
)
from geodl.base.options import as_float, as_int, as_path, check_known, nearest
from geodl.base.packages import require
from geodl.formats.pctd_writer import (
    WrittenBlocks,
    write_blocks,
    write_list_table,
    write_point_statistics,
)
from geodl.formats.point_blocks import ATTRIBUTE_NAMES, attribute_names
from geodl.io.cloud import clouds_in, open_cloud, warn_of_degrees
from geodl.io.crs import metres_per_unit
from geodl.io.las_file import open_las
from geodl.io.locations import locate
from geodl.io.points import as_dataset
from geodl.ops.point_blocks import limited_parts, overlapping_blocks
from geodl.runtime.connect import active_client, available_cores

_SETS = ("train", "val")
# Share of the ground, or of the files, that validates where the input is not split.
_VALIDATION_SHARE = 0.2
# Each thread holds one file in memory.
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTask:
    """One file, or a part of it, for one set. Picklable.

    Parameters
    ----------
    ground
        Axis (0 x, 1 y) and the least and largest coordinate on it of the points to take; None
        takes all.
    """

    source: Path
    target: Path
    ground: tuple[int, float, float] | None = None


def export_point_dataset(
    data_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    block_size: float = 50.0,
    max_points: int = 8192,
    extra_features: Sequence[str] = [],
    **kwargs: Any,
) -> Path:
    """Cut classified point clouds into overlapping blocks for `prepare_data`.

    Deprecated by the documentation in favour of the desktop tool, whose layout it writes: HDF5
    blocks of ``block_size``, each point in four of them, in the folders ``train`` and ``val``.
    Files are read at the same time, by the workers of an active Dask client if there is one. The
    result does not depend on their number.

    Parameters
    ----------
    data_path
        Folder with ``train`` and ``val`` folders of LAS, LAZ or COPC files. Or a folder of such
        files, of which one in five validates; or one file, of which the last fifth of the ground
        on its longer side does.
    output_path
        New folder of the export, for example ``forest.pctd``. It appears when it is complete.
    block_size
        Side of a block in units of the CRS, above 0.
    max_points
        Most points of a block. A block with more is written several times, each with a part of
        its points.
    extra_features
        Attributes besides x, y and z: ``intensity``, ``numberOfReturns``, ``returnNumber``,
        ``red``, ``green``, ``blue``, ``nearInfrared``, or the name of an extra dimension.

    Returns
    -------
    ``output_path``.

    Raises
    ------
    OptionError, UnknownOptionError
        An argument outside its domain, an attribute that a file lacks, an unknown keyword.
    SourceNotFoundError, SourceError
        No such folder, no file in it, or one that cannot be read; names it.
    DataError
        A set without a single point; files in different units.
    OutputExistsError
        ``output_path`` exists.
    MissingPackageError
        laspy or h5py is not installed.
    """
    check_known(kwargs, ("block_size", "max_points", "extra_features"), "export_point_dataset()")
    side = as_float(block_size, "block_size", minimum=1e-6)
    most = as_int(max_points, "max_points", minimum=1)
    names = attribute_names(extra_features)
    require("h5py", "points")
    output = as_path(output_path, "output_path")
    if output.exists():
        raise OutputExistsError(f"{output} exists; name a new folder, or remove it first.")
    sources = _sources(as_path(data_path, "data_path"))
    unit_m = _common_unit(sorted({path for name in _SETS for path, _ in sources[name]}), side)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.parent / f".{output.name}.{os.getpid()}.part"
    try:
        tasks = {name: _tasks(sources[name], scratch / name) for name in _SETS}
        work = partial(export_cloud, names=names, side=side, max_points=most)
        results = _run(work, [task for name in _SETS for task in tasks[name]])
        border = len(tasks["train"])
        parts = {"train": results[:border], "val": results[border:]}
        _finish(scratch, parts, names, max_points=most, side=side, unit_m=unit_m)
        os.replace(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def export_cloud(
    task: CloudTask, *, names: Sequence[str], side: float, max_points: int
) -> WrittenBlocks | None:
    """Write the blocks of one file; None where no point of it is to be taken."""
    xyz, codes, attributes = read_cloud(task.source, names)
    if task.ground is not None:
        axis, low, high = task.ground
        chosen = (xyz[:, axis] >= low) & (xyz[:, axis] < high)
        xyz, codes = xyz[chosen], codes[chosen]
        attributes = {name: values[chosen] for name, values in attributes.items()}
    if not len(xyz):
        return None
    digest = hashlib.blake2b(task.target.name.encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    blocks = []
    for centre, positions in overlapping_blocks(xyz[:, :2], side):
        # A single stray point far above or below does not move the block.
        middle = np.array([*centre, float(np.median(xyz[positions, 2]))])
        blocks += [(middle, part) for part in limited_parts(positions, max_points, generator)]
    return write_blocks(task.target, xyz, codes, attributes, blocks, side)


def read_cloud(
    path: Path, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Coordinates float64 (P, 3), class codes uint8 (P,) and attributes (P,) of a file.

    Raises
    ------
    SourceError
        The file cannot be read.
    OptionError
        It has no such attribute.
    """
    cloud = open_cloud(path)
    dimensions = [ATTRIBUTE_NAMES.get(name, name) for name in names]
    for name, dimension in zip(names, dimensions, strict=True):
        if dimension not in cloud.fields:
            raise OptionError(
                f"extra_features: {path} has no {name!r}.{nearest(name, cloud.fields)} "
                f"It has: {', '.join(cloud.fields)}."
            )
        if cloud.fields[dimension][1] is not None:
            raise OptionError(f"extra_features: {name!r} of {path} has several columns.")
    # In this thread: files are read side by side already, maybe by Dask.
    points = as_dataset(cloud, ["classification", *dimensions]).compute(scheduler="synchronous")
    xyz = np.stack([points[axis].values for axis in "xyz"], axis=1)
    attributes = {
        name: points[dimension].values for name, dimension in zip(names, dimensions, strict=True)
    }
    return xyz, points["classification"].values.astype(np.uint8), attributes


# -- which points go where --------------------------------------------------------------------


def _sources(path: Path) -> dict[str, list[tuple[Path, tuple[int, float, float] | None]]]:
    """Files of each set, with the ground to take of them."""
    if not path.exists():
        raise SourceNotFoundError(f"There is no {path}; check data_path.")
    if path.is_file():
        return _divided(path)
    folders = {name: path / name for name in _SETS}
    if all(folder.is_dir() for folder in folders.values()):
        return {
            name: [(file, None) for file in clouds_in(folders[name], below=False)] for name in _SETS
        }
    files = clouds_in(path, below=False)
    if len(files) == 1:
        return _divided(files[0])
    step = round(1 / _VALIDATION_SHARE)
    # Every fifth file, or the last of fewer.
    chosen = set(files[step - 1 :: step] or files[-1:])
    return {
        "train": [(file, None) for file in files if file not in chosen],
        "val": [(file, None) for file in files if file in chosen],
    }


def _common_unit(files: Sequence[Path], side: float) -> float | None:
    """Metres in a unit of the files; None where none states a CRS.

    Raises
    ------
    DataError
        Blocks of 50 feet are none of 50 metres; names both files.
    """
    units: dict[float, Path] = {}
    for path in files:
        crs = open_las(locate(path)).crs
        unit = None if crs is None else round(metres_per_unit(crs), 4)
        if unit is not None and unit not in units:
            warn_of_degrees(crs, str(path), side)
            units[unit] = path
    if len(units) > 1:
        (one, first), (other, second) = list(units.items())[:2]
        raise DataError(
            f"A unit of {first} is {one:g} m, one of {second} {other:g} m: blocks of one size "
            "would differ on the ground. Bring the files into one CRS first."
        )
    return next(iter(units), None)


def _divided(path: Path) -> dict[str, list[tuple[Path, tuple[int, float, float] | None]]]:
    """One file: a strip of its ground validates, and no block reaches over the border."""
    x0, y0, x1, y1 = open_las(locate(path)).bounds
    low, high = np.array([x0, y0]), np.array([x1, y1])
    axis = int((high - low).argmax())
    border = float(high[axis] - _VALIDATION_SHARE * (high[axis] - low[axis]))
    infinity = float("inf")
    return {
        "train": [(path, (axis, -infinity, border))],
        "val": [(path, (axis, border, infinity))],
    }


def _tasks(
    sources: Sequence[tuple[Path, tuple[int, float, float] | None]], folder: Path
) -> list[CloudTask]:
    stems = [path.stem for path, _ in sources]
    folder.mkdir(parents=True)
    tasks = []
    for number, (path, ground) in enumerate(sources):
        # a.las and a.laz must not share a file.
        name = path.stem if stems.count(path.stem) == 1 else f"{path.stem}_{number}"
        tasks.append(CloudTask(source=path, target=folder / f"{name}.h5", ground=ground))
    return tasks


def _run(work: Any, tasks: Sequence[CloudTask]) -> list[WrittenBlocks | None]:
    client = active_client()
    if client is not None:
        return list(client.gather(client.map(work, tasks, pure=False)))
    threads = max(1, min(_MOST_THREADS, available_cores(), len(tasks)))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, tasks))


def _finish(
    folder: Path,
    parts: dict[str, list[WrittenBlocks | None]],
    names: Sequence[str],
    *,
    max_points: int,
    side: float,
    unit_m: float | None,
) -> None:
    """Write the tables of both sets."""
    written = {name: [part for part in parts[name] if part is not None] for name in _SETS}
    empty = [name for name in _SETS if not written[name]]
    if empty:
        raise DataError(
            f"There is no point for the set {empty[0]!r}; give folders 'train' and 'val' with "
            "points in both."
        )
    everything = [part for name in _SETS for part in written[name]]
    limits = {
        name: (
            min(part.limits[name][0] for part in everything),
            max(part.limits[name][1] for part in everything),
        )
        for name in names
    }
    codes = {name: {code for part in written[name] for code in part.codes} for name in _SETS}
    alone = sorted(codes["val"] - codes["train"])
    if alone:
        warnings.warn(
            f"The class codes {', '.join(map(str, alone))} are in 'val' only; nothing can learn "
            "them. Move files between the sets.",
            DataWarning,
            stacklevel=3,
        )
    for name in _SETS:
        write_list_table(folder / name, written[name])
        write_point_statistics(
            folder / name, written[name], limits, max_points=max_points, side=side, unit_m=unit_m
        )
