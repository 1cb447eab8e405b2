"""Class values out of what rasters and columns hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from geodl.base.errors import DataError


def class_values(
    values: np.ndarray, name: str, *, valid: np.ndarray | None = None, bits: int = 32
) -> np.ndarray:
    """Whole numbers of values that are whole, whatever their dtype.

    Parameters
    ----------
    values
        Any shape.
    name
        Of where they come from, for the message.
    valid
        bool of the same shape, True where there is data; None: everywhere.
    bits
        32 or 64, of the answer.

    Returns
    -------
    int32 or int64 of the same shape; 0 where there is no data.

    Raises
    ------
    DataError
        Values with a fraction, that are not finite, too large, or no numbers.
    """
    clean = values if valid is None else np.where(valid, values, 0)
    dtype: np.dtype[Any] = np.dtype(f"int{bits}")
    if np.can_cast(clean.dtype, dtype):
        return clean.astype(dtype)
    try:
        with np.errstate(invalid="ignore"):  # of what is infinite or too large; it is refused
            whole = clean.astype(dtype)
        exact = bool((whole == clean.astype(np.float64)).all())
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise DataError(
            f"{name} holds values that are no whole numbers of {bits} bits; class values are. Of a "
            "raster of probabilities, make classes first."
        )
    return whole
