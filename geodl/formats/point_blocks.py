"""Blocks of classified points: what the readers of both layouts share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import nearest

STATISTICS = "Statistics.json"
LIST_TABLE = "ListTable.h5"
# Names that older exports and LAS itself use, and the ones of today's exports.
ATTRIBUTE_NAMES = {
    "intensity": "intensity",
    "numberOfReturns": "number_of_returns",
    "returnNumber": "return_number",
    "red": "red",
    "green": "green",
    "blue": "blue",
    "nearInfrared": "nir",
}
_OLD_NAMES = {
    "num_returns": "numberOfReturns",
    "return_num": "returnNumber",
    "nir": "nearInfrared",
    "number_of_returns": "numberOfReturns",
    "return_number": "returnNumber",
    "near_infrared": "nearInfrared",
}

# In the statistics of geodl's own exports, among the parameters.
UNIT_KEY = "unitMetres"


@dataclass(frozen=True, slots=True)
class PointBlock:
    """Points of one block.

    Parameters
    ----------
    xyz
        float32 (N, 3): metres (units of the CRS) from the block's centre, divided by ``scale``
        of its set; x and y within -1..1.
    attributes
        float32 (N, F), each scaled to 0..1 by the limits of the export.
    codes
        int64 (N,) LAS class codes; None where the points have none.
    """

    xyz: np.ndarray
    attributes: np.ndarray
    codes: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class PointFacts:
    """What an export says of its blocks.

    Parameters
    ----------
    max_points
        Most points of a block.
    tile_size
        Side or diameter of a block, in units of the CRS.
    scale
        Units of the CRS per unit of ``xyz``.
    limits
        Attribute to its least and largest value, float64 (columns,) each.
    codes
        Class codes, ascending.
    excluded
        Codes that the export asks not to learn from.
    """

    max_points: int
    tile_size: float
    scale: float
    limits: Mapping[str, tuple[np.ndarray, np.ndarray]]
    codes: tuple[int, ...]
    excluded: tuple[int, ...] = ()
    block_shape: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def unit_m(self) -> float | None:
        """Metres in a unit of the CRS; None where the export does not say."""
        parameters = self.statistics.get("parameters")
        value = parameters.get(UNIT_KEY) if isinstance(parameters, Mapping) else None
        if isinstance(value, int | float) and value is not True and 0 < value < math.inf:
            return float(value)
        return None


class PointSet(Protocol):
    """Blocks of one folder, read one by one. Picklable, holds no open file."""

    @property
    def folder(self) -> Path: ...

    @property
    def facts(self) -> PointFacts: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Unique name of a block: its file and its number."""
        ...

    def file(self, index: int) -> Path:
        """Where a block lies."""
        ...

    def counts(self) -> np.ndarray:
        """int64 (N,): points of each block."""
        ...

    def has_codes(self, index: int, codes: Sequence[int]) -> bool:
        """Whether a block has a point of one of the class codes."""
        ...

    def read(self, index: int, attributes: Sequence[str]) -> PointBlock:
        """A block. Raises FormatError, which names the file."""
        ...


def canonical_attribute(name: str) -> str:
    """Today's name of an attribute: ``nearInfrared`` for ``nir``."""
    return _OLD_NAMES.get(name, name)


def check_attributes(wanted: Sequence[str], facts: PointFacts, where: Path) -> tuple[str, ...]:
    """The attributes by today's names.

    Raises
    ------
    OptionError
        One that the export does not hold, or the same twice.
    """
    names = attribute_names(wanted)
    for name in names:
        if name not in facts.limits:
            raise OptionError(
                f"extra_features: {where} holds no {name!r}.{nearest(name, facts.limits)} "
                f"It has: {', '.join(facts.limits) or 'none'}."
            )
    return names


def attribute_names(given: Any) -> tuple[str, ...]:
    """``extra_features`` by today's names. Raises OptionError on no list, or the same twice."""
    if isinstance(given, (str, bytes)) or not isinstance(given, (list, tuple)):
        raise OptionError(f"extra_features={given!r} is no list of attribute names.")
    names = tuple(canonical_attribute(str(name)) for name in given)
    if len(set(names)) != len(names):
        raise OptionError(f"extra_features={list(given)} names an attribute twice.")
    return names


def columns_of(facts: PointFacts, attributes: Sequence[str]) -> int:
    """Columns that the attributes take together."""
    return sum(len(facts.limits[name][0]) for name in attributes)


def scaled(values: np.ndarray, limits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """float32 (N, columns): ``(v - min) / (max - min)``; 0 where both are equal."""
    low, high = limits
    span = np.where(high > low, high - low, 1.0)
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    return ((table - low) / span).astype(np.float32)


def read_statistics(path: Path) -> dict[str, Any]:
    """``Statistics.json``. Raises FormatError where it is missing or no JSON object."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise FormatError(
            f"{path} is missing; the export is incomplete. Export it again."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} is no JSON file ({error}); export the points again.") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds {type(value).__name__}; expected a JSON object.")
    return value


def part(value: Mapping[str, Any], key: str, where: Path) -> dict[str, Any]:
    """A JSON object inside another. Raises FormatError where there is none."""
    found = value.get(key)
    if not isinstance(found, dict):
        raise FormatError(f"{where} has no JSON object {key!r}; export the points again.")
    return found


def code_list(table: Any, where: Path) -> tuple[int, ...]:
    """The ``classCode`` of each entry of a class table, ascending. Raises FormatError."""
    entries = table if isinstance(table, list) else []
    found = [entry.get("classCode") if isinstance(entry, dict) else None for entry in entries]
    codes = [code for code in found if type(code) is int]
    if not codes or len(codes) != len(found):
        raise FormatError(f"{where}: 'table' must list a whole 'classCode' for every class.")
    if len(set(codes)) != len(codes):
        raise FormatError(f"{where}: a classCode is given more than once.")
    return tuple(sorted(codes))


def attribute_limits(
    attributes: Mapping[str, Any], where: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Attribute to its limits, ``xyz`` and ``rgbType`` left out. Raises FormatError."""
    found = {}
    for name, entry in attributes.items():
        if name in ("xyz", "rgbType") or not isinstance(entry, dict):
            continue
        try:
            low, high = (
                np.atleast_1d(np.asarray(entry[key], np.float64)) for key in ("min", "max")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{where}: {name} has no numbers 'min' and 'max'.") from error
        if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high)).all():
            raise FormatError(f"{where}: 'min' and 'max' of {name} do not fit together.")
        found[name] = (low, high)
    return found
