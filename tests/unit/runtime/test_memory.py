"""What a process is told of its memory, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Page faults of an array of 8 MB that is made and freed again and again, as layers are.
FAULTS = """
import resource, sys, threading
import numpy as np
from geodl.runtime.memory import keep_freed_memory
if sys.argv[1] == "told":
    print(keep_freed_memory())
def work():
    for _ in range(3):
        np.ones(2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(2**20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def said(word: str) -> list[str]:
    as_dask_does = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, word],
        env=as_dask_does,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is of glibc")
def test_freed_memory_is_used_again() -> None:
    (before,) = said("as it is")
    told, after = said("told")
    if told == "False":
        pytest.skip("this C library has no mallopt")
    assert int(before) > 10_000
    assert int(after) < 1000
