"""Functions sent to workers as bytes, so that a worker's event loop does not unpickle them.

Unpickling a task imports what it is made of; torch takes seconds to import, and a worker whose
event loop stands still for that long is taken for dead by a busy scheduler.
"""

from __future__ import annotations

import functools
from typing import Any

import cloudpickle

# A worker rarely runs blocks of more than one run at a time.
_KEPT = 4


def pack(value: Any) -> bytes:
    """Bytes of a function or task of ours, for a worker that :func:`unpack` s them in a thread."""
    data: bytes = cloudpickle.dumps(value)
    return data


@functools.lru_cache(maxsize=_KEPT)
def unpack(packed: bytes) -> Any:
    """The value that was packed by our own client; the same object for the same bytes."""
    return cloudpickle.loads(packed)


def call(packed: bytes, *arguments: Any) -> Any:
    """Call a packed function; what a worker runs."""
    return unpack(packed)(*arguments)
