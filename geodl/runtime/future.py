"""Work that goes on beside the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class RunFuture(Future):  # type: ignore[type-arg]
    """The result of a tool called with ``future=True``.

    ``progress`` is the share of blocks finished, 0..1; of several rasters one after another each
    has an equal share of it. ``cancel()`` stops after the blocks in flight; the run can be resumed
    by the same call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()
        self._progress = 0.0
        self._part = 0, 1

    @property
    def progress(self) -> float:
        finished = self.done() and not self.cancelled() and self.exception() is None
        return 1.0 if finished else self._progress

    def begin(self, number: int, count: int) -> None:
        """The blocks that are told of from now on are of run ``number`` (from 0) of ``count``."""
        self._part = number, count

    def watch(self, done: int, total: int) -> None:
        number, count = self._part
        self._progress = (number + (done / total if total else 1.0)) / count

    def cancel(self) -> bool:
        """Ask the run to stop; False when it has finished already."""
        if self.done():
            return False
        self.stop.set()
        return True


def start(work: Callable[[RunFuture], Any]) -> RunFuture:
    """Run ``work(future)`` in a thread of its own and return the future at once."""
    future = RunFuture()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work(future)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="geodl-run", daemon=True).start()
    return future
