"""The table of losses and metrics that a fit prints, one line per epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

_WIDTH = 12


class EpochTable:
    """Writes one line per epoch to a text stream, at once, so that a batch log shows it too.

    Parameters
    ----------
    columns
        Names between ``epoch`` and ``time``.
    stream
        Standard output unless given.
    """

    def __init__(self, columns: Sequence[str], stream: TextIO | None = None) -> None:
        self._columns = tuple(columns)
        self._stream = stream
        self._started = False

    def write(self, row: Mapping[str, float]) -> None:
        """One epoch: ``epoch``, the columns, and ``time`` in seconds."""
        if not self._started:
            self._line(["epoch", *self._columns, "time"])
            self._started = True
        minutes, seconds = divmod(round(row["time"]), 60)
        values = [f"{row[name]:.4f}" for name in self._columns]
        self._line([str(int(row["epoch"])), *values, f"{minutes:02d}:{seconds:02d}"])

    def note(self, text: str) -> None:
        """A line of its own."""
        self._write(text)

    def _line(self, cells: Sequence[str]) -> None:
        widths = [6] + [max(_WIDTH, len(name) + 2) for name in self._columns] + [8]
        self._write("".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)))

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(text + "\n")
        stream.flush()
