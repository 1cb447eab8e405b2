"""A fault of an export: its file, where in it, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Parameters
    ----------
    level
        An ``error`` breaks the format; a ``warning`` is odd, but can be read.
    file
        Relative to the export; ``.`` is the export itself.
    where
        Line, key or object in the file; may be empty.
    """

    level: Level
    file: str
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{self.level}: {place}: {self.message}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


class Faults:
    """The faults of one export as they are found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: list[Fault] = []

    def _add(self, level: Level, path: Path, where: str, message: str) -> None:
        inside = path.is_relative_to(self.root)
        file = path.relative_to(self.root).as_posix() if inside else str(path)
        # Messages of readers begin with the file, which stands beside them here.
        for start in (f"{path}: ", f"{path}, ", f"{path} "):
            message = message.removeprefix(start)
        if where:
            message = message.removeprefix(f"{where} ").removeprefix(f"{where}: ")
        fault = Fault(level, file, where, message)
        # A file that all chips share is read for each of them.
        if fault not in self._found:
            self._found.append(fault)

    def error(self, path: Path, where: str, message: str) -> None:
        self._add("error", path, where, message)

    def warn(self, path: Path, where: str, message: str) -> None:
        self._add("warning", path, where, message)

    def extend(self, faults: Iterable[Fault]) -> None:
        self._found += faults

    @property
    def errors(self) -> int:
        return sum(fault.level == "error" for fault in self._found)

    @property
    def found(self) -> tuple[Fault, ...]:
        return tuple(self._found)
