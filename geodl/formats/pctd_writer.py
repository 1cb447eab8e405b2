"""Writing blocks of classified points: HDF5 files, list table and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.files import write_json
from geodl.base.packages import require
from geodl.formats.point_blocks import LIST_TABLE, STATISTICS, UNIT_KEY

# One bit for each of the 256 codes that a LAS file can hold.
_MASK_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class WrittenBlocks:
    """What the list table and the statistics need to know of one block file.

    Parameters
    ----------
    file
        Name of the file inside its folder.
    tiles
        int64 (N, 2): first row and rows of each block.
    centers
        float64 (N, 3), in units of the CRS.
    masks
        uint8 (N, 32).
    codes
        Class codes in the file.
    limits
        Attribute to its least and largest value.
    xyz_limits
        Least and largest normalised coordinate on each axis, float64 (2, 3).
    """

    file: str
    tiles: np.ndarray
    centers: np.ndarray
    masks: np.ndarray
    codes: tuple[int, ...]
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    xyz_limits: np.ndarray


def write_blocks(
    path: Path,
    xyz: np.ndarray,
    codes: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    side: float,
) -> WrittenBlocks:
    """Write one block file, block after block, so that memory holds one of them.

    Parameters
    ----------
    path
        Of the file.
    xyz
        float64 (P, 3) of the whole cloud.
    codes
        (P,) class codes 0..255.
    attributes
        Name to (P,) values, written in their own dtype.
    blocks
        Centre float64 (3,) and positions int64 (n,) of the points of each block.
    side
        Of a block in units of the CRS.
    """
    h5py = require("h5py", "points")
    path.parent.mkdir(parents=True, exist_ok=True)
    total = sum(len(positions) for _, positions in blocks)
    starts = np.cumsum([0, *(len(positions) for _, positions in blocks)])
    masks = np.zeros((len(blocks), _MASK_BYTES), np.uint8)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    with h5py.File(path, "w") as file:
        places = file.create_dataset("xyz", (total, 3), np.float32)
        classes = file.create_dataset("classification", (total,), np.uint8)
        others = {
            name: file.create_dataset(name, (total,), values.dtype)
            for name, values in attributes.items()
        }
        for number, (centre, positions) in enumerate(blocks):
            rows = slice(int(starts[number]), int(starts[number + 1]))
            local = ((xyz[positions] - centre) / (side / 2)).astype(np.float32)
            places[rows] = local
            classes[rows] = codes[positions]
            for name, table in others.items():
                table[rows] = attributes[name][positions]
            masks[number] = class_mask(codes[positions])
            low, high = np.minimum(low, local.min(axis=0)), np.maximum(high, local.max(axis=0))
    return WrittenBlocks(
        file=path.name,
        tiles=np.stack([starts[:-1], np.diff(starts)], axis=1).astype(np.int64),
        centers=np.array([centre for centre, _ in blocks], np.float64).reshape(-1, 3),
        masks=masks,
        codes=tuple(np.unique(codes).tolist()),
        limits={n: (float(v.min()), float(v.max())) for n, v in attributes.items()},
        xyz_limits=np.stack([low, high]),
    )


def class_mask(codes: np.ndarray) -> np.ndarray:
    """uint8 (32,): bit k of byte j is set where code 8 j + k is among ``codes``."""
    present = np.zeros(8 * _MASK_BYTES, bool)
    present[np.asarray(codes, np.int64)] = True
    return np.packbits(present, bitorder="little")


def write_list_table(folder: Path, files: Sequence[WrittenBlocks]) -> None:
    """``ListTable.h5`` over the block files of a folder, in their order."""
    h5py = require("h5py", "points")
    tiles = [
        np.column_stack([np.full(len(part.tiles), number), part.tiles])
        for number, part in enumerate(files)
    ]
    with h5py.File(folder / LIST_TABLE, "w") as table:
        table["Files"] = np.array([part.file.encode() for part in files])
        table["Tiles"] = np.concatenate(tiles).astype(np.int64)
        table["Masks"] = np.concatenate([part.masks for part in files])
        table["Centers"] = np.concatenate([part.centers for part in files])


def write_point_statistics(
    folder: Path,
    files: Sequence[WrittenBlocks],
    limits: Mapping[str, tuple[float, float]],
    *,
    max_points: int,
    side: float,
    unit_m: float | None = None,
) -> None:
    """``Statistics.json`` of a folder.

    Parameters
    ----------
    limits
        Of the attributes over all folders of the export, so that all are scaled alike.
    unit_m
        Metres in a unit of the CRS; None where that is not known.
    """
    codes = sorted({code for part in files for code in part.codes})
    low = np.min([part.xyz_limits[0] for part in files], axis=0)
    high = np.max([part.xyz_limits[1] for part in files], axis=0)
    attributes: dict[str, Any] = {"xyz": {"min": low.tolist(), "max": high.tolist()}}
    attributes |= {name: {"min": pair[0], "max": pair[1]} for name, pair in limits.items()}
    parameters: dict[str, Any] = {
        "maxPoints": max_points,
        "tileSize": side,
        "excludedClasses": [],
    }
    if unit_m is not None:
        parameters[UNIT_KEY] = unit_m
    value = {
        "parameters": parameters,
        "attributes": attributes,
        "classification": {
            "min": codes[0],
            "max": codes[-1],
            "table": [{"classCode": code} for code in codes],
        },
        "blockShape": "square",
    }
    write_json(folder / STATISTICS, value)
