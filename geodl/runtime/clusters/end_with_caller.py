"""What the scheduler of local workers loads first, so that it ends with whoever started it.

A process that is killed closes nothing. Its scheduler would go on waiting, with workers that hold
networks in memory. The scheduler's input is a pipe from the process that started it, which the
system closes with that process; workers end when their scheduler does.
"""

from __future__ import annotations

import sys
import threading
from typing import Any


def dask_setup(scheduler: Any) -> None:
    """Called by Dask once the scheduler is up."""
    threading.Thread(target=_end_with_caller, args=(scheduler,), daemon=True).start()


def _end_with_caller(scheduler: Any) -> None:
    sys.stdin.buffer.read()
    scheduler.loop.add_callback(scheduler.close)
