"""Image folders of one role each (before, after, domain A ...), matched by the names of chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geodl.base.errors import DataError, FormatError, OptionError
from geodl.base.options import as_float
from geodl.core.classes import ClassTable
from geodl.formats.base import BandSummary
from geodl.formats.images import IMAGE_SUFFIXES, open_image

_STATISTICS = ("Min", "Max", "Mean", "StdDev")


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one role.

    Parameters
    ----------
    folder
        Where they lie.
    files
        Name of a chip (its stem) to its file.
    bands, dtype, size
        Of the first image; size is (width, height) in pixels.
    band_names
        One per band, or empty.
    stats
        One per band, or None where the export has none.
    """

    folder: Path
    files: Mapping[str, Path] = field(repr=False)
    bands: int
    dtype: str
    size: tuple[int, int]
    band_names: tuple[str, ...] = ()
    stats: tuple[BandSummary, ...] | None = None


def find_folder(root: Path, *names: str) -> Path | None:
    """The first of ``names`` that is a folder below ``root``, in any case; None if none is.

    Parameters
    ----------
    names
        May hold ``/``.
    """
    for name in names:
        here: Path | None = root
        for part in name.split("/"):
            here = _child(here, part) if here is not None else None
        if here is not None:
            return here
    return None


def _child(folder: Path, name: str) -> Path | None:
    if (folder / name).is_dir():
        return folder / name
    wanted = name.lower()
    return next(
        (e for e in sorted(folder.iterdir()) if e.name.lower() == wanted and e.is_dir()), None
    )


def need_folder(root: Path, *names: str) -> Path:
    """:func:`find_folder`. Raises FormatError where none of the names is there."""
    found = find_folder(root, *names)
    if found is None:
        raise FormatError(
            f"{root} has no folder {' or '.join(repr(name) for name in names)}; "
            "complete the export, or check dataset_type."
        )
    return found


def list_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Stem to file, sorted by stem; hidden files and other suffixes left out.

    Raises
    ------
    FormatError
        Two files of one stem, or none at all; names them.
    """
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.suffix.lower() not in suffixes:
            continue
        before = found.setdefault(entry.stem, entry)
        if before is not entry:
            raise FormatError(
                f"{folder} holds {before.name} and {entry.name}; files are matched by the name "
                "before the suffix. Remove one of them."
            )
    if not found:
        raise FormatError(f"{folder} holds no file of the kinds {', '.join(sorted(suffixes))}.")
    return found


def image_set(
    folder: Path, emd: Mapping[str, Any], key: str = "AllTilesStats", where: Path | None = None
) -> ImageSet:
    """The images of a folder; reads the header of the first.

    Parameters
    ----------
    emd
        The export's metadata, empty where there is none.
    key
        Of the band statistics in it: ``AllTilesStats``, or ``AllTilesStats2`` for a second raster.
    where
        The file that ``emd`` is from, for messages.

    Raises
    ------
    FormatError
        No image, an unreadable one, or statistics that do not fit its bands.
    """
    files = list_files(folder)
    with open_image(next(iter(files.values()))) as dataset:
        bands, size, dtype = dataset.count, (dataset.width, dataset.height), dataset.dtypes[0]
    properties = emd.get("InputRastersProps")
    names = properties.get("BandNames") if isinstance(properties, dict) else None
    if key != "AllTilesStats" or not isinstance(names, list) or len(names) != bands:
        names = _statistics_names(emd.get(key), bands)
    return ImageSet(
        folder=folder,
        files=files,
        bands=bands,
        dtype=dtype,
        size=size,
        band_names=tuple(map(str, names)),
        stats=band_summaries(emd.get(key), bands, f"{where or folder}: {key}"),
    )


def _statistics_names(listed: Any, bands: int) -> list[Any]:
    if not isinstance(listed, list) or len(listed) != bands:
        return []
    names = [entry.get("BandName") if isinstance(entry, dict) else None for entry in listed]
    return names if all(names) else []


def band_summaries(listed: Any, count: int, where: str) -> tuple[BandSummary, ...] | None:
    """Band statistics of an EMD; None where there are none.

    Raises
    ------
    FormatError
        Not one entry per band, or an entry without its four numbers in their order.
    """
    if not isinstance(listed, list) or not listed:
        return None
    if len(listed) != count or not all(isinstance(entry, dict) for entry in listed):
        raise FormatError(
            f"{where} has {len(listed)} entries for {count} bands; expected one each."
        )
    found = []
    for entry in listed:
        try:
            low, high, mean, std = (as_float(entry.get(name), name) for name in _STATISTICS)
        except OptionError as error:
            raise FormatError(f"{where}: {error}") from error
        if not low <= mean <= high or std < 0:
            raise FormatError(
                f"{where}: Min {low:g}, Mean {mean:g}, Max {high:g}, StdDev {std:g} contradict "
                "each other."
            )
        found.append(BandSummary(low, high, mean, std))
    return tuple(found)


def same_names(sets: Sequence[ImageSet]) -> list[str]:
    """The names of chips, if all sets have the same.

    Raises
    ------
    FormatError
        A chip that one of them lacks; names it and the folder.
    """
    first = sets[0]
    for other in sets[1:]:
        for have, lack in ((first, other), (other, first)):
            alone = sorted(have.files.keys() - lack.files.keys())
            if alone:
                raise FormatError(
                    f"{lack.folder} has no chip {alone[0]!r}, which lies in {have.folder} "
                    f"({len(alone)} such); chips are paired by name. Add or remove them."
                )
    return list(first.files)


def check_same(sets: Sequence[ImageSet], *, bands: bool = False) -> None:
    """Hold the sets to one size, and one band count if ``bands``. Raises FormatError."""
    first = sets[0]
    for other in sets[1:]:
        if other.size != first.size:
            raise FormatError(
                f"The chips of {other.folder} have {other.size[0]} x {other.size[1]} pixels, those "
                f"of {first.folder} {first.size[0]} x {first.size[1]}; export both alike."
            )
        if bands and other.bands != first.bands:
            raise FormatError(
                f"The chips of {other.folder} have {other.bands} bands, those of {first.folder} "
                f"{first.bands}; export both alike."
            )


def emd_classes(emd: Mapping[str, Any], where: Path) -> ClassTable | None:
    """The classes that an EMD lists; None where it lists none. Raises FormatError."""
    entries = emd.get("Classes")
    if not isinstance(entries, list) or not entries:
        return None
    if not all(isinstance(entry, dict) for entry in entries):
        raise FormatError(f"{where}: an entry of Classes is not a JSON object.")
    try:
        return ClassTable.from_json(entries)
    except DataError as error:
        raise FormatError(f"{where}: {error}") from error
