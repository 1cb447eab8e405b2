"""Chunks of a lazily derived array, kept on disk for as long as the blocks around them need them.

Blocks overlap, and seldom end where chunks do: without a memory of what is computed, a chunk would
be computed again for every block that touches it. That memory is on disk, as a row of chunks of a
wide raster is more than a worker may hold.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

logger = logging.getLogger(__name__)

# Rows of chunks above the present block that stay: blocks on other workers may lag behind.
_ROWS_BEHIND = 2

Compute = Callable[[], list[np.ndarray]]


class ChunkSpool:
    """A folder of computed chunks, shared by the processes of one machine.

    It is removed with the object that made it. A copy in another process uses the same folder.
    """

    def __init__(self) -> None:
        self.folder = os.path.join(tempfile.gettempdir(), f"geodl-chunks-{uuid.uuid4().hex}")
        self._first_row = 0
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __reduce__(self) -> tuple[Callable[[str], ChunkSpool], tuple[str]]:
        return _elsewhere, (self.folder,)

    def get(self, row: int, col: int, compute: Compute) -> list[np.ndarray]:
        """The arrays of one chunk, computed by the first who asks; others wait for it.

        Parameters
        ----------
        row, col
            Of the chunk among the chunks.
        compute
            Makes them.
        """
        base = os.path.join(self.folder, f"{row:07}-{col:07}")
        found = _load(base)
        if found is not None:
            return found
        try:
            os.makedirs(self.folder, exist_ok=True)
            lock = FileLock(f"{base}.lock")
            with lock:
                found = _load(base)
                if found is None:
                    found = compute()
                    _keep(base, found)
            return found
        except OSError as error:
            if found is None:
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else str(error)
            logger.warning("chunks are not kept in %s: %s", self.folder, reason)
            return found

    def forget_above(self, row: int) -> None:
        """Remove chunks that no block from this row of chunks on will need."""
        least = row - _ROWS_BEHIND
        if least <= self._first_row:
            return
        self._first_row = least
        for entry in Path(self.folder).glob("*-*.*"):
            if int(entry.name[:7]) < least:
                entry.unlink(missing_ok=True)


def _elsewhere(folder: str) -> ChunkSpool:
    """The same spool in another process, which tidies up only what no owner can."""
    spool = ChunkSpool.__new__(ChunkSpool)
    spool.folder = folder
    spool._first_row = 0
    if not os.path.isdir(folder):
        # On another machine than the owner's nobody else will.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return spool


def _load(base: str) -> list[np.ndarray] | None:
    """Read only what is asked of the arrays later on."""
    try:
        count = int(Path(f"{base}.done").read_text())
        return [np.load(f"{base}.{k}.npy", mmap_mode="r") for k in range(count)]
    except (FileNotFoundError, ValueError):
        return None


def _keep(base: str, arrays: list[np.ndarray]) -> None:
    for k, array in enumerate(arrays):
        np.save(f"{base}.{k}.npy", array)
    Path(f"{base}.done").write_text(str(len(arrays)))
