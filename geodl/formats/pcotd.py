"""Point clouds with oriented boxes of objects: ``train/`` and ``val/`` of HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import as_float, as_int
from geodl.formats.hdf5 import dataset, open_h5, rows
from geodl.formats.pctd import (
    BlockTable,
    block_parameters,
    check_counts,
    check_xyz,
    read_table,
    stacked_attributes,
)
from geodl.formats.point_blocks import (
    LIST_TABLE,
    STATISTICS,
    PointBlock,
    PointFacts,
    attribute_limits,
    code_list,
    part,
    read_statistics,
)

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ObjectBlock:
    """Points of a block and the objects in it.

    Parameters
    ----------
    points
        As of a classified block, without codes; ``xyz`` in units of ``scale``.
    boxes
        float64 (M, 7) in units of the CRS around the block's origin: x, y, z of the bottom,
        length, width, height, yaw (radians, anticlockwise from x).
    codes
        int64 (M,) object codes.
    share
        float64 (M,), part of the object's points that lie in the block, 0..1.
    """

    points: PointBlock
    boxes: np.ndarray
    codes: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, slots=True)
class ObjectSizes:
    """What an export says of the objects of one code, in units of the CRS.

    Parameters
    ----------
    average
        Length, width, height.
    z
        Least and largest z of the boxes' bottom and top.
    """

    average: tuple[float, float, float]
    z: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PcotdSet:
    """Blocks of one folder of a ``.pcotd`` export."""

    folder: Path
    facts: PointFacts
    table: BlockTable
    sizes: dict[int, ObjectSizes]

    def __len__(self) -> int:
        return len(self.table.tiles)

    def name(self, index: int) -> str:
        file, start = self.table.tiles[index, :2].tolist()
        relative = self.table.files[file].relative_to(self.folder.parent)
        return f"{relative.as_posix()}#{start}"

    def file(self, index: int) -> Path:
        return self.table.files[int(self.table.tiles[index, 0])]

    def counts(self) -> np.ndarray:
        return self.table.tiles[:, 2]

    def has_codes(self, index: int, codes: Sequence[int]) -> bool:
        return self.table.has_codes(index, codes)

    def read_objects(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, codes and shares of a block, as in :class:`ObjectBlock`.

        Raises
        ------
        FormatError
            Boxes that contradict themselves; names the file and the box.
        """
        path = self.file(index)
        first, count = self.table.tiles[index, 3:5].tolist()
        with open_h5(path) as file:
            oriented = rows(file, "orientedBoundingBox", path, first, count).astype(np.float64)
            inside = rows(file, "orientedBoundingBoxCount", path, first, count)
            if "objectCode" in file:
                codes = rows(file, "objectCode", path, first, count).astype(np.int64).reshape(-1)
            else:
                codes = np.zeros(count, np.int64)
        inside = inside.reshape(count, -1).astype(np.float64)
        check_boxes(oriented, inside, f"{path}, boxes {first} to {first + count}")
        unknown = sorted(set(codes.tolist()) - set(self.facts.codes))
        if unknown:
            raise FormatError(
                f"{path}: the object code {unknown[0]} is not in {self.folder / STATISTICS} "
                f"({', '.join(map(str, self.facts.codes))})."
            )
        share = np.divide(inside[:, 0], inside[:, 1], where=inside[:, 1] > 0, out=np.zeros(count))
        return seven_numbers(oriented) * _scales(self.facts.scale), codes, share

    def read(self, index: int, attributes: Sequence[str]) -> ObjectBlock:
        """A block. Raises FormatError, which names the file."""
        path = self.file(index)
        start, count = self.table.tiles[index, 1:3].tolist()
        with open_h5(path) as file:
            xyz = rows(file, "xyz", path, start, count)
            values = [rows(file, name, path, start, count) for name in attributes]
        check_xyz(xyz, f"{path}, rows {start} to {start + count}", bounded=False)
        features = stacked_attributes(values, attributes, self.facts, path, count)
        return ObjectBlock(
            PointBlock(xyz.astype(np.float32), features, None), *self.read_objects(index)
        )


