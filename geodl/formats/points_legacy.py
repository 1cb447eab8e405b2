"""The older layout of point blocks: ``meta.json`` and one HDF5 file per block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.files import read_json
from geodl.base.options import as_float, as_int
from geodl.formats.hdf5 import dataset, open_h5
from geodl.formats.point_blocks import (
    PointBlock,
    PointFacts,
    canonical_attribute,
    part,
    scaled,
)

META = "meta.json"


@dataclass(frozen=True, kw_only=True)
class LegacySet:
    """Blocks of one folder of the older layout, see `PointSet`."""

    folder: Path
    facts: PointFacts
    files: tuple[Path, ...] = field(repr=False)
    points: tuple[int, ...] = field(repr=False)
    present: tuple[frozenset[int], ...] = field(repr=False)
    order: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].relative_to(self.folder.parent).with_suffix("").as_posix()

    def file(self, index: int) -> Path:
        return self.files[index]

    def counts(self) -> np.ndarray:
        return np.array(self.points, np.int64)

    def has_codes(self, index: int, codes: Sequence[int]) -> bool:
        return not self.present[index].isdisjoint(codes)

    def read(self, index: int, attributes: Sequence[str]) -> PointBlock:
        """A block; its columns are x, z, y and the attributes in the order of ``meta.json``.

        Raises
        ------
        FormatError
            Another shape than ``meta.json`` says, or a class that it does not list.
        """
        path = self.files[index]
        with open_h5(path) as file:
            count = int(np.asarray(dataset(file, "data_num", path)).ravel()[0])
            table = np.asarray(dataset(file, "data", path))
            codes = np.asarray(dataset(file, "label_seg", path)).ravel()
            # The plain values go with the limits of meta.json.
            raw = np.asarray(file["unnormalized_data"]) if "unnormalized_data" in file else table
        expected = (self.facts.max_points, 3 + len(self.order))
        if table.shape != expected or raw.shape != expected or len(codes) != expected[0]:
            raise FormatError(
                f"{path}: 'data' has the shape {table.shape}, 'label_seg' {codes.shape}; {META} "
                f"says {expected[0]} points of {expected[1]} columns."
            )
        if not 0 <= count <= expected[0]:
            raise FormatError(f"{path}: data_num is {count}; the block holds {expected[0]} points.")
        codes = codes[:count].astype(np.int64)
        unknown = sorted(set(codes.tolist()) - set(self.facts.codes))
        if unknown:
            raise FormatError(f"{path}: the class {unknown[0]} is not listed in {META}.")
        xyz = table[:count, [0, 2, 1]] / self.facts.scale
        return PointBlock(xyz.astype(np.float32), self._attributes(raw[:count], attributes), codes)

    def _attributes(self, table: np.ndarray, names: Sequence[str]) -> np.ndarray:
        columns = [
            scaled(table[:, 3 + self.order.index(name)], self.facts.limits[name]) for name in names
        ]
        if not columns:
            return np.zeros((len(table), 0), np.float32)
        return np.concatenate(columns, axis=1)


def is_legacy(path: Path) -> bool:
    """Whether a folder has the older layout."""
    return (path / META).is_file()


def open_legacy(path: Path) -> dict[str, LegacySet]:
    """The sets ``train`` and ``val`` of an export of the older layout.

    Raises
    ------
    FormatError
        ``meta.json`` is broken, lists no block of one of the sets, or names a missing file.
    """
    where = path / META
    meta = read_json(where)
    if not isinstance(meta, dict):
        raise FormatError(f"{where} holds {type(meta).__name__}; expected a JSON object.")
    facts, order = _facts(meta, where)
    listed = part(meta, "files", where)
    sets: dict[str, LegacySet] = {}
    for name in ("train", "val"):
        entries = {}
        for relative, entry in listed.items():
            parts = [p for p in relative.replace("\\", "/").split("/") if p]
            if ".." in parts or not isinstance(entry, dict):
                raise FormatError(f"{where}: the entry {relative!r} of 'files' is broken.")
            if name in parts[:-1]:
                entries[path.joinpath(*parts)] = entry
        if not entries:
            raise FormatError(f"{where} lists no block in {name!r}; export the points again.")
        sets[name] = _set(path / name, entries, facts, order, where)
    return sets


def _set(
    folder: Path,
    entries: Mapping[Path, Mapping[str, Any]],
    facts: PointFacts,
    order: tuple[str, ...],
    where: Path,
) -> LegacySet:
    missing = [file for file in entries if not file.is_file()]
    if missing:
        raise FormatError(f"{where} names {missing[0]}, which is missing; export the points again.")
    try:
        points = tuple(
            as_int(e.get("total_points"), "total_points", minimum=0) for e in entries.values()
        )
        present = tuple(
            frozenset(as_int(c, "unique_classes") for c in e.get("unique_classes", ()))
            for e in entries.values()
        )
    except (OptionError, TypeError) as error:
        raise FormatError(f"{where}: {error}") from error
    return LegacySet(
        folder=folder,
        facts=facts,
        files=tuple(entries),
        points=tuple(min(count, facts.max_points) for count in points),
        present=present,
        order=order,
    )


def _facts(meta: Mapping[str, Any], where: Path) -> tuple[PointFacts, tuple[str, ...]]:
    try:
        sides = meta.get("block_size")
        side = as_float(sides[0] if isinstance(sides, list) and sides else sides, "block_size")
        codes = tuple(sorted(as_int(code, "classes") for code in meta.get("classes", ())))
        limits = {}
        for name, high, low in meta.get("extra_features") or ():
            pair = as_float(low, name), as_float(high, name)
            limits[canonical_attribute(str(name))] = (np.array([pair[0]]), np.array([pair[1]]))
        facts = PointFacts(
            max_points=as_int(meta.get("max_point"), "max_point", minimum=1),
            tile_size=side,
            scale=side / 2,
            limits=limits,
            codes=codes,
            statistics=dict(meta),
        )
    except (OptionError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: {error}") from error
    if not codes or side <= 0:
        raise FormatError(f"{where} lists no classes, or a block size that is not above 0.")
    return facts, tuple(limits)
