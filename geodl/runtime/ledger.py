"""The ledger of a run: which blocks are done, with their small results.

A run folder ``<product>.run/`` holds ``run.json`` (fingerprint, layout), ``lock`` and ``ledger/``.
Every process that finishes blocks appends to its own segment there: first the payload to
``<segment>.bin``, then one line of JSON with its checksum to ``<segment>.jsonl``. A line is written
after the block's data, so a line that is whole means that the data is whole too. A torn tail,
left by a kill in the middle of a write, is ignored and the block is computed again. In an object
store, which appends to nothing, :mod:`geodl.runtime.object_ledger` keeps the same facts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from geodl.base.errors import OutputError, RunLockedError, RunMismatchError
from geodl.base.files import read_json, write_json
from geodl.base.places import is_remote, place, remove_tree

logger = logging.getLogger(__name__)

SCHEMA = 1
_HEARTBEAT_S = 5.0
# A lock of another host that has not been touched for so long belongs to a dead process. Network
# file systems show times late by up to a minute.
_STALE_S = 90.0

_writers: dict[str, Segment] = {}
_writers_lock = threading.Lock()


class Segment(Protocol):
    """One process's part of a ledger; appended to by any of its threads."""

    pid: int

    def append(self, key: tuple[int, ...], report: dict[str, Any], payload: bytes) -> None:
        """Keep a block; it is kept when this returns."""
        ...

    def close(self) -> None: ...


def segment_stem() -> str:
    """A name that no other process gives its segment."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class _FileSegment:
    """A segment in two files that grow."""

    def __init__(self, folder: Path) -> None:
        stem = segment_stem()
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._lines = open(folder / f"{stem}.jsonl", "ab", buffering=0)  # noqa: SIM115
        self._payloads = open(folder / f"{stem}.bin", "ab", buffering=0)  # noqa: SIM115
        self._offset = 0

    def append(self, key: tuple[int, ...], report: dict[str, Any], payload: bytes) -> None:
        with self._lock:
            record: dict[str, Any] = {"block": list(key), "report": report}
            if payload:
                record["payload"] = [self._offset, len(payload), zlib.crc32(payload)]
                _write_all(self._payloads, payload)
                self._offset += len(payload)
            _write_all(self._lines, to_line(record))

    def close(self) -> None:
        self._lines.close()
        self._payloads.close()


def to_line(record: dict[str, Any]) -> bytes:
    """A record with its checksum."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b"%s\t%08x\n" % (text, zlib.crc32(text))


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def record_block(
    run_folder: str | os.PathLike[str],
    key: tuple[int, ...],
    report: dict[str, Any],
    payload: bytes = b"",
) -> None:
    """Say, in the process that computed it, that a block's data is written.

    Parameters
    ----------
    key
        The block's position, as in its spec.
    report
        Small JSON: status and seconds by stage.
    payload
        Small results of the block itself (detections), kept in the segment.
    """
    folder = place(run_folder) / "ledger"
    with _writers_lock:
        segment = _writers.get(str(folder))
        if segment is None or segment.pid != os.getpid():
            segment = _writers[str(folder)] = _new_segment(folder)
    segment.append(key, report, payload)


def _new_segment(folder: Path) -> Segment:
    if is_remote(folder):
        from geodl.runtime.object_ledger import ObjectSegment

        return ObjectSegment(folder)
    return _FileSegment(folder)


def _close_writer(run_folder: Path) -> None:
    with _writers_lock:
        segment = _writers.pop(str(run_folder / "ledger"), None)
    if segment is not None:
        segment.close()