def seven_numbers(oriented: np.ndarray) -> np.ndarray:
    """float64 (M, 7) x, y, z bottom, length, width, height, yaw of boxes as they are stored.

    Parameters
    ----------
    oriented
        float64 (M, 8): centre x, y; direction x, y; half length, half width; z bottom, z top.
    """
    x, y, along_x, along_y, half_length, half_width, bottom, top = oriented.reshape(-1, 8).T
    yaw = np.arctan2(along_y, along_x)
    return np.stack([x, y, bottom, 2 * half_length, 2 * half_width, top - bottom, yaw], axis=1)


def _scales(scale: float) -> np.ndarray:
    return np.array([scale] * 6 + [1.0])


def check_boxes(oriented: np.ndarray, inside: np.ndarray, where: str) -> None:
    """Hold boxes to what a box is. Raises FormatError, which names the first wrong one."""
    count = len(oriented)
    if oriented.shape != (count, 8) or inside.shape != (count, 2):
        raise FormatError(
            f"{where}: 'orientedBoundingBox' must have 8 columns, its 'Count' 2; found "
            f"{oriented.shape} and {inside.shape}."
        )
    length = np.hypot(oriented[:, 2], oriented[:, 3])
    faults = {
        "a number that is not finite": ~np.isfinite(oriented).all(axis=1),
        "a half length or half width that is not above 0": (oriented[:, 4:6] <= 0).any(axis=1),
        "a top that is not above its bottom": oriented[:, 7] <= oriented[:, 6],
        "a direction that is no unit vector": np.abs(length - 1) > _UNIT_TOLERANCE,
        "more points in the block than in all": inside[:, 0] > inside[:, 1],
    }
    for fault, wrong in faults.items():
        if wrong.any():
            raise FormatError(
                f"{where}: box {int(wrong.argmax())} has {fault}. Export the points again."
            )


def open_pcotd(folder: Path) -> PcotdSet:
    """The blocks of one folder.

    Raises
    ------
    FormatError
        A file that is missing, no box at all, or tables that contradict each other.
    """
    facts, sizes, boxes = _facts(folder)
    table = read_table(folder, columns=5, masks="ObjectMasks")
    check_counts(table, facts, folder)
    for number, path in enumerate(table.files):
        own = table.tiles[table.tiles[:, 0] == number]
        with open_h5(path) as file:
            stored = dataset(file, "orientedBoundingBox", path).shape[0]
        if len(own) and int((own[:, 3] + own[:, 4]).max()) > stored:
            raise FormatError(
                f"{folder / LIST_TABLE}: a block takes boxes beyond the {stored} of {path}."
            )
    total = int(table.tiles[:, 4].sum())
    if boxes != total:
        raise FormatError(
            f"{folder / STATISTICS} counts {boxes} boxes (numberOfStoredOrientedBoundingBoxes), "
            f"{LIST_TABLE} {total}; export the points again."
        )
    return PcotdSet(folder=folder, facts=facts, table=table, sizes=sizes)


def _facts(folder: Path) -> tuple[PointFacts, dict[int, ObjectSizes], int]:
    path = folder / STATISTICS
    value = read_statistics(path)
    parameters = part(value, "parameters", path)
    max_points, tile_size, excluded = block_parameters(parameters, path)
    classes = part(part(value, "tileStatistics", path), "classification", path)
    codes = code_list(classes.get("table"), path)
    try:
        scale = as_float(parameters.get("scaleFactor"), "scaleFactor", minimum=1e-12)
        boxes = as_int(
            value.get("numberOfStoredOrientedBoundingBoxes"),
            "numberOfStoredOrientedBoundingBoxes",
            minimum=0,
        )
        sizes = {entry["classCode"]: _sizes(entry, scale) for entry in classes["table"]}
    except (OptionError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from error
    if not boxes:
        raise FormatError(f"{path} says that the export holds no box; export it with objects.")
    facts = PointFacts(
        max_points=max_points,
        tile_size=tile_size,
        scale=scale,
        limits=attribute_limits(part(value, "attributes", path), path),
        codes=codes,
        excluded=excluded,
        block_shape=str(value.get("blockShape", "")),
        statistics=value,
    )
    return facts, sizes, boxes


def _sizes(entry: dict[str, Any], scale: float) -> ObjectSizes:
    length, width, height = (float(v) * scale for v in entry["orientedBoundingBoxAverageLength"])
    z = entry["orientedBoundingBoxZ"]
    low, high = (np.atleast_1d(np.asarray(z[key], np.float64)) * scale for key in ("min", "max"))
    return ObjectSizes((length, width, height), (float(low.min()), float(high.max())))
