"""Counts of a finished export, read back from its root files so that more chips can be added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import as_float, as_int
from geodl.formats.base import ESRI_STATS, ChipFolder, counts_pixels
from geodl.formats.counts import ClassCount, ExportCounts
from geodl.ops.statistics import BandState, Summary


def counts_of_export(folder: ChipFolder, stats: Mapping[str, Any]) -> ExportCounts:
    """The counts that ``esri_accumulated_stats.json`` states.

    Parameters
    ----------
    folder
        The opened export.
    stats
        Its accumulated statistics.

    Raises
    ------
    FormatError
        A count is missing or no number; names the key.
    """
    where = folder.path / ESRI_STATS
    chips = _whole(stats.get("NumTiles", stats.get("NumTilesAsDouble")), "NumTiles", where)
    objects = not counts_pixels(folder.kind)
    name = "FeatureStats" if objects else "ClassPixelStats"
    group = stats.get(name)
    if not isinstance(group, dict):
        raise FormatError(f"{where} has no {name}; the export cannot be added to.")
    keys = (
        ("NumFeaturesPerClass", "FeatureAreaPerClass", "NumFeaturesPerImage")
        if objects
        else ("NumPixelsPerClass", "PixelsPerClass", "NumClassesPerImage")
    )
    values = [_class_value(entry, where) for entry in stats.get("Classes") or ()]
    images = _list(group, "NumImagesPerClass", len(values), where)
    totals = _list(group, keys[0], len(values), where)
    sizes = _list(group, keys[1], len(values), where)
    classes = {
        value: ClassCount(
            _whole(image, "NumImagesPerClass", where),
            _whole(total, keys[0], where),
            _summary(size, keys[1], where),
        )
        for value, image, total, size in zip(values, images, totals, sizes, strict=True)
    }
    per_image = _summary(group.get(keys[2]), keys[2], where)
    return ExportCounts(
        chips,
        _bands(folder, stats, chips, where),
        classes,
        per_image,
        _states(stats.get("BandStatsState2") or (), where),
    )


def _bands(
    folder: ChipFolder, stats: Mapping[str, Any], chips: int, where: Path
) -> tuple[BandState, ...]:
    """The running statistics of each band; older exports state mean and deviation only."""
    listed = stats.get("BandStatsState")
    if isinstance(listed, list) and len(listed) == folder.bands:
        return _states(listed, where)
    if folder.stats is None:
        raise FormatError(
            f"{where} holds no BandStatsState, and the EMD no AllTilesStats; the statistics of the "
            "export cannot be added to. Export to another folder."
        )
    pixels = chips * folder.tile_size[0] * folder.tile_size[1]
    return tuple(
        BandState.from_moments(pixels, s.minimum, s.maximum, s.mean, s.std**2 * pixels)
        for s in folder.stats
    )


def _states(listed: Iterable[Any], where: Path) -> tuple[BandState, ...]:
    found = []
    for entry in listed:
        if not isinstance(entry, dict):
            raise FormatError(f"{where}: an entry of BandStatsState is no JSON object.")
        count = _whole(entry.get("Num"), "Num", where)
        moments = (_number(entry.get(key), key, where) for key in ("Min", "Max", "M1", "M2"))
        found.append(BandState.from_moments(count, *moments))
    return tuple(found)


def _class_value(entry: Any, where: Path) -> int:
    value = entry.get("ClassValue", entry.get("Value")) if isinstance(entry, dict) else None
    try:
        return as_int(value, "ClassValue")
    except OptionError as error:
        raise FormatError(f"{where}: {error}") from error


def _list(group: Mapping[str, Any], key: str, length: int, where: Path) -> list[Any]:
    found = group.get(key)
    if not isinstance(found, list) or len(found) != length:
        raise FormatError(f"{where}: {key} must list one number for each of {length} classes.")
    return found


def _whole(value: Any, key: str, where: Path) -> int:
    try:
        return as_int(value, key, minimum=0)
    except OptionError as error:
        raise FormatError(f"{where}: {error} The export cannot be added to.") from error


def _number(value: Any, key: str, where: Path) -> float:
    try:
        return as_float(value, key)
    except OptionError as error:
        raise FormatError(f"{where}: {error}") from error


def _summary(value: Any, key: str, where: Path) -> Summary:
    if not isinstance(value, dict):
        raise FormatError(f"{where} has no {key}; the export cannot be added to.")
    count = _whole(value.get("Count"), f"{key} Count", where)
    if not count:
        return Summary()
    low, high, total = (_number(value.get(k), f"{key} {k}", where) for k in ("Min", "Max", "Sum"))
    return Summary(count, low, high, Fraction(total))
