"""Columns of features that say class and score, found by themselves where none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from geodl.base.errors import DataError, OptionError
from geodl.base.options import nearest

if TYPE_CHECKING:
    import geopandas as gpd

CLASS_FIELDS = ("Classvalue", "Value")
SCORE_FIELD = "Confidence"
ONE_CLASS = "Object"
"""Class of features that state none."""


def find_field(
    frame: gpd.GeoDataFrame, given: str | None, usual: tuple[str, ...], argument: str
) -> str | None:
    """A column by its name, else the first usual one in any spelling of upper and lower case.

    Parameters
    ----------
    given
        Named by the caller; None looks for the usual ones.
    usual
        Most telling first.
    argument
        Through which the caller names it, for the message.

    Returns
    -------
    The column's name, or None where none was named and none found.

    Raises
    ------
    OptionError
        The column that was named is not there.
    """
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if given is not None:
        if given in columns:
            return given
        raise OptionError(
            f"{argument}={given!r} is no column of the features.{nearest(given, columns)} "
            f"They have: {', '.join(columns) or 'none'}."
        )
    by_fold = {name.casefold(): name for name in reversed(columns)}
    return next((by_fold[name.casefold()] for name in usual if name.casefold() in by_fold), None)


def class_texts(frame: gpd.GeoDataFrame, field: str | None) -> np.ndarray:
    """str (N,): class of each feature; whole numbers look alike in every type of column.

    Without a field all are one class. A missing value is a class of its own.
    """
    if field is None:
        return np.full(len(frame), ONE_CLASS, dtype=object)
    values = frame[field]
    if pd.api.types.is_float_dtype(values.dtype):
        texts = [f"{v:.17g}" if np.isfinite(v) else "" for v in values.to_numpy(np.float64)]
    else:
        texts = [
            "" if missing else str(v) for v, missing in zip(values, values.isna(), strict=True)
        ]
    return np.array(texts, dtype=object)


def scores_of(frame: gpd.GeoDataFrame, field: str) -> np.ndarray:
    """float64 (N,): scores in a column.

    Raises
    ------
    DataError
        Values that are no finite numbers.
    """
    scores = pd.to_numeric(frame[field], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise DataError(
            f"{bad} of {len(scores)} features have no finite number in the column {field!r}, which "
            "holds the scores; drop them, or name another column."
        )
    return scores


def natural_order(names: set[str]) -> list[str]:
    """Class texts, numbers by value first, then the others."""

    def key(text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), text
        except ValueError:
            return 1, 0.0, text

    return sorted(names, key=key)
