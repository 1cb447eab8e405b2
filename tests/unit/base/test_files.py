"""Small files: strangers' JSON is read with limits, ours is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.base import files
from geodl.base.errors import FormatError, SourceNotFoundError
from geodl.base.files import (
    JSON_LIMIT_DEPTH,
    parse_json,
    read_json,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
)

_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
_SCALARS |= st.floats(allow_nan=False, allow_infinity=False)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=30)
@given(_TREES)
def test_json_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"here\.json.*not finite"):
        parse_json(text, "here.json")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "nonsense", "[" * 100_000])
def test_broken_json_names_the_file(text: str) -> None:
    with pytest.raises(FormatError, match=r"here\.json"):
        parse_json(text, "here.json")


def test_depth_is_limited() -> None:
    fine = "[" * JSON_LIMIT_DEPTH + "]" * JSON_LIMIT_DEPTH
    assert parse_json(fine, "x") is not None
    with pytest.raises(FormatError, match="nested deeper"):
        parse_json("[" + '{"a":' * 80 + "1" + "}" * 80 + "]", "x")


def test_byte_order_mark_is_tolerated_and_other_encodings_are_not() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": "\xc3\xa9"}', "x") == {"a": "é"}
    with pytest.raises(FormatError, match="x is not usable JSON"):
        parse_json('{"a": "é"}'.encode("latin-1"), "x")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.json") as caught:
        read_json(tmp_path / "gone.json")
    assert isinstance(caught.value, FileNotFoundError)


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text("[1, 2, 3]")
    assert read_json(path, limit_bytes=9) == [1, 2, 3]
    with pytest.raises(FormatError, match=r"large.json has 9 bytes; the most that is read is 8"):
        read_json(path, limit_bytes=8)


def test_writing_refuses_numbers_that_are_not_finite_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, [float("nan")])
    assert read_json(path) == [1]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_written_bytes_are_exact_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"
    assert path.stat().st_mode & 0o444 == 0o444


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Höhe"})
    assert "Höhe".encode() in (tmp_path / "a.json").read_bytes()


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100_001)
    assert sha256_file(path) == hashlib.sha256(b"x" * 100_001).hexdigest()


def test_sha256_of_json_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    assert sha256_json([1, 2]) != sha256_json([2, 1])
