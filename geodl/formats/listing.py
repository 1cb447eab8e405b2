"""Which chips a folder holds: from ``map.txt``, or from the names in its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from geodl.base.errors import FormatError
from geodl.formats.base import ESRI_MAP, ChipFormat, ChipRef
from geodl.formats.images import IMAGE_SUFFIXES


class _Names:
    """Files of a folder tree by lower-case name; each directory is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, str]] = {}

    def of(self, folder: Path) -> dict[str, str]:
        """Lower-case name to real name; empty where there is no such folder."""
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = {entry.name.lower(): entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._listed[folder] = {}
            except OSError as error:
                raise FormatError(f"{folder} cannot be listed ({error.strerror}).") from error
        return self._listed[folder]

    def find(self, parts: list[str]) -> Path | None:
        """The file below the root with these names, in any case; None if there is none."""
        here = self.root
        for part in parts:
            names = self.of(here)
            # On a case-sensitive system both spellings may be there; the exact one goes first.
            name = part if part in names.values() else names.get(part.lower())
            if name is None:
                return None
            here = here / name
        return here


def chips_of(path: Path, roots: Path, chip_format: ChipFormat) -> tuple[ChipRef, ...]:
    """The chips of a folder; those whose label file is missing have no label paths.

    Parameters
    ----------
    path
        The folder with the images and labels.
    roots
        The folder with ``map.txt``, if there is one; in an export the same.

    Raises
    ------
    FormatError
        No chip at all, an image of ``map.txt`` that is missing, a path that leaves the folder, or
        a chip named twice; names the file and line.
    """
    names = _Names(path)
    listed = roots / ESRI_MAP
    found = list(_mapped(listed, names) if listed.exists() else _scanned(path, names))
    if not found:
        where = listed if listed.exists() else path / "images"
        raise FormatError(f"{where} names no chip; the export is incomplete. Export it again.")
    by_stem = _labels_by_stem(path, names, chip_format)
    chips = tuple(
        ChipRef(image.stem, image, labels or by_stem.get(image.stem.lower(), ()))
        for image, labels in found
    )
    _refuse_twins(chips, path)
    return chips


def _mapped(listed: Path, names: _Names) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    try:
        text = listed.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{listed} cannot be read as text ({error}).") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{listed}, line {number}"
        # Class folders with a blank in their name need the two blanks that stand between paths.
        for tokens in (line.split(), re.split(r"\s{2,}", line.strip())):
            parts = [_parts(token, where) for token in tokens]
            paths = [names.find(part) for part in parts]
            if paths[0] is not None:
                break
        if paths[0] is None:
            raise FormatError(
                f"{where} names the image {line.split()[0]!r}, and there is no such file in "
                f"{names.root}; remove the line, or export the chips again."
            )
        yield paths[0], tuple(found for found in paths[1:] if found is not None)


def _parts(token: str, where: str) -> list[str]:
    parts = [part for part in token.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = token.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", token)
    if outside or not parts:
        raise FormatError(f"{where} names {token!r}; paths must stay inside the export.")
    return parts


def _scanned(path: Path, names: _Names) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    folder = names.find(["images"])
    if folder is None:
        raise FormatError(
            f"{path} has no folder 'images'; a chip folder holds images/ and labels/."
        )
    for name in sorted(names.of(folder).values()):
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
            yield folder / name, ()


def _labels_by_stem(
    path: Path, names: _Names, chip_format: ChipFormat
) -> dict[str, tuple[Path, ...]]:
    folder = names.find(["labels"])
    if folder is None:
        return {}
    found: dict[str, tuple[Path, ...]] = {}
    for suffix in reversed(chip_format.label_suffixes):
        for name in names.of(folder).values():
            stem, own = os.path.splitext(name)
            if own.lower() == suffix and not name.lower().endswith(".aux.xml"):
                found[stem.lower()] = (folder / name,)
    return found


def _refuse_twins(chips: tuple[ChipRef, ...], path: Path) -> None:
    seen: dict[str, Path] = {}
    for chip in chips:
        before = seen.setdefault(chip.name.lower(), chip.image)
        if before is not chip.image:
            raise FormatError(
                f"{path} holds the chip {chip.name!r} twice ({before.name} and {chip.image.name}); "
                "images and labels are paired by this name. Remove one of them."
            )
