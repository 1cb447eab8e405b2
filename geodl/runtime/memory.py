"""How much memory this process has held, and how it keeps what it will need again."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
# Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# More than a layer of a network gives for a batch of tiles.
_KEPT_BYTES = 256 * 2**20


def peak_bytes() -> int:
    """Most memory that this process has held at one time."""
    # Not the kernel's count of resources: it goes on from the process that started this one.
    if _STATUS.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> bool:
    """Let the allocator keep up to 256 MB that is freed; returns whether it could be told.

    By itself it gives back what is larger than 32 MB, and under the nannies of Dask all of 64 kB,
    so that the layers of a network get their memory page by page from the kernel: that takes a
    fifth of the time of a U-Net, and of its training, and a third under Dask. Holds for the process
    from then on. Only glibc can be told; others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Heaps of further threads cannot grow so far.
    limits = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _KEPT_BYTES, _TRIM_THRESHOLD: _KEPT_BYTES}
    return all(mallopt(option, value) == 1 for option, value in limits.items())
