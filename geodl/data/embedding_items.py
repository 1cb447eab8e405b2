"""What vectors are made of: image files, and texts in files."""

from __future__ import annotations

import csv
import html
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError, OptionError, SourceNotFoundError
from geodl.base.files import read_json
from geodl.base.options import check_choice

IMAGE_ENDINGS = ("png", "jpg", "jpeg", "tiff", "tif", "bmp")
TEXT_ENDINGS = ("csv", "txt", "json")
_URL = re.compile(r"(?:https?://|www\.)\S+")
_TAG = re.compile(r"<[^<>]+>")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """How texts are read from files.

    Parameters
    ----------
    encoding
        Of the files.
    column
        That holds the texts, in csv and json.
    remove_urls, remove_tags
        Leave out web addresses and HTML tags.
    """

    encoding: str = "UTF-8"
    column: str = "text"
    remove_urls: bool = False
    remove_tags: bool = False

    def cleaned(self, text: str) -> str:
        if self.remove_tags:
            text = html.unescape(_TAG.sub(" ", text))
        if self.remove_urls:
            text = _URL.sub(" ", text)
        return " ".join(text.split()) if self.remove_tags or self.remove_urls else text


def item_files(
    places: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    endings: str | Sequence[str] | None,
    known: Sequence[str],
) -> list[Path]:
    """The files with one of the endings in folders and all below them, in order of their names.

    Raises
    ------
    OptionError
        An ending that cannot be read.
    SourceNotFoundError
        A folder that is not there, or no such file at all.
    """
    listed = [places] if isinstance(places, str | os.PathLike) else list(places)
    if not listed or not all(isinstance(place, str | os.PathLike) for place in listed):
        raise OptionError(f"text_or_list={places!r} is neither a folder nor a list of folders.")
    given = [endings] if isinstance(endings, str) else list(endings or known)
    wanted = {check_choice(end.lower().lstrip("."), known, "file_extensions") for end in given}
    found: list[Path] = []
    for place in listed:
        path = Path(place).expanduser()
        if not path.exists():
            raise SourceNotFoundError(f"There is no folder {path}.")
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        found += [p for p in inside if p.is_file() and p.suffix.lower().lstrip(".") in wanted]
    if not found:
        raise SourceNotFoundError(
            f"{', '.join(map(str, listed))} holds no file that ends in {', '.join(sorted(wanted))}."
        )
    return found


def texts_of(path: Path, reading: TextReading) -> Iterator[str]:
    """The texts in a file: a whole txt, a column of a csv, an entry of a json on its first level.

    Raises
    ------
    FormatError
        A file that cannot be read, or lacks the column; names it.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".txt":
            yield reading.cleaned(path.read_text(reading.encoding))
        elif suffix == ".csv":
            yield from map(reading.cleaned, _csv_texts(path, reading))
        else:
            yield from map(reading.cleaned, _json_texts(path, reading))
    except LookupError as error:
        raise OptionError(f"encoding={reading.encoding!r} is unknown: {error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(
            f"{path} cannot be read as {reading.encoding}: {error}. Give its encoding."
        ) from error


def _csv_texts(path: Path, reading: TextReading) -> Iterator[str]:
    with open(path, newline="", encoding=reading.encoding) as file:
        rows = csv.DictReader(file)
        if reading.column not in (rows.fieldnames or ()):
            raise FormatError(
                f"{path} has no column {reading.column!r}; it has "
                f"{', '.join(rows.fieldnames or ()) or 'none'}. Give text_column."
            )
        for row in rows:
            yield row[reading.column] or ""


def _json_texts(path: Path, reading: TextReading) -> Iterator[str]:
    content: Any = read_json(path)
    entries = content if isinstance(content, list) else [content]
    if isinstance(content, dict) and isinstance(content.get(reading.column), list):
        entries = [{reading.column: text} for text in content[reading.column]]
    for number, entry in enumerate(entries, start=1):
        text = entry.get(reading.column) if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise FormatError(
                f"{path}, entry {number}, has no text {reading.column!r}; give text_column."
            )
        yield text
