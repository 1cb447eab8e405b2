"""Statistics that merge exactly: the result does not depend on the order or grouping of parts.

Sums are kept as rationals. A float64 is a rational, so adding parts loses nothing, and the one
rounding happens when mean or deviation is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

# Squares of 16-bit numbers stay below 2**32, so sums over 2**20 of them are exact in float64.
_EXACT_RUN = 2**20
# Squares of bytes are below 2**16, and sums over 2**16 of them fit 32 bits.
_EXACT_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class BandState:
    """Pixels of one band: count, extremes, sum and sum of squares; empty by default.

    ``+`` merges two states exactly. Minimum is inf and maximum -inf where there is no pixel.
    """

    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    def __add__(self, other: BandState) -> BandState:
        return BandState(
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        """The mean, correctly rounded; nan where there is no pixel."""
        return float(self.total / self.count) if self.count else math.nan

    @property
    def squared_deviations(self) -> float:
        """Sum of squared deviations from the mean (``M2``); nan where there is no pixel."""
        if not self.count:
            return math.nan
        return max(0.0, float(self.squares - self.total * self.total / self.count))

    @property
    def std(self) -> float:
        """Population standard deviation; nan where there is no pixel."""
        return math.sqrt(self.squared_deviations / self.count) if self.count else math.nan

    @classmethod
    def from_moments(
        cls, count: int, minimum: float, maximum: float, mean: float, squared_deviations: float
    ) -> BandState:
        """From stored moments, for example ``BandStatsState`` of an older export."""
        if count == 0:
            return cls()
        centre = Fraction(mean)
        total = centre * count
        squares = Fraction(squared_deviations) + total * centre
        return cls(count, float(minimum), float(maximum), total, squares)

    def to_json(self) -> list[Any]:
        if not self.count:
            return [0, None, None, "0", "0"]
        return [self.count, self.minimum, self.maximum, str(self.total), str(self.squares)]

    @classmethod
    def from_json(cls, value: list[Any]) -> BandState:
        count, minimum, maximum, total, squares = value
        if not count:
            return cls()
        return cls(count, minimum, maximum, Fraction(total), Fraction(squares))


def band_state(values: np.ndarray) -> BandState:
    """State of the finite values of an array.

    Parameters
    ----------
    values
        Real numbers of any dtype and shape. NaN and infinities are left out.
    """
    flat = values.reshape(-1)
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    if not flat.size:
        return BandState()
    if flat.dtype.kind in "ub" and flat.dtype.itemsize == 1:
        return _of_bytes(flat)
    low, high = float(flat.min()), float(flat.max())
    if flat.dtype.kind in "iub" and flat.dtype.itemsize <= 2:
        total = squares = 0
        for start in range(0, flat.size, _EXACT_RUN):
            part = flat[start : start + _EXACT_RUN].astype(np.float64)
            total += int(part.sum())
            # Not a dot product: its threads would fight those that call this.
            squares += int(np.square(part).sum())
        return BandState(flat.size, low, high, Fraction(total), Fraction(squares))
    wide = flat.astype(np.float64)
    mean = float(wide.mean())
    wide -= mean
    return BandState.from_moments(flat.size, low, high, mean, float(np.square(wide).sum()))


def _of_bytes(flat: np.ndarray) -> BandState:
    """State of 8-bit values, three times as fast as by way of float64."""
    total = squares = 0
    for start in range(0, flat.size, _EXACT_BYTES):
        part = flat[start : start + _EXACT_BYTES].astype(np.uint32)
        total += int(part.sum(dtype=np.uint32))
        squares += int(np.einsum("i,i->", part, part))
    return BandState(
        flat.size, float(flat.min()), float(flat.max()), Fraction(total), Fraction(squares)
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """``Min``, ``Max``, ``Mean``, ``Sum`` and ``Count`` of some numbers; ``+`` merges exactly."""

    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction = Fraction(0)

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
        )

    @classmethod
    def of(cls, numbers: Any) -> Summary:
        """Of finite numbers; an empty sequence gives the empty summary."""
        listed = [float(number) for number in numbers]
        if not listed:
            return cls()
        return cls(len(listed), min(listed), max(listed), sum(map(Fraction, listed), Fraction(0)))

    @property
    def mean(self) -> float:
        return float(self.total / self.count) if self.count else 0.0

    def to_json(self) -> list[Any]:
        if not self.count:
            return [0, None, None, "0"]
        return [self.count, self.minimum, self.maximum, str(self.total)]

    @classmethod
    def from_json(cls, value: list[Any]) -> Summary:
        count, minimum, maximum, total = value
        return cls(count, minimum, maximum, Fraction(total)) if count else cls()
