"""What the caller of `prepare_data` asked for, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_float, as_int

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """The arguments of `prepare_data` in plain types; see there for what they mean.

    ``class_mapping`` has whole numbers as keys, ``resize_to`` is (height, width), ``options``
    holds the keywords, unchecked.
    """

    paths: tuple[Path, ...]
    dataset_type: str
    class_mapping: Mapping[int, str]
    chip_size: int
    val_split_pct: float
    batch_size: int | None
    transforms: Any
    collate_fn: Callable[..., Any]
    seed: int
    resize_to: tuple[int, int] | None
    working_dir: Path | None
    options: Mapping[str, Any]


def as_paths(path: PathLike | Sequence[PathLike]) -> tuple[Path, ...]:
    """One or more folders.

    Raises
    ------
    OptionError
        Neither a path nor a list of paths, an empty list, or a folder given twice.
    """
    several: list[PathLike] = [path] if isinstance(path, (str, os.PathLike)) else []
    if isinstance(path, (list, tuple)):
        several = list(path)
    if not several or not all(isinstance(one, (str, os.PathLike)) for one in several):
        raise OptionError(f"path={path!r} is neither a folder nor a list of folders.")
    paths = tuple(Path(one).expanduser() for one in several)
    twice = [p for p in paths if paths.count(p) > 1]
    if twice:
        raise OptionError(f"path names the folder {twice[0]} twice; name it once.")
    return paths


def as_class_mapping(mapping: Mapping[Any, Any] | None) -> dict[int, str]:
    """Class value to name, from values as numbers or text.

    Raises
    ------
    OptionError
        No dict, or a key that is no whole number.
    """
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise OptionError(
            f"class_mapping={mapping!r} is no dict; give {{value: name}}, as in {{1: 'tree'}}."
        )
    return {as_int(value, "a key of class_mapping"): str(name) for value, name in mapping.items()}


def as_size(size: Any) -> tuple[int, int] | None:
    """(height, width) in pixels from a number, a pair, or None.

    Raises
    ------
    OptionError
        Anything else, or a side below 1.
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(pair) != 2:
        raise OptionError(f"resize_to={size!r} is neither a number nor (height, width).")
    return as_int(pair[0], "resize_to", minimum=1), as_int(pair[1], "resize_to", minimum=1)


def as_share(value: Any) -> float:
    """``val_split_pct``: at least 0 and below 1.

    Raises
    ------
    OptionError
        Outside that range; 10 for 10 % is explained.
    """
    share = as_float(value, "val_split_pct")
    if not 0 <= share < 1:
        raise OptionError(
            f"val_split_pct={share:g} lies outside 0..1; it is a share: 0.1 keeps a tenth of the "
            "chips for validation."
        )
    return share
