"""One or several exports as one list of chips with the facts that hold for all of them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.transform import array_bounds

from geodl.base.errors import DataError, DataWarning
from geodl.base.files import read_json
from geodl.base.options import nearest
from geodl.core.classes import ClassEntry, ClassTable
from geodl.data.normalize import BandStatistics, merge_statistics
from geodl.formats.base import ESRI_STATS, ChipFolder, ChipRef
from geodl.formats.images import open_image


@dataclass(frozen=True, slots=True)
class SourceChip:
    """A chip and its folder; ``key`` is unique over all folders and does not hold their paths."""

    key: str
    ref: ChipRef
    folder: ChipFolder


def check_alike(folders: Sequence[ChipFolder]) -> ChipFolder:
    """The first folder, if all others can be merged with it.

    Raises
    ------
    DataError
        Another format, band count, dtype or tile size; names both folders.
    """
    first = folders[0]
    facts = {
        "metadata_mode": "format",
        "bands": "band count",
        "dtype": "dtype",
        "tile_size": "tile size",
    }
    for other in folders[1:]:
        for attribute, name in facts.items():
            ours, theirs = getattr(first, attribute), getattr(other, attribute)
            if ours != theirs:
                raise DataError(
                    f"The folders cannot be merged: the {name} of {other.path} is {theirs}, that "
                    f"of {first.path} {ours}. Export them alike, or train on one of them."
                )
    return first


def source_chips(folders: Sequence[ChipFolder]) -> list[SourceChip]:
    """The labelled chips in the order of folder and name, whatever order the exports list them in.

    Warns of chips without a label file, which are left out.

    Raises
    ------
    DataError
        No chip has a label file.
    """
    several = len(folders) > 1
    chips: list[SourceChip] = []
    for number, folder in enumerate(folders):
        prefix = f"{number}/" if several else ""
        refs = sorted((ref for ref in folder.chips if ref.labels), key=lambda ref: ref.name)
        chips += [SourceChip(prefix + ref.name, ref, folder) for ref in refs]
        missing = len(folder.chips) - len(refs)
        if missing:
            example = next(ref.name for ref in folder.chips if not ref.labels)
            warnings.warn(
                f"{missing} of {len(folder.chips)} chips of {folder.path} have no label file "
                f"({example}, for one) and are left out.",
                DataWarning,
                stacklevel=4,
            )
    if not chips:
        raise DataError(f"No chip of {_paths(folders)} has a label file; export the labels too.")
    return chips


def united_classes(folders: Sequence[ChipFolder], mapping: Mapping[int, str]) -> ClassTable:
    """Classes of all folders by value, named by ``mapping`` where it says so.

    Raises
    ------
    DataError
        A value in ``mapping`` that no class has, or one name for two values.
    """
    entries: dict[int, ClassEntry] = {}
    for folder in folders:
        for entry in folder.classes:
            known = entries.setdefault(entry.value, entry)
            if known.name != entry.name and entry.value not in mapping:
                warnings.warn(
                    f"Class {entry.value} is {known.name!r} in {folders[0].path} and "
                    f"{entry.name!r} in {folder.path}; the first name is used. class_mapping "
                    "settles it.",
                    DataWarning,
                    stacklevel=4,
                )
    strange = [value for value in mapping if value != 0 and value not in entries]
    if strange:
        raise DataError(
            f"class_mapping names the value {', '.join(map(str, strange))}, which no class of "
            f"{_paths(folders)} has.{nearest(str(strange[0]), map(str, entries))} The classes are "
            f"{', '.join(f'{e.value} ({e.name})' for e in entries.values()) or 'none'}."
        )
    named = (
        ClassEntry(value=e.value, name=mapping.get(e.value, e.name), color=e.color)
        for e in entries.values()
    )
    return ClassTable(tuple(named))


def united_space(folders: Sequence[ChipFolder]) -> str:
    """Map space only where all folders are in map space: it allows most augmentation."""
    spaces = [folder.image_space for folder in folders]
    return next((space for space in spaces if space != "MAP_SPACE"), "MAP_SPACE")


def united_cell_size(folders: Sequence[ChipFolder]) -> tuple[float, float] | None:
    """Least and largest cell size over both axes and all folders; None where one states none."""
    sizes: list[float] = []
    for folder in folders:
        if folder.cell_size is None:
            return None
        sizes += [side for pair in folder.cell_size for side in pair]
    return min(sizes), max(sizes)


def united_statistics(folders: Sequence[ChipFolder]) -> BandStatistics | None:
    """The exports' own band statistics, weighted by their chips; None where one has none."""
    parts: list[tuple[BandStatistics, float]] = []
    for folder in folders:
        if folder.stats is None or len(folder.stats) != folder.bands:
            return None
        columns = zip(*((s.minimum, s.maximum, s.mean, s.std) for s in folder.stats), strict=True)
        low, high, mean, std = (tuple(map(float, column)) for column in columns)
        statistics = BandStatistics(minimum=low, maximum=high, mean=mean, std=std)
        if not statistics.finite():
            return None
        parts.append((statistics, len(folder.chips)))
    return parts[0][0] if len(parts) == 1 else merge_statistics(parts)


