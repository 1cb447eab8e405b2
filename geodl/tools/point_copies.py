"""Classes of tiles brought back into copies of the files that the points came from."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import OptionError
from geodl.io.cloud import SUFFIXES, Cloud
from geodl.io.copc import read_octree
from geodl.io.las_copy import check_copy, copy_cloud, most_code, with_values
from geodl.io.las_file import LasFile
from geodl.io.las_records import ExtraColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRules:
    """Which points get which classes, and what else is written.

    Parameters
    ----------
    overwrite
        Present codes that are replaced; None: all.
    keep
        Present codes that stay, also among those of ``overwrite``.
    write
        Codes that may be given; None: all of ``codes``.
    codes
        Those of the model's scores.
    confidence, probabilities
        Whether they become extra dimensions.
    """

    overwrite: tuple[int, ...] | None
    keep: tuple[int, ...]
    write: tuple[int, ...] | None
    codes: tuple[int, ...]
    confidence: bool
    probabilities: bool

    def answer(self) -> dict[str, Any]:
        """JSON of all of it: it changes the result."""
        return {
            "overwrite": None if self.overwrite is None else list(self.overwrite),
            "keep": list(self.keep),
            "write": None if self.write is None else list(self.write),
            "confidence": self.confidence,
            "probabilities": self.probabilities,
        }

    def replaced(self) -> np.ndarray:
        """bool (256,): which present codes are replaced."""
        found = np.full(256, self.overwrite is None)
        found[[code for code in self.overwrite or () if code < 256]] = True
        found[[code for code in self.keep if code < 256]] = False
        return found

    def columns(self) -> list[ExtraColumn]:
        """The extra dimensions of the copies."""
        plain = np.dtype("<f4")
        found = (
            [ExtraColumn("confidence", plain, "of the class, 0 to 1")] if self.confidence else []
        )
        if self.probabilities:
            found += [
                ExtraColumn(f"probability_{code}", plain, f"of class {code}, 0 to 1")
                for code in self.codes
            ]
        return found


def check_targets(cloud: Cloud, targets: Sequence[Path], rules: ClassRules) -> None:
    """Find out before the run what would stop its end.

    Raises
    ------
    OptionError
        A class code that a file's point format cannot hold, a copy that would replace its own
        source, or an extra dimension that a file has already.
    NotSupportedError
        A file that the added dimensions cannot be written to.
    """
    highest = max(rules.write or rules.codes)
    for file, target in zip(cloud.files, targets, strict=True):
        most = most_code(file.layout.format_id)
        if highest > most:
            raise OptionError(
                f"{file.name} has the point format {file.layout.format_id}, whose classes end at "
                f"{most}; the model gives {highest}. Choose classes={{'write': [...]}} without it, "
                "or convert the file to point format 6 or above."
            )
        local = file.location.local
        if local is not None and target.exists() and local.samefile(target):
            raise OptionError(
                f"The output {target} is the input itself; give another name, files are never "
                "changed in place."
            )
        taken = {name.lower() for name in file.dimensions}
        twice = [c.name for c in rules.columns() if c.name.lower() in taken]
        if twice:
            raise OptionError(
                f"{file.name} has a dimension {twice[0]!r} already; leave out "
                f"{'confidence' if twice[0] == 'confidence' else 'probabilities'}."
            )
        check_copy(file, target, rules.columns())


def copy_targets(cloud: Cloud, product: Path) -> list[Path]:
    """Where the copy of each file goes: the product, or files of their names inside it."""
    if product.suffix.lower() in SUFFIXES:
        return [product]
    stems = [file.location.stem for file in cloud.files]
    targets = []
    for number, file in enumerate(cloud.files):
        stem = stems[number]
        if stems.count(stem) > 1:
            stem = f"{stem}_{number}"
        if read_octree(file.layout) is None:
            stem = stem.removesuffix(".copc")
        targets.append(product / f"{stem}{'.laz' if file.layout.compressed else '.las'}")
    return targets


def write_copies(
    cloud: Cloud,
    targets: Sequence[Path],
    labels: Iterable[Path],
    dtype: np.dtype[Any],
    rules: ClassRules,
    folder: Path,
) -> None:
    """Write the copies of all files.

    Parameters
    ----------
    labels
        Files of classified points of ``dtype``, one for each tile; some may be missing.
    folder
        Takes the labels in the order of the files meanwhile; memory stays bounded.
    """
    tables = [_Table(folder / f"points_{k}.bin", f, dtype) for k, f in enumerate(cloud.files)]
    for name in labels:
        if not name.exists():
            continue
        found = np.load(name, allow_pickle=False)
        for source in np.unique(found["source"]).tolist():
            tables[source].put(found[found["source"] == source])
    for file, target, table in zip(cloud.files, targets, tables, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        choose = partial(_choose, table=table, replaced=rules.replaced())
        change = partial(with_values, format_id=file.layout.format_id, choose=choose)
        copy_cloud(file, target, change, extra=rules.columns())


class _Table:
    """What is known of each point of a file, in the file's order, in a file that is mapped.

    Pages are let go of after each use: what the system keeps of them is not this process's memory,
    which Dask and batch systems limit.
    """

    def __init__(self, path: Path, file: LasFile, dtype: np.dtype[Any]) -> None:
        kept = [name for name in dtype.names or () if name not in ("source", "index")]
        own = np.dtype([("seen", np.bool_), *((name, dtype[name]) for name in kept)])
        self._pages: mmap.mmap | None = None
        self._points = np.zeros(0, own)
        if file.count:
            with open(path, "w+b") as handle:
                handle.truncate(file.count * own.itemsize)
                self._pages = mmap.mmap(handle.fileno(), file.count * own.itemsize)
            self._points = np.frombuffer(self._pages, own)

    def put(self, found: np.ndarray) -> None:
        """Take in classified points of this file."""
        place = found["index"]
        self._points["seen"][place] = True
        for name in self._points.dtype.names or ():
            if name != "seen":
                self._points[name][place] = found[name]
        self._let_go()

    def take(self, first: int, count: int) -> np.ndarray:
        """Consecutive points."""
        found = self._points[first : first + count].copy()
        self._let_go()
        return found

    def _let_go(self) -> None:
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if self._pages is not None and advice is not None:
            self._pages.madvise(advice)


def _choose(
    present: np.ndarray, first: int, *, table: _Table, replaced: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """New codes of consecutive points, and the values of the extra dimensions."""
    own = table.take(first, len(present))
    codes = np.where(own["seen"] & replaced[present], own["label"], present)
    columns = [own[name] for name in own.dtype.names or () if name not in ("seen", "label")]
    return codes, columns
