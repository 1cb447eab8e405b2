"""Progress that a terminal, a notebook and a batch log all bear."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

_LINE_EVERY_S = 10.0


class Progress:
    """Counts finished units; a bar where there is a terminal or notebook, else a line now and then.

    Parameters
    ----------
    total, done
        Units of the whole run, and those finished before it.
    name
        What is counted, at the left of the bar.
    show
        False counts in silence.
    unit
        What one is called.
    """

    def __init__(
        self, total: int, name: str, *, done: int = 0, show: bool = True, unit: str = "block"
    ) -> None:
        self.total, self.done, self.name = total, done, name
        self._watchers: list[Callable[[int, int], None]] = []
        self._bar: Any = None
        self._lines = show and not _interactive()
        self._last = time.monotonic()
        if show and not self._lines:
            self._bar = tqdm(total=total, initial=done, desc=name, unit=unit, leave=True)

    def watch(self, call: Callable[[int, int], None]) -> None:
        """Call ``call(done, total)`` after each unit."""
        self._watchers.append(call)

    def advance(self) -> None:
        self.done += 1
        if self._bar is not None:
            self._bar.update(1)
        now = time.monotonic()
        if self._lines and (self.done == self.total or now - self._last > _LINE_EVERY_S):
            self._last = now
            sys.stderr.write(f"{self.name}: {self.done} of {self.total}\n")
        for call in self._watchers:
            call(self.done, self.total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """A line where progress is shown."""
    tqdm.write(text, file=sys.stderr)


def _interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
