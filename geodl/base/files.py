"""Small files read with limits and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError, SourceNotFoundError
from geodl.base.places import is_remote, place

JSON_LIMIT_BYTES = 64 * 2**20
JSON_LIMIT_DEPTH = 64


def _refuse_constant(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")


def _check_tree(value: Any, depth: int) -> None:
    if depth > JSON_LIMIT_DEPTH:
        raise ValueError(f"nested deeper than {JSON_LIMIT_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        _check_tree(child, depth + 1)


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse JSON that may come from strangers: bounded depth, finite numbers only.

    Raises
    ------
    FormatError
        Names ``name`` and, where known, the line.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant)
        _check_tree(value, 0)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not usable JSON: {error}.") from error
    return value


def read_json(path: str | os.PathLike[str], *, limit_bytes: int = JSON_LIMIT_BYTES) -> Any:
    """Read a JSON file with :func:`parse_json`.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    FormatError
        Too large, not UTF-8 or not JSON; names the file.
    """
    path = place(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise SourceNotFoundError(f"There is no file {path}.") from None
    if size > limit_bytes:
        raise FormatError(f"{path} has {size} bytes; the most that is read is {limit_bytes}.")
    return parse_json(path.read_bytes(), str(path))


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write beside ``path`` and move into place, so that a reader never sees half a file.

    In an object store an object is there whole or not at all.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path = place(path)
    if is_remote(path):
        path.write_bytes(data)
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically; keys keep their order, numbers must be finite."""
    write_atomic(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of the canonical JSON text of ``value`` (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
