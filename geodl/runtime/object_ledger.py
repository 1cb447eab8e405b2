"""The ledger of a run in an object store, where files neither grow nor are renamed.

A process keeps the lines of its last blocks and writes them, with their payloads, as one object
again after each block, until they are many: then it begins the next. So an object holds a batch of
blocks, it is there whole or not at all, and a block is kept as soon as its line was sent.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geodl.base.errors import OutputError
from geodl.base.places import reached, remote_errors, remote_system
from geodl.runtime.ledger import Ledger, parse_line, segment_stem, to_line

# A batch ends after so many blocks or bytes: each block sends it once more.
_BATCH_BLOCKS = 128
_BATCH_BYTES = 2**20
# Objects that are read at once.
_READ_AT_ONCE = 32


class ObjectSegment:
    """This process's part of a ledger: objects of a batch of blocks each."""

    def __init__(self, folder: Path) -> None:
        self.pid = os.getpid()
        self._folder = folder
        self._stem = segment_stem()
        self._lock = threading.Lock()
        self._batch = 0
        self._lines: list[bytes] = []

    def append(self, key: tuple[int, ...], report: dict[str, Any], payload: bytes) -> None:
        """Keep a block; it is in the store when this returns."""
        record: dict[str, Any] = {"block": list(key), "report": report}
        if payload:
            record["data"] = base64.b64encode(payload).decode("ascii")
        line = to_line(record)
        with self._lock:
            content = b"".join([*self._lines, line])
            target = self._folder / f"{self._stem}-{self._batch:06}.jsonl"
            reached(target, lambda: target.write_bytes(content))
            self._lines.append(line)
            if len(self._lines) >= _BATCH_BLOCKS or len(content) >= _BATCH_BYTES:
                self._batch += 1
                self._lines = []

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class ObjectLedger(Ledger):
    """A run folder in an object store; see :class:`~geodl.runtime.ledger.Ledger`."""

    def _make_folder(self) -> None:
        """An object store makes folders by itself."""

    def _records(
        self, *, payloads: bool
    ) -> Iterator[tuple[tuple[int, ...], dict[str, Any], bytes]]:
        system, root = remote_system(self.folder / "ledger")
        names = reached(self.folder, lambda: sorted(system.find(root)))
        for start in range(0, len(names), _READ_AT_ONCE):
            part = names[start : start + _READ_AT_ONCE]
            contents = reached(self.folder, partial(system.cat, part))
            for name in part:
                for line in contents[name].splitlines(keepends=True):
                    record = parse_line(line)
                    if record is None:
                        continue
                    data = base64.b64decode(record.get("data", "")) if payloads else b""
                    yield tuple(record["block"]), record["report"], data

    def _create_lock(self, text: str) -> None:
        system, path = remote_system(self._lock_path)
        try:
            # Stores that know the condition refuse a second object.
            system.pipe_file(path, text.encode(), mode="create")
            # Of others the last one holds.
            held = json.loads(self._lock_path.read_text())
        except FileExistsError:
            raise
        except remote_errors() as error:
            raise OutputError(
                f"The run folder {self.folder} cannot be made ({error}); check the bucket and the "
                "credentials, or choose another output_name."
            ) from error
        if held.get("token") != self._token:
            raise FileExistsError(str(self._lock_path))

    def _touch_lock(self) -> None:
        holder = reached(self.folder, self._lock_path.read_text)
        if json.loads(holder).get("token") == self._token:
            reached(self.folder, lambda: self._lock_path.write_text(holder))
