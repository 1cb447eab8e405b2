"""A ledger keeps what is done, forgets what is torn, and refuses to mix runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geodl.base.errors import OutputError, RunLockedError, RunMismatchError
from geodl.runtime.ledger import Ledger, record_block

LAYOUT = {"block_px": 512, "chunk_px": 256}


def test_blocks_are_found_again_by_the_same_fingerprint(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as ledger:
        assert not ledger.resumed
        record_block(ledger.folder, (0, 1), {"skipped": True})
        record_block(ledger.folder, (0, 0), {"found": 2}, b"abc")
    with Ledger.open(tmp_path / "a.run", "f1", {"block_px": 64, "chunk_px": 64}) as again:
        assert again.resumed
        assert again.layout == LAYOUT
        assert dict(again.reports()) == {(0, 1): {"skipped": True}, (0, 0): {"found": 2}}
        record_block(again.folder, (1, 0), {}, b"defg")
        assert list(again.payloads()) == [((0, 0), b"abc"), ((0, 1), b""), ((1, 0), b"defg")]


def test_another_fingerprint_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "a.run", "f1", LAYOUT, {"model": "x", "tool": "t"}).close()
    with pytest.raises(RunMismatchError, match="model"):
        Ledger.open(tmp_path / "a.run", "f2", LAYOUT, {"model": "y", "tool": "t"})
    with Ledger.open(tmp_path / "a.run", "f2", LAYOUT, overwrite=True) as ledger:
        assert ledger.done == set()


@pytest.mark.parametrize("keep", range(0, 60, 7))
def test_a_torn_line_is_a_block_not_done(tmp_path: Path, keep: int) -> None:
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as ledger:
        record_block(ledger.folder, (0, 0), {"found": 1}, b"payload-0")
        record_block(ledger.folder, (0, 1), {"found": 1}, b"payload-1")
    (lines,) = (tmp_path / "a.run" / "ledger").glob("*.jsonl")
    whole = lines.read_bytes()
    first = whole.index(b"\n") + 1
    lines.write_bytes(whole[: first + keep])
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as again:
        assert set(again.done) == {(0, 0)}


def test_a_line_without_its_payload_is_a_block_not_done(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as ledger:
        record_block(ledger.folder, (0, 0), {}, b"payload-0")
        record_block(ledger.folder, (0, 1), {}, b"payload-1")
    (blob,) = (tmp_path / "a.run" / "ledger").glob("*.bin")
    blob.write_bytes(blob.read_bytes()[:-1])
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as again:
        assert set(again.done) == {(0, 0)}
        assert list(again.payloads()) == [((0, 0), b"payload-0")]


def test_a_damaged_payload_is_left_out(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as ledger:
        record_block(ledger.folder, (0, 0), {}, b"payload-0")
    (blob,) = (tmp_path / "a.run" / "ledger").glob("*.bin")
    blob.write_bytes(b"PAYLOAD-0")
    with Ledger.open(tmp_path / "a.run", "f1", LAYOUT) as again:
        assert list(again.payloads()) == []


def test_a_live_run_is_not_joined_by_a_second(tmp_path: Path) -> None:
    with (
        Ledger.open(tmp_path / "a.run", "f1", LAYOUT),
        pytest.raises(RunLockedError, match=str(os.getpid())),
    ):
        Ledger.open(tmp_path / "a.run", "f1", LAYOUT)
    Ledger.open(tmp_path / "a.run", "f1", LAYOUT).close()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from geodl.runtime.ledger import Ledger, record_block\n"
        "ledger = Ledger.open(sys.argv[1], 'f1', {'block_px': 512, 'chunk_px': 256})\n"
        "record_block(ledger.folder, (3, 4), {'found': 7}); os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "a.run"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert done.returncode == -9
    assert (folder / "lock").exists()
    with Ledger.open(folder, "f1", LAYOUT) as ledger:
        assert dict(ledger.reports()) == {(3, 4): {"found": 7}}


def test_a_silent_lock_of_another_host_is_taken_over_only_when_old(tmp_path: Path) -> None:
    folder = tmp_path / "a.run"
    Ledger.open(folder, "f1", LAYOUT).close()
    lock = folder / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "t"}))
    with pytest.raises(RunLockedError, match="elsewhere"):
        Ledger.open(folder, "f1", LAYOUT)
    os.utime(lock, (0, 0))
    Ledger.open(folder, "f1", LAYOUT).close()
    assert not lock.exists()


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "a.run", "f1", LAYOUT)
    record_block(ledger.folder, (0, 0), {}, b"x")
    ledger.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/a\.run"):
        Ledger.open(tmp_path / "file" / "a.run", "f1", LAYOUT)
