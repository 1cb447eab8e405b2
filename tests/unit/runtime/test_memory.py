"""What a process is told of its memory, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Megabytes that stay with the process after an array of 64 MB was made and freed, as layers are.
# Not page faults: with huge pages there are few of them, whatever the allocator does.
KEPT = """
import re, sys, threading
import numpy as np
from geodl.runtime.memory import keep_freed_memory
def held():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+) kB", status.read())[1]) // 1024
if sys.argv[1] == "told":
    print(keep_freed_memory())
def work():
    np.ones(2**18)
    before = held()
    np.ones(2**23)
    print(held() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def said(word: str) -> list[str]:
    as_dask_does = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", KEPT, word],
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
    assert int(before) < 16
    assert int(after) > 48