def count_by_class(chips: Sequence[SourceChip], folders: Sequence[ChipFolder]) -> dict[int, int]:
    """Objects or pixels per class value: as the exports counted them, else counted now.

    An export's own counts are passed over where it has lost or gained chips since.

    Raises
    ------
    FormatError
        A label that must be counted is broken; names the file.
    """
    total: Counter[int] = Counter()
    for folder in folders:
        own = [chip for chip in chips if chip.folder is folder]
        if folder.class_counts is not None and _counted_chips(folder) == len(own):
            total.update(folder.class_counts)
        else:
            for chip in own:
                total.update(label_counts(chip))
    return dict(total)


def _counted_chips(folder: ChipFolder) -> int | None:
    """Number of chips that the export's counts are of."""
    path = folder.path / ESRI_STATS
    facts = read_json(path) if path.is_file() else {}
    number = facts.get("NumTiles", facts.get("NumTilesAsDouble"))
    return int(number) if isinstance(number, (int, float)) else None


def label_counts(chip: SourceChip) -> dict[int, int]:
    """Objects or pixels per class value of one chip. Raises FormatError, which names the file."""
    reader = chip.folder.chip_format
    return reader.count(reader.read_label(chip.ref, chip.folder))


def chip_bounds(chips: Sequence[SourceChip]) -> np.ndarray | None:
    """Where chips lie.

    Returns
    -------
    float64 (N, 4): xmin, ymin, xmax, ymax by the chips' own georeference; None where they have
    none. Folders that are not in map space lie apart from all others.

    Raises
    ------
    FormatError
        An unreadable image; names the file.
    """
    bounds, placed = np.empty((len(chips), 4), np.float64), False
    for i, chip in enumerate(chips):
        with open_image(chip.ref.image) as dataset:
            placed |= not dataset.transform.is_identity
            size = dataset.height, dataset.width
            west, south, east, north = array_bounds(*size, dataset.transform)
        # Rows that count downwards, as in image space, turn south and north around.
        bounds[i] = min(west, east), min(south, north), max(west, east), max(south, north)
    if not placed:
        return None
    return _apart(bounds, chips)


def _apart(bounds: np.ndarray, chips: Sequence[SourceChip]) -> np.ndarray:
    """Shift the chips of each folder without map coordinates to a place of its own."""
    width = 10 * (bounds[:, [0, 2]].max() - bounds[:, [0, 2]].min())
    paths = [chip.folder.path for chip in chips]
    number = {path: i for i, path in enumerate(dict.fromkeys(paths))}
    for i, chip in enumerate(chips):
        if chip.folder.image_space != "MAP_SPACE":
            bounds[i, [0, 2]] += number[chip.folder.path] * width
    return bounds


def _paths(folders: Sequence[ChipFolder]) -> str:
    return ", ".join(str(Path(folder.path)) for folder in folders)
