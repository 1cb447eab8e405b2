"""The classes of a data set or model, in the order of the network's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import DataError

# (dtype, nodata) of class rasters, smallest first; the nodata value is never a class.
_CLASS_DTYPES = (("uint8", 255), ("uint16", 65535), ("int32", -2147483648))

# Colours for classes that come without one, well apart in hue and lightness.
PALETTE = (
    (230, 75, 53), (77, 187, 213), (0, 160, 135), (60, 84, 136), (243, 155, 127),
    (132, 145, 180), (145, 209, 194), (220, 0, 0), (126, 97, 72), (176, 156, 133),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEntry:
    """One class: its value in labels and products, its name, and a colour (0..255 each)."""

    value: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Classes in network order: entry ``i`` is output ``i + 1``; output 0 is background.

    Value 0 is the background and is no entry. Values and names are unique.
    """

    entries: tuple[ClassEntry, ...]

    def __post_init__(self) -> None:
        for what in ("value", "name"):
            seen = [getattr(entry, what) for entry in self.entries]
            twice = sorted({str(v) for v in seen if seen.count(v) > 1})
            if twice:
                raise DataError(
                    f"the class {what} {', '.join(twice)} is given more than once; give each "
                    f"class a {what} of its own"
                )
        if any(entry.value == 0 for entry in self.entries):
            raise DataError("class value 0 is the background and cannot be a class of its own")

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self.entries)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]

    @property
    def values(self) -> list[int]:
        return [entry.value for entry in self.entries]

    @property
    def index_by_value(self) -> dict[int, int]:
        """Class value to network output, background 0 included."""
        return {0: 0} | {entry.value: i for i, entry in enumerate(self.entries, start=1)}

    def value_of_index(self) -> np.ndarray:
        """int64 (K + 1,): class value of each network output, background first."""
        return np.array([0, *self.values], dtype=np.int64)

    def raster_dtype(self) -> tuple[np.dtype[Any], int]:
        """The smallest dtype of a class raster that holds all values, and its nodata value."""
        for name, nodata in _CLASS_DTYPES:
            info = np.iinfo(name)
            if all(info.min <= v <= info.max and v != nodata for v in self.values):
                return np.dtype(name), nodata
        raise DataError(f"class values {self.values} do not fit 32 bits; renumber the classes")

    def to_json(self) -> list[dict[str, Any]]:
        """The ``Classes`` list of an EMD."""
        return [{"Value": e.value, "Name": e.name, "Color": list(e.color)} for e in self.entries]

    @classmethod
    def from_mapping(cls, mapping: Mapping[int, str]) -> ClassTable:
        """From value to name, in the mapping's order; colours from the palette; 0 is dropped."""
        return cls.from_json([{"Value": v, "Name": n} for v, n in mapping.items()])

    @classmethod
    def from_json(cls, entries: Iterable[Mapping[str, Any]]) -> ClassTable:
        """From EMD (``Value``/``Name``) or statistics (``ClassValue``/``ClassName``) entries.

        Entries with a null value, and value 0, are dropped.

        Raises
        ------
        DataError
            A value that is not a whole number, or values or names given twice.
        """
        table: list[ClassEntry] = []
        for entry in entries:
            value = entry.get("Value", entry.get("ClassValue"))
            if value is None:
                continue
            try:
                number = int(value)
                exact = float(value) == number
            except (TypeError, ValueError, OverflowError):
                exact = False
            if not exact:
                raise DataError(f"class value {value!r} is not a whole number")
            if number == 0:
                continue
            name = entry.get("Name", entry.get("ClassName"))
            name = str(number if name is None else name)
            color = entry.get("Color") or ()
            table.append(ClassEntry(value=number, name=name, color=_color(color, len(table))))
        return cls(tuple(table))


def _color(color: Any, position: int) -> tuple[int, int, int]:
    try:
        red, green, blue = (int(part) for part in color)
    except (TypeError, ValueError):
        return PALETTE[position % len(PALETTE)]
    if all(0 <= part <= 255 for part in (red, green, blue)):
        return red, green, blue
    return PALETTE[position % len(PALETTE)]
