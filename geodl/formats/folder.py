"""Opening an export: what kind it is, its chips, classes and statistics."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geodl.base.errors import DataError, DataWarning, FormatError, OptionError, SourceNotFoundError
from geodl.base.files import read_json
from geodl.base.options import as_float, as_int
from geodl.core.classes import ClassTable
from geodl.formats.base import (
    ESRI_EMD,
    ESRI_MAP,
    ESRI_STATS,
    BandSummary,
    ChipFolder,
    ChipRef,
    LabelKind,
    check_shape,
    counts_pixels,
)
from geodl.formats.chip_format import ChipFormat
from geodl.formats.images import open_image
from geodl.formats.listing import chips_of
from geodl.formats.registry import FORMATS
from geodl.io.crs import reference_metres

# Dataset types that are another use, or another spelling, of a chip format.
CHIPS_AS = {"3DRCNet": "Classified_Tiles", "Labelled_Tiles": "Labeled_Tiles"}
IMAGE_SPACES = ("MAP_SPACE", "IMAGE_SPACE", "PIXEL_SPACE")


# What value 0 is called where it is no class: letters and digits alone, lower case.
_BACKGROUND_NAMES = frozenset(
    {"", "0", "background", "nodata", "none", "null", "other", "unclassified"}
)


def open_export(path: str | os.PathLike[str], dataset_type: str | None = None) -> ChipFolder:
    """Open a folder of chips; reads its metadata and the header of one image.

    Parameters
    ----------
    path
        The folder that holds ``images/`` and ``labels/``. Nothing in it is changed.
    dataset_type
        Name of a chip format. Needed where ``esri_model_definition.emd``, ``map.txt`` or
        ``esri_accumulated_stats.json`` is missing; where all are there, they decide.

    Returns
    -------
    ChipFolder
        Chips whose label file is missing are in it, with no label paths.

    Raises
    ------
    SourceNotFoundError
        There is no such folder.
    FormatError
        The folder is incomplete or contradicts itself; names the file and what is wrong with it.
    NotSupportedError
        A chip format that geodl does not read.
    """
    path = Path(path)
    if not path.exists():
        raise SourceNotFoundError(f"There is no chip folder {path}; check the path.")
    if not path.is_dir():
        raise FormatError(f"{path} is a file; give the folder that holds images/ and labels/.")
    return open_by_roots(path, path, dataset_type)


def open_by_roots(
    path: Path,
    roots: Path,
    dataset_type: str | None = None,
    chips: tuple[ChipRef, ...] | None = None,
) -> ChipFolder:
    """:func:`open_export` with root files of another folder, for example of an earlier state.

    Parameters
    ----------
    chips
        Instead of those that the folder lists.
    """
    stats = _metadata(roots / ESRI_STATS)
    emd = _metadata(roots / ESRI_EMD)
    mode = _mode(roots, stats, emd, dataset_type)
    chip_format: ChipFormat = FORMATS[mode]()
    chips = chips or chips_of(path, roots, chip_format)
    with open_image(chips[0].image) as dataset:
        shape = (dataset.count, dataset.height, dataset.width)
        dtype = dataset.dtypes[0]
    bands = _whole(stats, "NumBands", path, shape[0])
    fixed = bool(stats) and emd.get("CropTileMode") != "Variable_Size"
    tile = (
        _whole(stats, "TileSizeX", path, shape[2]),
        _whole(stats, "TileSizeY", path, shape[1]),
    )
    folder = ChipFolder(
        path=path,
        metadata_mode=mode,
        chips=chips,
        classes=_classes(path, stats, emd) or chip_format.classes_of(chips, path),
        bands=bands,
        band_names=_band_names(emd, bands),
        tile_size=tile,
        fixed_size=fixed,
        image_space=_image_space(path, emd),
        cell_size=_cell_size(path, emd),
        dtype=dtype,
        class_counts=_class_counts(path, stats, chip_format.kind),
        emd=emd,
    )
    check_shape(chips[0].image, shape, folder)
    return replace(folder, stats=_band_stats(roots, stats, emd, bands))


def count_labels(folder: ChipFolder) -> dict[int, int]:
    """Objects or pixels per class value, from the label files themselves.

    Raises
    ------
    FormatError
        A label that breaks the format.
    """
    chip_format = folder.chip_format
    totals = dict.fromkeys(folder.classes.values, 0)
    for ref in folder.chips:
        for value, number in chip_format.count(chip_format.read_label(ref, folder)).items():
            totals[value] += number
    return totals


def _metadata(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds {type(value).__name__}; expected a JSON object.")
    return value


def _mode(
    path: Path, stats: Mapping[str, Any], emd: Mapping[str, Any], dataset_type: str | None
) -> str:
    missing = [name for name in (ESRI_EMD, ESRI_MAP, ESRI_STATS) if not (path / name).exists()]
    if missing:
        if dataset_type is None:
            raise FormatError(
                f"{path} has no {', '.join(missing)}: the export is incomplete. Export it again, "
                f"or name its dataset_type ({', '.join(sorted(FORMATS))})."
            )
        return CHIPS_AS.get(dataset_type, dataset_type)
    stated = [value for value in (stats.get("MetaDataMode"), emd.get("MetaDataMode")) if value]
    if len(set(map(str, stated))) > 1:
        raise FormatError(
            f"{path / ESRI_STATS} says MetaDataMode {stated[0]!r} and {path / ESRI_EMD} says "
            f"{stated[1]!r}; the files belong to different exports."
        )
    mode = str(stated[0]) if stated else dataset_type
    if mode is None:
        raise FormatError(f"{path / ESRI_STATS} has no MetaDataMode; name the dataset_type.")
    return mode


def _whole(stats: Mapping[str, Any], key: str, path: Path, default: int) -> int:
    if not stats:
        return default
    try:
        return as_int(stats.get(key), key, minimum=1)
    except OptionError as error:
        raise FormatError(f"{path / ESRI_STATS}: {error}") from error


def _classes(path: Path, stats: Mapping[str, Any], emd: Mapping[str, Any]) -> ClassTable | None:
    for source, name in ((emd, ESRI_EMD), (stats, ESRI_STATS)):
        entries = source.get("Classes")
        if not isinstance(entries, list) or not entries:
            continue
        if not all(isinstance(entry, dict) for entry in entries):
            raise FormatError(f"{path / name}: an entry of Classes is not a JSON object.")
        try:
            table = ClassTable.from_json(entries)
        except DataError as error:
            raise FormatError(f"{path / name}: {error}") from error
        _say_named_background(entries, path / name)
        return table
    return None


def _say_named_background(entries: Sequence[Mapping[str, Any]], where: Path) -> None:
    """Warn where value 0, which is the background, was exported as a class with a name."""
    for entry in entries:
        value, label = (entry.get(short, entry.get(f"Class{short}")) for short in ("Value", "Name"))
        if value is not None and int(value) == 0 and _is_class_name(label):
            warnings.warn(
                f"{where}: the class of value 0, {label!r}, is the background here, and is not "
                "found as a class. Export it with another value if it is one.",
                DataWarning,
                stacklevel=6,
            )


def _is_class_name(label: Any) -> bool:
    plain = "".join(c for c in str(label or "").lower() if c.isalnum())
    return plain not in _BACKGROUND_NAMES


def _band_names(emd: Mapping[str, Any], bands: int) -> tuple[str, ...]:
    """Names of the bands; none where the list does not fit (Pro may list the source's bands)."""
    properties = emd.get("InputRastersProps")
    names = properties.get("BandNames") if isinstance(properties, dict) else None
    if not isinstance(names, list) or len(names) != bands:
        return ()
    return tuple(map(str, names))


def _image_space(path: Path, emd: Mapping[str, Any]) -> str:
    space = emd.get("ImageSpaceUsed") or IMAGE_SPACES[0]
    if space not in IMAGE_SPACES:
        raise FormatError(
            f"{path / ESRI_EMD}: ImageSpaceUsed is {space!r}; known are {', '.join(IMAGE_SPACES)}."
        )
    return str(space)


def _cell_size(
    path: Path, emd: Mapping[str, Any]
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    entries = [emd.get("MinCellSize"), emd.get("MaxCellSize")]
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    smallest, largest = (_cell_metres(entry, path / ESRI_EMD) for entry in entries)
    return smallest, largest


def _cell_metres(entry: Any, where: Path) -> tuple[float, float]:
    metres = reference_metres(entry.get("spatialReference"))
    x, y = (_number(entry.get(axis), axis, where) * metres for axis in "xy")
    return x, y


def _number(value: Any, key: str, where: Path) -> float:
    try:
        return as_float(value, key)
    except OptionError as error:
        raise FormatError(f"{where}: {error}") from error


def _band_stats(
    path: Path, stats: Mapping[str, Any], emd: Mapping[str, Any], bands: int
) -> tuple[BandSummary, ...] | None:
    listed, where = emd.get("AllTilesStats"), path / ESRI_EMD
    keys = ("Min", "Max", "Mean", "StdDev")
    if not isinstance(listed, list) or not listed:
        listed, where = stats.get("BandStatsState"), path / ESRI_STATS
        keys = ("Min", "Max", "M1", "M2")
    if not isinstance(listed, list) or not listed:
        return None
    if len(listed) != bands or not all(isinstance(entry, dict) for entry in listed):
        raise FormatError(
            f"{where}: the band statistics have {len(listed)} entries for {bands} bands."
        )
    found = []
    for entry in listed:
        low, high, mean, spread = (_number(entry.get(key), key, where) for key in keys)
        if keys[3] == "M2":
            count = _number(entry.get("Num"), "Num", where)
            spread = math.sqrt(max(0.0, spread) / count) if count > 0 else 0.0
        found.append(BandSummary(low, high, mean, spread))
    return tuple(found)


def _class_counts(path: Path, stats: Mapping[str, Any], kind: LabelKind) -> dict[int, int] | None:
    """Counts by class value; None where they are missing or negative (an old 32-bit overflow)."""
    block, key = ("FeatureStats", "NumFeaturesPerClass")
    if counts_pixels(kind):
        block, key = ("ClassPixelStats", "NumPixelsPerClass")
    group, classes = stats.get(block), stats.get("Classes")
    counts = group.get(key) if isinstance(group, dict) else None
    if not isinstance(counts, list) or not isinstance(classes, list) or len(counts) != len(classes):
        return None
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    found = {}
    for entry, count in zip(classes, counts, strict=True):
        value = entry.get("ClassValue", entry.get("Value")) if isinstance(entry, dict) else None
        if isinstance(value, int) and value != 0:
            found[value] = count
    return found
