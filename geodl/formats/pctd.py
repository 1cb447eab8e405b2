"""Point clouds cut into blocks: ``train/`` and ``val/`` of HDF5 files with a list table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import as_float, as_int
from geodl.formats.hdf5 import dataset, open_h5, rows
from geodl.formats.point_blocks import (
    LIST_TABLE,
    STATISTICS,
    PointBlock,
    PointFacts,
    attribute_limits,
    code_list,
    part,
    read_statistics,
    scaled,
)

# Blocks are cut by their border; rounding may leave a point just outside.
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class BlockTable:
    """``ListTable.h5``: where blocks lie.

    Parameters
    ----------
    files
        Block files.
    tiles
        int64 (N, 3 or 5): file, first row, rows, and for objects first box, boxes.
    masks
        uint8 (N, M): bit k of byte j is set where code 8 j + k is in the block.
    """

    files: tuple[Path, ...] = field(repr=False)
    tiles: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)

    def has_codes(self, index: int, codes: Sequence[int]) -> bool:
        mask = self.masks[index]
        return any(
            0 <= code < 8 * len(mask) and bool(mask[code // 8] >> (code % 8) & 1) for code in codes
        )


def read_table(folder: Path, *, columns: int, masks: str) -> BlockTable:
    """The list table of a folder.

    Parameters
    ----------
    columns
        Least number of columns of ``Tiles``.
    masks
        Name of the data set of class masks.

    Raises
    ------
    FormatError
        Missing, or contradicting itself.
    """
    path = folder / LIST_TABLE
    with open_h5(path) as file:
        names = np.asarray(dataset(file, "Files", path)).ravel()
        tiles = np.asarray(dataset(file, "Tiles", path))
        mask = np.asarray(dataset(file, masks, path))
    if tiles.ndim != 2 or tiles.shape[1] < columns or tiles.dtype.kind not in "iu":
        raise FormatError(f"{path}: 'Tiles' must be whole numbers in {columns} columns or more.")
    tiles = tiles.astype(np.int64)
    if not len(tiles):
        raise FormatError(f"{path} lists no block; export the points again.")
    if (tiles < 0).any() or (tiles[:, 0] >= len(names)).any():
        wrong = int(np.flatnonzero((tiles < 0).any(axis=1) | (tiles[:, 0] >= len(names)))[0])
        raise FormatError(
            f"{path}: row {wrong} of 'Tiles' is {tiles[wrong].tolist()}; there are {len(names)} "
            "files, and no number is below 0."
        )
    if mask.ndim != 2 or len(mask) != len(tiles):
        raise FormatError(f"{path}: {masks!r} must have one row of bytes for each block.")
    files = tuple(_inside(folder, name, path) for name in names)
    return BlockTable(files=files, tiles=tiles, masks=mask.astype(np.uint8))


def _inside(folder: Path, name: bytes | str, where: Path) -> Path:
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    parts = [p for p in text.replace("\\", "/").split("/") if p not in ("", ".")]
    if not parts or ".." in parts or text.startswith(("/", "\\")) or ":" in parts[0]:
        raise FormatError(f"{where} names the file {text!r}; paths must stay inside the export.")
    return folder.joinpath(*parts)


@dataclass(frozen=True, kw_only=True)
class PctdSet:
    """Blocks of one folder of a ``.pctd`` export, see `PointSet`."""

    folder: Path
    facts: PointFacts
    table: BlockTable

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

    def read(self, index: int, attributes: Sequence[str]) -> PointBlock:
        """A block.

        Raises
        ------
        FormatError
            Data sets that are missing or too short, points outside the block, codes that are not
            in the class table or that the block's mask denies; names the file.
        """
        path = self.file(index)
        start, count = self.table.tiles[index, 1:3].tolist()
        with open_h5(path) as file:
            xyz = rows(file, "xyz", path, start, count)
            values = [rows(file, name, path, start, count) for name in attributes]
            codes = rows(file, "classification", path, start, count)
            _check_lengths(file, ("xyz", "classification", *attributes), path)
        codes = codes.astype(np.int64).reshape(-1)
        self._check(xyz, codes, index, f"{path}, rows {start} to {start + count}")
        return PointBlock(
            xyz.astype(np.float32),
            stacked_attributes(values, attributes, self.facts, path, count),
            codes,
        )

    def _check(self, xyz: np.ndarray, codes: np.ndarray, index: int, where: str) -> None:
        check_xyz(xyz, where, bounded=True)
        present = np.unique(codes).tolist()
        unknown = [code for code in present if code not in self.facts.codes]
        if unknown:
            raise FormatError(
                f"{where}: the class code {unknown[0]} is not in the table of "
                f"{self.folder / STATISTICS} ({', '.join(map(str, self.facts.codes))})."
            )
        denied = [code for code in present if not self.table.has_codes(index, [code])]
        if denied:
            raise FormatError(
                f"{where}: the block has points of class {denied[0]}, which its mask in "
                f"{LIST_TABLE} denies; export the points again."
            )


def stacked_attributes(
    values: Sequence[np.ndarray], names: Sequence[str], facts: PointFacts, path: Path, count: int
) -> np.ndarray:
    """float32 (N, F) of the attributes, scaled. Raises FormatError on other columns."""
    columns = []
    for name, table in zip(names, values, strict=True):
        width = len(facts.limits[name][0])
        if table.reshape(len(table), -1).shape[1] != width:
            raise FormatError(f"{path}: {name!r} has not the {width} columns of {STATISTICS}.")
        columns.append(scaled(table, facts.limits[name]))
    if not columns:
        return np.zeros((count, 0), np.float32)
    found = np.concatenate(columns, axis=1)
    if not np.isfinite(found).all():
        raise FormatError(f"{path}: an attribute holds numbers that are not finite.")
    return found


def check_xyz(xyz: np.ndarray, where: str, *, bounded: bool) -> None:
    """Three finite columns, x and y within -1..1 if ``bounded``. Raises FormatError."""
    if xyz.ndim != 2 or xyz.shape[1] != 3 or not np.isfinite(xyz).all():
        raise FormatError(f"{where}: 'xyz' must be three columns of finite numbers.")
    if bounded and len(xyz) and np.abs(xyz[:, :2]).max() > 1 + _TOLERANCE:
        raise FormatError(
            f"{where}: x and y must lie within -1..1 of the block; "
            f"found {np.abs(xyz[:, :2]).max():.4g}. Export the points again."
        )


def _check_lengths(file: object, names: Sequence[str], path: Path) -> None:
    lengths = {name: dataset(file, name, path).shape[0] for name in names}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise FormatError(f"{path}: data sets differ in length ({shown}).")


def point_facts(folder: Path) -> PointFacts:
    """``Statistics.json`` of a folder of classified points. Raises FormatError."""
    path = folder / STATISTICS
    value = read_statistics(path)
    parameters = part(value, "parameters", path)
    max_points, tile_size, excluded = block_parameters(parameters, path)
    classification = part(value, "classification", path)
    return PointFacts(
        max_points=max_points,
        tile_size=tile_size,
        scale=tile_size / 2,
        limits=attribute_limits(part(value, "attributes", path), path),
        codes=code_list(classification.get("table"), path),
        excluded=excluded,
        block_shape=str(value.get("blockShape", "")),
        statistics=value,
    )


def block_parameters(
    parameters: dict[str, object], path: Path
) -> tuple[int, float, tuple[int, ...]]:
    """Most points, size and excluded codes of blocks. Raises FormatError."""
    try:
        excluded = parameters.get("excludedClasses") or []
        return (
            as_int(parameters.get("maxPoints"), "maxPoints", minimum=1),
            as_float(parameters.get("tileSize"), "tileSize", minimum=1e-9),
            tuple(as_int(c, "excludedClasses") for c in excluded),  # type: ignore[attr-defined]
        )
    except (OptionError, TypeError) as error:
        raise FormatError(f"{path}: {error}") from error


def open_pctd(folder: Path) -> PctdSet:
    """The blocks of one folder with the three kinds of files.

    Raises
    ------
    FormatError
        A file that is missing, or a table that contradicts the statistics.
    """
    facts = point_facts(folder)
    table = read_table(folder, columns=3, masks="Masks")
    check_counts(table, facts, folder)
    return PctdSet(folder=folder, facts=facts, table=table)


def check_counts(table: BlockTable, facts: PointFacts, folder: Path) -> None:
    """No block has more points than the export says. Raises FormatError."""
    most = int(table.tiles[:, 2].max())
    if most > facts.max_points:
        raise FormatError(
            f"{folder / LIST_TABLE}: a block has {most} points; maxPoints in {STATISTICS} is "
            f"{facts.max_points}."
        )
