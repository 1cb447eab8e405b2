"""Processes that are killed at a given write, not at a given time."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest

# The write that is given as the last word is torn in the middle by kill -9; 0 tears none. With so
# many seconds after a slash the kill comes so much later, at whatever the run then does.
_TORN = """
import os, threading
from geodl.runtime import ledger
count, _, late_s = sys.argv.pop().partition("/")
write, left = ledger._write_all, int(count)
def die():
    os.kill(os.getpid(), 9)
def torn(file, data):
    global left
    left -= 1
    if left == 0 and late_s:
        threading.Timer(float(late_s), die).start()
    elif left == 0:
        file.write(data[: len(data) // 2])
        die()
    write(file, data)
ledger._write_all = torn
"""


@pytest.fixture(scope="session")
def ended(start_script: Callable[..., BaseProcess]) -> Callable[..., int | None]:
    """``ended(code, *words)``: the exit code of a process that ran code; -9 where it was killed."""

    def run(code: str, *words: object) -> int | None:
        process = start_script(code, *words)
        process.join()
        return process.exitcode

    return run


@pytest.fixture(scope="session")
def torn(ended: Callable[..., int | None]) -> Callable[..., int | None]:
    """As :func:`ended`, with the write to the ledger that is torn as a further last word."""
    return lambda code, *words: ended(_TORN + code, *words)
