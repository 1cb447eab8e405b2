"""By which band statistics chips are normalised, and computing them where an export has none."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import DataError, FormatError
from geodl.base.files import read_json, write_json
from geodl.core.contract import Normalization

logger = logging.getLogger(__name__)

CACHE_NAME = "esri_normalization_stats.json"
# Below this number every chip is read; above, a share of them.
FEW_CHIPS = 300

_NUMBERED_BAND = re.compile(r"(band|layer|channel|b)?[ _-]?\d*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Of all pixels of a data set, one number per band, in the raster's own values."""

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def bands(self) -> int:
        return len(self.minimum)

    def finite(self) -> bool:
        numbers = (*self.minimum, *self.maximum, *self.mean, *self.std)
        return all(map(math.isfinite, numbers))

    def normalization(self) -> Normalization:
        """Scale each band by its range and deviation.

        A band whose maximum is not above its minimum carries no information; it stays in the
        network's input (so that bands keep their places) with its maximum raised by 1, and one
        whose deviation is 0 is divided by 1.
        """
        low = np.asarray(self.minimum, np.float64)
        high = np.asarray(self.maximum, np.float64)
        high = np.where(high > low, high, low + 1)
        span = high - low
        scaled_std = np.asarray(self.std, np.float64) / span
        return Normalization(
            minimum=tuple(low.tolist()),
            maximum=tuple(high.tolist()),
            scaled_mean=tuple(((np.asarray(self.mean) - low) / span).tolist()),
            scaled_std=tuple(np.where(scaled_std > 0, scaled_std, 1.0).tolist()),
        )


def is_plain_rgb(
    bands: int, dtype: str, band_names: Sequence[str], statistics: BandStatistics | None
) -> bool:
    """Whether the ImageNet statistics fit: 8-bit red, green and blue, in this order.

    Bands without a name, or named by a number (``Band_1``), count as red, green and blue.
    """
    if bands != 3 or dtype != "uint8":
        return False
    if statistics and (min(statistics.minimum) < 0 or max(statistics.maximum) > 255):
        return False
    names = [str(name or "").strip().lower() for name in band_names] or [""] * 3
    if all(_NUMBERED_BAND.fullmatch(name) for name in names):
        return True
    return names == ["red", "green", "blue"]


def merge_statistics(parts: Sequence[tuple[BandStatistics, float]]) -> BandStatistics:
    """Statistics of several sets together.

    Parameters
    ----------
    parts
        Statistics, and the number of pixels (or of equally large chips) that they are of.
    """
    weight = np.array([count for _, count in parts], np.float64)[:, None]
    total = weight.sum()
    means = np.array([s.mean for s, _ in parts], np.float64)
    stds = np.array([s.std for s, _ in parts], np.float64)
    mean = (means * weight).sum(axis=0) / total
    variance = ((stds**2 + (means - mean) ** 2) * weight).sum(axis=0) / total
    return BandStatistics(
        minimum=tuple(np.min([s.minimum for s, _ in parts], axis=0).tolist()),
        maximum=tuple(np.max([s.maximum for s, _ in parts], axis=0).tolist()),
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(variance).tolist()),
    )


class RunningStatistics:
    """Statistics per band over pixels that arrive chip by chip, merged without rounding drift."""

    def __init__(self, bands: int) -> None:
        self.count = np.zeros(bands, np.float64)
        self.mean = np.zeros(bands, np.float64)
        self.squares = np.zeros(bands, np.float64)
        self.low = np.full(bands, np.inf)
        self.high = np.full(bands, -np.inf)

    def add(self, data: np.ndarray, mask: np.ndarray | None) -> None:
        """Take in one chip.

        Parameters
        ----------
        data
            (C, H, W), any numeric dtype; NaN and infinity do not count, band by band.
        mask
            bool (H, W), True where there is data; None: everywhere.
        """
        pixels = data.reshape(len(data), -1) if mask is None else data[:, mask]
        for band, values in enumerate(pixels):
            numbers = values[np.isfinite(values)].astype(np.float64)
            if len(numbers):
                self._add_band(band, numbers)

    def _add_band(self, band: int, numbers: np.ndarray) -> None:
        count, mean = len(numbers), numbers.mean()
        total, delta = self.count[band] + count, mean - self.mean[band]
        # Chan, Golub and LeVeque (1979): the term between the means belongs to the squares.
        between = delta**2 * self.count[band] * count / total
        self.squares[band] += ((numbers - mean) ** 2).sum() + between
        self.mean[band] += delta * count / total
        self.count[band] = total
        self.low[band] = min(self.low[band], numbers.min())
        self.high[band] = max(self.high[band], numbers.max())

    def result(self) -> BandStatistics | None:
        """The statistics so far; 0 for a band without data, None without any data."""
        seen = self.count > 0
        if not seen.any():
            return None
        columns = (
            np.where(seen, self.low, 0.0),
            np.where(seen, self.high, 0.0),
            self.mean,
            np.sqrt(self.squares / np.maximum(self.count, 1)),
        )
        low, high, mean, std = (tuple(column.tolist()) for column in columns)
        return BandStatistics(minimum=low, maximum=high, mean=mean, std=std)