@dataclass
class Ledger:
    """One run folder, opened for one run.

    Use :meth:`open`; it is a context manager that holds the lock while the run lives.
    """

    folder: Path
    fingerprint: str
    layout: dict[str, Any]
    resumed: bool
    done: set[tuple[int, ...]] = field(default_factory=set)
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)
    _stop: threading.Event = field(default_factory=threading.Event)
    _beat: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        fingerprint: str,
        layout: dict[str, Any],
        settings: dict[str, Any] | None = None,
        *,
        overwrite: bool = False,
    ) -> Ledger:
        """Start a run, or go on with the unfinished one of the same fingerprint.

        Parameters
        ----------
        fingerprint
            Hash of everything that changes the result.
        layout
            What does not (block size): a resumed run takes its ledger's own.
        settings
            JSON that explains the fingerprint to people.

        Raises
        ------
        RunMismatchError
            An unfinished run with another fingerprint is there (and not ``overwrite``).
        RunLockedError
            Another live process runs here.
        OutputError
            The folder cannot be made.
        """
        folder = place(folder)
        header = folder / "run.json"
        kind = cls
        if is_remote(folder):
            from geodl.runtime.object_ledger import ObjectLedger

            kind = ObjectLedger
        ledger = kind(folder, fingerprint, dict(layout), resumed=False)
        ledger._make_folder()
        ledger._take_lock()
        try:
            known = read_json(header) if header.exists() else None
            if known is not None and known.get("fingerprint") != fingerprint and not overwrite:
                raise RunMismatchError(_explain_mismatch(folder, known, settings or {}))
            if known is not None and known.get("fingerprint") == fingerprint:
                ledger.resumed = True
                ledger.layout = dict(known["layout"])
                ledger.refresh()
            else:
                ledger._clear()
                write_json(
                    header,
                    {
                        "schema": SCHEMA,
                        "fingerprint": fingerprint,
                        "layout": layout,
                        "settings": settings or {},
                    },
                )
        except BaseException:
            ledger._release_lock()
            raise
        return ledger

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock and this process's segment; the folder stays for a resume."""
        _close_writer(self.folder)
        self._release_lock()

    def remove(self) -> None:
        """Delete the run folder: the product is finished."""
        self.close()
        remove_tree(self.folder)

    def _make_folder(self) -> None:
        try:
            (self.folder / "ledger").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The run folder {self.folder} cannot be made ({error.strerror}); "
                f"choose an output folder that you may write to."
            ) from error

    def refresh(self) -> None:
        """Read again which blocks are done, from all processes' segments."""
        self.done = {key for key, _, _ in self._records(payloads=False)}

    def reports(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """Each finished block's key and report once; read from disk, as there may be a million."""
        told: set[tuple[int, ...]] = set()
        for key, report, _ in self._records(payloads=False):
            if key not in told:
                told.add(key)
                yield key, report

    def payloads(self) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Each finished block's payload once, ordered by block."""
        found: dict[tuple[int, ...], bytes] = {}
        for key, _, payload in self._records(payloads=True):
            found.setdefault(key, payload)
        for key in sorted(found):
            yield key, found[key]

    def _records(
        self, *, payloads: bool
    ) -> Iterator[tuple[tuple[int, ...], dict[str, Any], bytes]]:
        for lines in sorted((self.folder / "ledger").glob("*.jsonl")):
            blob = lines.with_suffix(".bin")
            size = blob.stat().st_size if blob.exists() else 0
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(open(lines, "rb"))
                data = stack.enter_context(open(blob, "rb")) if payloads and size else None
                for line in file:
                    record = parse_line(line)
                    if record is None:
                        continue
                    offset, length, checksum = record.get("payload", (0, 0, 0))
                    if offset + length > size:
                        continue
                    payload = b""
                    if data is not None and length:
                        data.seek(offset)
                        payload = data.read(length)
                        if zlib.crc32(payload) != checksum:
                            continue
                    yield tuple(record["block"]), record["report"], payload

    def _clear(self) -> None:
        remove_tree(self.folder, keep=("lock",))
        self._make_folder()

    # The lock -----------------------------------------------------------------

    @property
    def _lock_path(self) -> Path:
        return self.folder / "lock"

    def _take_lock(self) -> None:
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        for _ in range(3):
            try:
                self._create_lock(json.dumps(holder))
            except FileExistsError:
                self._break_stale_lock()
                continue
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
                    raise OutputError(
                        f"{self.folder} cannot be written ({error.strerror}); free space or "
                        f"choose an output folder that you may write to."
                    ) from error
                raise
            self._beat = threading.Thread(target=self._heartbeat, daemon=True, name="geodl-lock")
            self._beat.start()
            return
        raise RunLockedError(f"The lock {self._lock_path} is taken again and again by others.")

    def _create_lock(self, text: str) -> None:
        """Make the lock, or raise FileExistsError where there is one."""
        handle = os.open(self._lock_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(handle, "w") as file:
            file.write(text)

    def _break_stale_lock(self) -> None:
        """Remove the lock of a dead process, or raise RunLockedError."""
        try:
            age_s = time.time() - self._lock_path.stat().st_mtime
            text = self._lock_path.read_text()
            holder = json.loads(text) if text else {}
        except FileNotFoundError:
            return
        except ValueError:
            holder = {}
        here = holder.get("host") == socket.gethostname()
        dead = not _alive(holder.get("pid")) if here else age_s > _STALE_S
        if not dead:
            raise RunLockedError(
                f"Another process writes to {self.folder} (host {holder.get('host', '?')}, "
                f"process {holder.get('pid', '?')}, last seen {age_s:.0f} s ago). Wait for it, or "
                f"choose another output."
            )
        logger.warning("taking over the lock of a dead process: %s", self._lock_path)
        with contextlib.suppress(FileNotFoundError):
            self._lock_path.unlink()

    def _heartbeat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_S):
            with contextlib.suppress(OSError):
                self._touch_lock()

    def _touch_lock(self) -> None:
        os.utime(self._lock_path)

    def _release_lock(self) -> None:
        self._stop.set()
        if self._beat is None:
            return
        self._beat.join()
        self._beat = None
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._lock_path.read_text()).get("token") == self._token:
                self._lock_path.unlink()


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (TypeError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    # A zombie has finished; only its parent has not asked yet. /proc is Linux's.
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def parse_line(line: bytes) -> dict[str, Any] | None:
    text, _, checksum = line.rstrip(b"\n").rpartition(b"\t")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
            return None
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return record


def _explain_mismatch(folder: Path, known: dict[str, Any], settings: dict[str, Any]) -> str:
    before = known.get("settings", {})
    changed = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
    replaced = (
        " The raster is another one, or a file of it was written anew since: its finished blocks "
        "show the former."
    )
    return (
        f"{folder} holds an unfinished run that would give another result "
        f"(it differs in: {', '.join(changed) or 'the code that wrote it'})."
        f"{replaced if 'source' in changed else ''} Repeat the former "
        f"call to finish it, choose another output, or pass overwrite=True to start again."
    )
