"""HDF5 files, opened for one read: handles survive neither pickling nor a fork."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import FormatError
from geodl.base.packages import require


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """A read handle of ``h5py``; what goes wrong inside becomes a FormatError with the file's name.

    Raises
    ------
    FormatError
        Missing, unreadable or truncated.
    MissingPackageError
        h5py is not installed.
    """
    h5py = require("h5py", "points")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing; export the points again.") from error
    except (OSError, RuntimeError) as error:
        raise FormatError(
            f"{path} cannot be read as HDF5 ({error}); it may be truncated. Export it again."
        ) from error


def dataset(file: Any, name: str, path: Path) -> Any:
    """A data set of an open file. Raises FormatError where there is none of the name."""
    found = file.get(name)
    if found is None or not hasattr(found, "shape"):
        raise FormatError(f"{path} has no data set {name!r}; it holds {', '.join(file) or 'none'}.")
    return found


def rows(file: Any, name: str, path: Path, start: int, count: int) -> np.ndarray:
    """``count`` rows from ``start`` of a data set. Raises FormatError where it is shorter."""
    table = dataset(file, name, path)
    if table.shape[0] < start + count:
        raise FormatError(
            f"{path}: {name!r} has {table.shape[0]} rows; a block of the list table needs "
            f"{start + count}."
        )
    return np.asarray(table[start : start + count])
