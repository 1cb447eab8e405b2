"""Class values and names from the columns of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from geodl.base.errors import DataError
from geodl.base.options import nearest
from geodl.core.classes import ClassTable

_VALUE_FIELDS = ("classvalue", "class_value", "value")
_NAME_FIELDS = ("classname", "class_name", "class")


def classes_of(
    table: pd.DataFrame, field: str | None, known: ClassTable | None = None
) -> tuple[np.ndarray, ClassTable]:
    """The class value of each row, and the classes.

    Whole numbers are class values; their names come from a field such as ``classname`` where each
    value has one name there, else they are the numbers. Texts are names, numbered from 1 in
    alphabetical order. Without a class field every row is of class 1.

    Parameters
    ----------
    table
        Columns of the labels, geometry left out.
    field
        Name of the class field; None looks for ``classvalue`` or ``value`` in any case.
    known
        Classes of an export that is appended to: its names keep their values.

    Returns
    -------
    values
        int64 (N,).
    classes
        Those of the rows and the known ones.

    Raises
    ------
    DataError
        The field does not exist (the fields are listed), or holds nulls, 0, fractions, or texts
        beside numbers.
    """
    chosen = _field(list(map(str, table.columns)), field)
    if chosen is None:
        values, names = np.ones(len(table), np.int64), {1: "1"}
    else:
        column = table[chosen]
        _refuse_nulls(column, chosen)
        values, names = _numbered(column, chosen, known)
        if all(name == str(value) for value, name in names.items()):
            names = _named(table, values, chosen, names)
    return values, _united(names, known)


def _field(columns: Sequence[str], field: str | None) -> str | None:
    if field is None:
        lower = {column.lower(): column for column in reversed(columns)}
        return next((lower[name] for name in _VALUE_FIELDS if name in lower), None)
    if field in columns:
        return field
    same = [column for column in columns if column.lower() == field.lower()]
    if len(same) == 1:
        return same[0]
    raise DataError(
        f"The labels have no field {field!r}.{nearest(field, columns)} Their fields are: "
        f"{', '.join(columns) or 'none'}."
    )


def has_class(table: pd.DataFrame, field: str | None) -> np.ndarray:
    """bool (N,): rows with a value in the class field; all of them where there is no such field.

    Raises
    ------
    DataError
        The field does not exist.
    """
    chosen = _field(list(map(str, table.columns)), field)
    return np.ones(len(table), bool) if chosen is None else ~_empty(table[chosen])


def _empty(column: pd.Series) -> np.ndarray:
    return np.asarray(column.isna() | column.astype(object).map(_blank), bool)


def _refuse_nulls(column: pd.Series, field: str) -> None:
    empty = _empty(column)
    if empty.any():
        rows = ", ".join(map(str, np.flatnonzero(empty)[:5]))
        raise DataError(
            f"{int(empty.sum())} of {len(column)} labels have no class in field {field!r} (rows "
            f"{rows}{', ...' if empty.sum() > 5 else ''}); fill them in or drop those rows."
        )


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _numbered(
    column: pd.Series, field: str, known: ClassTable | None
) -> tuple[np.ndarray, dict[int, str]]:
    """Values of the rows, and the names of the values."""
    listed = column.tolist()
    whole = [_whole(value) for value in listed]
    if all(value is not None for value in whole):
        values = np.array(whole, np.int64).reshape(-1)
        if (values == 0).any():
            raise DataError(
                f"Field {field!r} holds the class 0, which is the background; number the classes "
                "from 1, or drop those rows."
            )
        return values, {int(value): str(value) for value in np.unique(values)}
    if all(isinstance(value, str) and _whole(value) is None for value in listed):
        return _texts([value.strip() for value in listed], known)
    odd = sorted(
        {f"{value!r}" for value, number in zip(listed, whole, strict=True) if number is None}
    )
    raise DataError(
        f"Field {field!r} mixes class numbers with other values ({', '.join(odd[:3])}); use whole "
        "numbers throughout, or names throughout."
    )


def _whole(value: Any) -> int | None:
    """The whole number that a value is, or None."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        number = int(value)
        exact = isinstance(value, str) or float(value) == number
    except (TypeError, ValueError, OverflowError):
        return None
    return number if exact and -(2**31) < number < 2**31 else None


def _texts(listed: list[str], known: ClassTable | None) -> tuple[np.ndarray, dict[int, str]]:
    numbers = {entry.name: entry.value for entry in known or ()}
    free = max([0, *numbers.values()]) + 1
    for name in sorted(set(listed) - set(numbers)):
        numbers[name] = free
        free += 1
    values = np.array([numbers[name] for name in listed], np.int64)
    return values, {numbers[name]: name for name in sorted(set(listed), key=numbers.__getitem__)}


def _named(
    table: pd.DataFrame, values: np.ndarray, field: str, names: dict[int, str]
) -> dict[int, str]:
    """Names from a field beside the values, where it has exactly one for each value."""
    for column in map(str, table.columns):
        if column.lower() not in _NAME_FIELDS or column == field:
            continue
        pairs = pd.DataFrame({"value": values, "name": table[column].to_numpy()}).dropna()
        pairs["name"] = pairs["name"].astype(str).str.strip()
        pairs = pairs[pairs["name"] != ""].drop_duplicates()
        if pairs["value"].is_unique and pairs["name"].is_unique:
            found = dict(zip(pairs["value"].tolist(), pairs["name"].tolist(), strict=True))
            merged = names | found
            if len(set(merged.values())) == len(merged):
                return merged
    return names


def _united(names: dict[int, str], known: ClassTable | None) -> ClassTable:
    if known is None:
        return ClassTable.from_mapping(names)
    before = {entry.value: entry.name for entry in known}
    for value, name in names.items():
        if before.get(value, name) != name and name != str(value):
            raise DataError(
                f"Class {value} is {name!r} in the labels and {before[value]!r} in the export that "
                "is appended to; rename one of them, or export to another folder."
            )
    added = [{"Value": v, "Name": n} for v, n in names.items() if v not in before]
    return ClassTable.from_json([*known.to_json(), *added])


def classes_of_values(
    values: Iterable[int], known: ClassTable | None, names: Mapping[int, str] | None = None
) -> ClassTable:
    """The classes of a class raster, named by ``names`` or their numbers; 0 is left out."""
    chosen = names or {}
    found = {value: chosen.get(value, str(value)) for value in sorted(set(values) - {0})}
    if len(set(found.values())) < len(found):
        found = {value: str(value) for value in found}
    return _united(found, known)


def united(tables: Iterable[ClassTable]) -> ClassTable:
    """The classes of several tables by value; the first name of a value counts.

    Raises
    ------
    DataError
        Two values of one name.
    """
    entries: dict[int, dict[str, Any]] = {}
    for table in tables:
        for entry in table.to_json():
            entries.setdefault(entry["Value"], entry)
    return ClassTable.from_json(entries[value] for value in sorted(entries))
