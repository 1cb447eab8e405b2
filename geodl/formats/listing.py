"""Which chips a folder holds: from ``map.txt``, or from the names in its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geodl.base.errors import FormatError
from geodl.formats.base import ESRI_MAP, ChipRef
from geodl.formats.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from geodl.formats.chip_format import ChipFormat


class FileTree:
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

    def folders(self, folder: Path) -> list[Path]:
        """Sub-folders by name, hidden ones left out."""
        names = sorted(name for name in self.of(folder).values() if not name.startswith("."))
        return [folder / name for name in names if (folder / name).is_dir()]

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
    tree = FileTree(path)
    listed = roots / ESRI_MAP
    if listed.exists():
        found = list(_mapped(listed, tree))
    else:
        found = list(_scanned(path, tree, chip_format.nested_images))
    if not found:
        where = listed if listed.exists() else path / "images"
        raise FormatError(f"{where} names no chip; the export is incomplete. Export it again.")
    return chip_refs(found, tree, chip_format)


def chip_refs(
    found: Sequence[tuple[Path, tuple[Path, ...]]], tree: FileTree, chip_format: ChipFormat
) -> tuple[ChipRef, ...]:
    """The chips of images with the labels that ``map.txt`` gives them, if any.

    Raises
    ------
    FormatError
        Two images of one name.
    """
    labels = _labels(found, tree, chip_format)
    stems = [image.stem for image, _ in found]
    if chip_format.nested_images and len(set(stems)) < len(stems):
        # Folders of other programs number the images of each class anew.
        stems = [f"{image.parent.name}/{image.stem}" for image, _ in found]
    chips = tuple(
        ChipRef(stem, image, own)
        for stem, (image, _), own in zip(stems, found, labels, strict=True)
    )
    _refuse_twins(chips, tree.root)
    return chips


def _labels(
    found: Sequence[tuple[Path, tuple[Path, ...]]], tree: FileTree, chip_format: ChipFormat
) -> list[tuple[Path, ...]]:
    """Label files of each chip."""
    source = chip_format.label_source
    if source == "image":
        return [(image,) for image, _ in found]
    if source == "files":
        by_stem = chip_format.list_labels(tree)
        return [own or by_stem.get(image.stem.lower(), ()) for image, own in found]
    root = tree.find([chip_format.root_files[0]]) if source == "root" else None
    return [(root,) if root else () for _ in found]


def _mapped(listed: Path, names: FileTree) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    try:
        text = listed.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{listed} cannot be read as text ({error}).") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{listed}, line {number}"
        tokens, paths = resolve_line(line, names, where)
        if paths[0] is None:
            raise FormatError(
                f"{where} names the image {tokens[0]!r}, and there is no such file in "
                f"{names.root}; remove the line, or export the chips again."
            )
        yield paths[0], tuple(found for found in paths[1:] if found is not None)


def resolve_line(line: str, tree: FileTree, where: str) -> tuple[list[str], list[Path | None]]:
    """Paths that a line of ``map.txt`` names, and the files they lead to.

    Raises
    ------
    FormatError
        A path that leaves the folder; names ``where``.
    """
    # Class folders with a blank in their name need the two blanks that stand between paths.
    tokens = re.split(r"\s{2,}", line.strip())
    paths = [tree.find(_parts(token, where)) for token in tokens]
    if None in paths:
        plain = line.split()
        found = [tree.find(_parts(token, where)) for token in plain]
        if found.count(None) <= paths.count(None) and len(plain) > len(tokens):
            return plain, found
    return tokens, paths


def _parts(token: str, where: str) -> list[str]:
    parts = [part for part in token.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = token.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", token)
    if outside or not parts:
        raise FormatError(f"{where} names {token!r}; paths must stay inside the export.")
    return parts


def _scanned(path: Path, tree: FileTree, nested: bool) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    folder = tree.find(["images"])
    if folder is None:
        raise FormatError(
            f"{path} has no folder 'images'; a chip folder holds images/ and labels/."
        )
    for place in tree.folders(folder) if nested else [folder]:
        for name in sorted(tree.of(place).values()):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield place / name, ()


def labels_by_stem(
    tree: FileTree, parts: list[str], suffixes: Sequence[str]
) -> dict[str, tuple[Path, ...]]:
    """Files of a folder by lower-case stem; of two with one stem, that of the earlier suffix."""
    folder = tree.find(parts)
    if folder is None:
        return {}
    found: dict[str, tuple[Path, ...]] = {}
    for suffix in reversed(suffixes):
        for name in tree.of(folder).values():
            stem, own = os.path.splitext(name)
            if own.lower() == suffix and not name.lower().endswith(".aux.xml"):
                found[stem.lower()] = (folder / name,)
    return found


def labels_by_class(
    tree: FileTree, parts: list[str], suffixes: Sequence[str]
) -> dict[str, tuple[Path, ...]]:
    """Files in the sub-folders of a folder by lower-case stem, in the order of the folders."""
    folder = tree.find(parts)
    found: dict[str, tuple[Path, ...]] = {}
    for place in tree.folders(folder) if folder is not None else ():
        for stem, files in labels_by_stem(tree, [*parts, place.name], suffixes).items():
            found[stem] = found.get(stem, ()) + files
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