def compute_statistics(
    chips: Iterable[tuple[np.ndarray, np.ndarray | None]], bands: int, where: str
) -> BandStatistics:
    """Statistics over the valid pixels of chips (data, mask) as :class:`RunningStatistics` takes.

    Raises
    ------
    DataError
        No chip has a valid pixel; names ``where``.
    """
    running = RunningStatistics(bands)
    for data, mask in chips:
        running.add(data, mask)
    found = running.result()
    if found is None:
        raise DataError(
            f"The chips of {where} hold no valid pixel, so no band statistics can be computed; "
            "look at their nodata value."
        )
    return found


def sample_share(keys: Sequence[str], share: float, seed: int) -> list[int]:
    """Positions of the chips to compute statistics from: all, or a share drawn by ``seed``."""
    if len(keys) < FEW_CHIPS or share >= 1:
        return list(range(len(keys)))
    count = max(FEW_CHIPS, round(len(keys) * share))
    chosen = np.random.default_rng(seed).permutation(len(keys))[:count]
    return sorted(chosen.tolist())


def fingerprint(files: Iterable[tuple[str, int, int]]) -> str:
    """Of (name, size, modification time in ns) of the chips: other chips, other statistics."""
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()


def cached_statistics(
    folder: Path | None, share: float, identity: str, compute: Callable[[], BandStatistics]
) -> BandStatistics:
    """Statistics from the cache file in the working folder, or computed and put there.

    Parameters
    ----------
    folder
        The working folder; None caches nothing (an export itself is never written to).
    share
        ``norm_pct``; part of the entry's name.
    identity
        :func:`fingerprint` of the chips; an entry of another one is computed anew.
    """
    if folder is None:
        return compute()
    path, key = folder / CACHE_NAME, f"batch_stats_for_norm_pct_{round(share * 100)}"
    content = _read_cache(path)
    found = _from_entry(content.get(key), identity)
    if found is None:
        found = compute()
        content[key] = _to_entry(found, identity)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    return found


def _read_cache(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except FormatError as error:
        logger.info("The cached statistics are computed anew: %s", error)
        return {}
    return content if isinstance(content, dict) else {}


_COLUMNS = ("min", "max", "mean", "std")


def _to_entry(statistics: BandStatistics, identity: str) -> dict[str, Any]:
    scaled = statistics.normalization()
    raw = (statistics.minimum, statistics.maximum, statistics.mean, statistics.std)
    entry: dict[str, Any] = {
        f"band_{name}_values": list(numbers) for name, numbers in zip(_COLUMNS, raw, strict=True)
    }
    unit = ([0.0] * scaled.bands, [1.0] * scaled.bands)
    for name, numbers in zip(_COLUMNS, (*unit, scaled.scaled_mean, scaled.scaled_std), strict=True):
        entry[f"scaled_{name}_values"] = list(numbers)
    return entry | {"chips": identity}


def _from_entry(entry: Any, identity: str) -> BandStatistics | None:
    if not isinstance(entry, dict) or entry.get("chips") != identity:
        return None
    lists = [entry.get(f"band_{name}_values") for name in _COLUMNS]
    if not all(isinstance(v, list) and len(v) == len(lists[0] or ()) for v in lists):
        return None
    low, high, mean, std = (tuple(map(float, numbers)) for numbers in lists if numbers is not None)
    return BandStatistics(minimum=low, maximum=high, mean=mean, std=std)
