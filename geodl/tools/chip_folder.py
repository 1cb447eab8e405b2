"""The folder of an export: what may stand in it, what is deleted, and its root files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodl.base.errors import (
    FormatError,
    OptionError,
    OutputError,
    OutputExistsError,
)
from geodl.base.files import read_json, write_atomic, write_json
from geodl.formats import FORMATS, ChipFolder, ChipFormat
from geodl.formats.accumulated import counts_of_export
from geodl.formats.base import ESRI_EMD, ESRI_MAP, ESRI_STATS, ESRI_TEXT
from geodl.formats.counts import ExportCounts
from geodl.formats.esri import ExportFacts, accumulated_stats, data_emd, map_text, stats_text
from geodl.formats.folder import open_by_roots
from geodl.formats.images import SUFFIXES, image_files
from geodl.io.staging import output_error
from geodl.tools.chip_blocks import stem_of
from geodl.tools.chip_options import MOST_CHIPS

RUN_FOLDER = "export.run"
# The EMD goes last: a folder that has one is finished.
_ROOT_FILES = (ESRI_TEXT, ESRI_MAP, ESRI_STATS, ESRI_EMD)
_BASE = "base"
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_STEM = re.compile(r"^(\d{9})\.")
_PART = re.compile(r"^\..+\.part$")
# Where chips and labels lie, some of them in folders of classes.
_FOLDERS = ("images", "images2", "labels", "labels2")


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """Where an export goes.

    Parameters
    ----------
    path
        Absolute.
    first
        Number of the first chip; above 0 chips are added to the export that is there.
    """

    path: Path
    first: int

    @property
    def run_folder(self) -> Path:
        return self.path / RUN_FOLDER

    @property
    def unfinished(self) -> bool:
        return (self.run_folder / "run.json").exists()

    @property
    def finished(self) -> bool:
        return not self.unfinished and all((self.path / name).exists() for name in _ROOT_FILES[1:])

    def admit(self, fingerprint: str, *, overwrite: bool) -> None:
        """Check that an export may be written here; with ``overwrite`` delete the former one.

        Raises
        ------
        OutputExistsError
            Something else is there.
        OutputError
            The folder cannot be made or written.
        """
        self._make()
        if self.unfinished:
            if overwrite and self._fingerprint() != fingerprint:
                self.clear()
            return
        entries = [name for name in os.listdir(self.path) if name.lower() not in _LITTER]
        if overwrite:
            self.clear()
        elif self.finished and self.first == 0:
            raise OutputExistsError(
                f"{self.path} holds a finished export; choose another output_location, pass "
                'overwrite=True to replace it, or add chips to it with context={"startIndex": n}.'
            )
        elif entries and not self.finished:
            raise OutputExistsError(
                f"{self.path} is not empty and holds no export (there is {sorted(entries)[0]!r}); "
                "choose another output_location, or pass overwrite=True to write beside that."
            )

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"{self.path} is a file; output_location is a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The folder {self.path} cannot be made ({error.strerror}); choose another "
                "output_location."
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(
                f"The folder {self.path} cannot be written; choose one that you may write to."
            )

    def _fingerprint(self) -> Any:
        known = read_json(self.run_folder / "run.json")
        return known.get("fingerprint") if isinstance(known, dict) else None

    # -- deleting -----------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete what an export has written here, and nothing else."""
        for path in self._written():
            path.unlink(missing_ok=True)
        for name in (*_ROOT_FILES, *self._own_roots()):
            (self.path / name).unlink(missing_ok=True)
        remove_parts(self.path)
        shutil.rmtree(self.run_folder, ignore_errors=True)
        for name in _FOLDERS:
            for folder in (*_sub_folders(self.path / name), self.path / name):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _own_roots(self) -> tuple[str, ...]:
        """Root files beside Esri's of the export that stands here or was begun."""
        modes = [self._settings().get("options", {}).get("metadata_format")]
        if (self.path / ESRI_STATS).exists():
            stats = read_json(self.path / ESRI_STATS)
            modes.append(stats.get("MetaDataMode") if isinstance(stats, dict) else None)
        return tuple(
            name
            for mode in modes
            if isinstance(mode, str) and mode in FORMATS
            for name in FORMATS[mode].root_files
        )

    def _settings(self) -> dict[str, Any]:
        known = read_json(self.run_folder / "run.json") if self.unfinished else None
        settings = known.get("settings") if isinstance(known, dict) else None
        return settings if isinstance(settings, dict) else {}

    def _written(self) -> Iterable[Path]:
        """Files that ``map.txt`` lists, and those that an unfinished run has numbered."""
        for root in (self.path, self.run_folder / _BASE):
            try:
                text = (root / ESRI_MAP).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError):
                continue
            # Two blanks stand between paths: names of class folders may hold one.
            for token in re.split(r"\s{2,}|\s*\n", text):
                parts = token.strip().replace("\\", "/").split("/")
                if parts[0] in _FOLDERS and ".." not in parts:
                    yield from image_files(self.path.joinpath(*parts))
                    if parts[0] == "images":
                        yield from image_files(self.path / "images2" / parts[-1])
        if self.unfinished:
            yield from self._numbered()

    def _numbered(self) -> Iterable[Path]:
        first = int(self._settings().get("options", {}).get("first", 0))
        for name in _FOLDERS:
            for folder in (self.path / name, *_sub_folders(self.path / name)):
                for path in folder.iterdir() if folder.is_dir() else ():
                    stem = _STEM.match(path.name)
                    if stem and int(stem[1]) >= first:
                        yield path

    # -- adding to an export ------------------------------------------------------------------

    def keep_base(self) -> None:
        """Copy the root files that stand here into the run folder, once, before they change.

        A run that is killed while it writes the merged files then merges from the copy again.
        """
        base = self.run_folder / _BASE
        if base.exists():
            return
        scratch = self.run_folder / f"{_BASE}.part"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        if self.first > 0 and self.path.joinpath(ESRI_MAP).exists():
            for name in (*_ROOT_FILES, *self._own_roots()):
                if (self.path / name).exists():
                    shutil.copyfile(self.path / name, scratch / name)
        os.replace(scratch, base)

    def base(self) -> ChipFolder | None:
        """The export that is added to; None for a new one.

        Raises
        ------
        FormatError
            The export there is broken.
        """
        kept = self.run_folder / _BASE
        roots = kept if kept.exists() else self.path
        if self.first == 0 or not (roots / ESRI_MAP).exists():
            return None
        return open_by_roots(self.path, roots)

    def base_counts(self, base: ChipFolder) -> ExportCounts:
        """Counts of the export that is added to."""
        stats = read_json(self.run_folder / _BASE / ESRI_STATS)
        if not isinstance(stats, dict):
            raise FormatError(f"{self.path / ESRI_STATS} is no JSON object.")
        return counts_of_export(base, stats)

    def refuse_taken(self, base: ChipFolder, count: int) -> None:
        """Refuse numbers that chips of the export have already.

        Raises
        ------
        OptionError
            Names the next free number.
        """
        numbers = {int(ref.name) for ref in base.chips if ref.name.isdecimal()}
        taken = sorted(n for n in numbers if self.first <= n < self.first + count)
        if taken:
            raise OptionError(
                f"startIndex={self.first}: {self.path} has a chip {stem_of(taken[0])} already; the "
                f"next free number is {max(numbers) + 1}."
            )

    def make_folders(self, chip_format: ChipFormat, *, second: bool) -> None:
        for name in ("images", *chip_format.label_folders, *(["images2"] if second else [])):
            (self.path / name).mkdir(exist_ok=True)

    # -- finishing ----------------------------------------------------------------------------

    def write_roots(
        self, facts: ExportFacts, counts: ExportCounts, written: WrittenChips, chip_format: str
    ) -> None:
        """The root files; lines of the export that was added to go first.

        Raises
        ------
        OutputError
            They cannot be written, for example because the disk is full.
        """
        if self.first + written.count > MOST_CHIPS:
            raise OptionError(
                f"{self.first + written.count} chips do not fit the nine digits of names."
            )
        kept = self.run_folder / _BASE / ESRI_MAP
        before = kept.read_text(encoding="utf-8-sig") if kept.exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        lines = written.lines(facts.chip_format, self.first, SUFFIXES[chip_format])
        remove_parts(self.path)
        base = self.run_folder / _BASE if kept.exists() else None
        try:
            facts.chip_format.finalise(self.path, written.fragments(), facts.classes, base)
            write_atomic(self.path / ESRI_TEXT, stats_text(facts, counts))
            write_atomic(self.path / ESRI_MAP, before + lines)
            write_json(self.path / ESRI_STATS, accumulated_stats(facts, counts))
            write_json(self.path / ESRI_EMD, data_emd(facts, counts))
        except OSError as error:
            raise output_error(self.path, error) from error


@dataclass(frozen=True, slots=True)
class WrittenChips:
    """The chips of a run.

    Parameters
    ----------
    count
        How many.
    entries
        Number, line of ``map.txt`` and fragment of each chip, ascending; none for formats whose
        names do not depend on labels.
    """

    count: int
    entries: list[list[Any]]

    def lines(self, chip_format: ChipFormat, first: int, suffix: str) -> str:
        if self.entries:
            return "".join(line for _, line, _ in self.entries)
        return map_text(chip_format, map(stem_of, range(first, first + self.count)), suffix)

    def fragments(self) -> Iterable[tuple[int, Any]]:
        return ((number, fragment) for number, _, fragment in self.entries)


def _sub_folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


def remove_parts(path: Path) -> None:
    """Delete half-written files that a killed run has left."""
    below = [f for name in _FOLDERS for f in (path / name, *_sub_folders(path / name))]
    for folder in (path, *below):
        for entry in list(folder.iterdir()) if folder.is_dir() else ():
            if is_part(entry.name):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def is_part(name: str) -> bool:
    """Whether a file or folder of that name was being written, and has not got its own name."""
    return _PART.match(name) is not None
