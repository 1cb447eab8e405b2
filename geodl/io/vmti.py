"""Detections in a video as a column of a csv file, one row per frame."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import DataWarning, FormatError, OutputError
from geodl.io.staging import staged

COLUMN = "vmtilocaldataset"


def vmti_cell(
    boxes: np.ndarray, scores: np.ndarray, numbers: Sequence[int], frame_width: int
) -> str:
    """The detections of one frame as text.

    Parameters
    ----------
    boxes
        (N, 4) x0, y0, x1, y1 px of the frame; cut to whole pixels towards zero.
    scores
        (N,), 0..1.
    numbers
        Of the objects.
    frame_width
        W, of which a pixel's number is made: ``row * W + column``.

    Returns
    -------
    ``number confidence topleft bottomright centre;`` for each, the latest first, and a newline.
    """
    parts = []
    for (x0, y0, x1, y1), score, number in zip(
        boxes.tolist(), scores.tolist(), numbers, strict=True
    ):
        x, y, width, height = int(x0), int(y0), int(x1 - x0), int(y1 - y0)
        top_left = max(0, y - 1) * frame_width + x
        bottom_right = max(0, y + height - 1) * frame_width + x + width
        centre = (y + height // 2) * frame_width + x + width // 2
        confidence = round(score * 100, 4)
        parts.append(f"{number} {confidence} {top_left} {bottom_right} {centre};")
    return "".join(reversed(parts)) + "\n"


class VmtiCsv:
    """Appends the column ``vmtilocaldataset`` to a csv file, row by row.

    A file that is there keeps its columns and rows; without one, a file with this column alone is
    made. Rows beyond the last frame get an empty cell; frames beyond the last row of a file that
    was there are left out, with a warning. The file is replaced when the block ends well.

    Parameters
    ----------
    path
        Of the csv file.

    Raises
    ------
    FormatError
        What is there is no csv text in UTF-8.
    OutputError
        The folder is missing or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.absolute().parent.is_dir():
            raise OutputError(f"The folder {self.path.absolute().parent} does not exist; make it.")
        self._stack = ExitStack()
        self._rows: Iterator[list[str]] | None = None
        self._header: list[str] = []
        self._lost = 0

    def __enter__(self) -> VmtiCsv:
        with ExitStack() as stack:
            place = stack.enter_context(staged(self.path))
            if self.path.is_file() and self.path.stat().st_size:
                file = stack.enter_context(open(self.path, newline="", encoding="utf-8-sig"))
                self._rows = csv.reader(file)
                self._header = self._next() or []
            target = stack.enter_context(open(place, "w", newline="", encoding="utf-8"))
            self._out = csv.writer(target, lineterminator="\n")
            self._out.writerow([*self._header, COLUMN])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._finish()
        except BaseException as late:
            self._stack.__exit__(type(late), late, late.__traceback__)
            raise
        self._stack.__exit__(*error)

    def write(self, cell: str) -> Mapping[str, str]:
        """Add the cell of the next frame; returns what else the file says of that frame."""
        if self._rows is None:
            self._out.writerow([cell])
            return {}
        row = self._next()
        if row is None:
            self._lost += 1
            return {}
        self._out.writerow([*self._padded(row), cell])
        return dict(zip(self._header, row, strict=False))

    def _finish(self) -> None:
        while self._rows is not None and (row := self._next()) is not None:
            self._out.writerow([*self._padded(row), ""])
        if self._lost:
            warnings.warn(
                f"{self.path} had fewer rows than the video has frames: the detections of the last "
                f"{self._lost} frames are not in it.",
                DataWarning,
                stacklevel=4,
            )

    def _padded(self, row: list[str]) -> list[str]:
        return row + [""] * (len(self._header) - len(row))

    def _next(self) -> list[str] | None:
        try:
            return next(self._rows, None)  # type: ignore[arg-type]  # asked where there are rows
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(
                f"{self.path} cannot be read as csv in UTF-8: {error}. Give a csv file with one "
                "row per frame, or a path where there is none."
            ) from error
