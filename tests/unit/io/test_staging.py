from __future__ import annotations

import errno
from pathlib import Path

import pytest

from geodl.base.errors import FormatError, OutputError, SourceNotFoundError
from geodl.io.manifest import manifest_path, read_manifest, write_manifest
from geodl.io.staging import output_error, staged


def _fail_halfway(target: Path, error: BaseException) -> None:
    with staged(target) as place:
        place.write_text("half")
        raise error


def test_a_product_and_its_side_files_appear_together(tmp_path):
    target = tmp_path / "deep" / "a.dat"
    with staged(target) as place:
        place.write_text("new")
        place.with_name("a.side").write_text("side")
        assert not target.exists()
    assert target.read_text() == "new"
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.dat", "a.side"]


def test_a_failed_product_leaves_the_old_one_and_nothing_else(tmp_path):
    target = tmp_path / "a.dat"
    target.write_text("old")
    with pytest.raises(OutputError, match="disk is full"):
        _fail_halfway(target, OSError(errno.ENOSPC, "No space left on device"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.dat"]
    assert target.read_text() == "old"


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _fail_halfway(tmp_path / "a.dat", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_our_own_errors_pass_through(tmp_path):
    with pytest.raises(FormatError), staged(tmp_path / "a.dat"):
        raise FormatError("mine")


def test_a_writer_that_wrote_nothing_is_noticed(tmp_path):
    with pytest.raises(OutputError, match="not written"), staged(tmp_path / "a.dat"):
        pass


def test_folders_replace_folders(tmp_path):
    target = tmp_path / "a.zarr"
    for text in ("one", "two"):
        with staged(target) as place:
            place.mkdir()
            (place / text).write_text(text)
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "x"), "disk is full"),
        (OSError(errno.EFBIG, "x"), "size limit"),
        (PermissionError(errno.EACCES, "x"), "no permission"),
        (OSError(errno.EROFS, "x"), "no permission"),
        (RuntimeError("odd"), "odd"),
    ],
)
def test_errors_name_the_product_and_the_remedy(tmp_path, error, message):
    text = str(output_error(tmp_path / "a.tif", error))
    assert "a.tif" in text
    assert message in text


def test_the_manifest_lies_beside_its_product(tmp_path):
    assert manifest_path(tmp_path / "map.tif") == tmp_path / "map.tif.manifest.json"
    assert manifest_path(f"{tmp_path}/map.zarr/") == tmp_path / "map.zarr.manifest.json"
    written = write_manifest(tmp_path / "map.tif", {"blocks": {"done": 3}})
    assert written == tmp_path / "map.tif.manifest.json"
    assert read_manifest(tmp_path / "map.tif") == {"blocks": {"done": 3}}
    with pytest.raises(SourceNotFoundError):
        read_manifest(tmp_path / "other.tif")


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}])
def test_a_manifest_holds_json_only(tmp_path, value):
    with pytest.raises(OutputError, match="JSON"):
        write_manifest(tmp_path / "map.tif", value)


def test_a_manifest_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="manifest"):
        write_manifest(tmp_path / "none" / "map.tif", {})
