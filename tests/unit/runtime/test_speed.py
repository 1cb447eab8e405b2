"""Throughput by stage, and how busy the model was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from geodl.runtime.run import RunSummary
from geodl.runtime.speed import Speed


def test_stages_count_all_blocks_and_the_rest_only_those_of_this_call() -> None:
    summary = RunSummary(4, resumed=1)
    report = {"seconds": {"read": 1.0, "compute": 3.0, "model": 2.0}, "peak_bytes": 7}
    summary.count({**report, "peak_bytes": 99}, resumed=True)
    for _ in range(3):
        summary.count(report)
    summary.seconds["finalise"] = 4.0
    summary.blocks_s, summary.wall_s = 5.0, 10.0
    speed = Speed.of(summary, pixels=40_000_000, processes=2)
    assert speed.stages == {"read": 10.0, "model": 5.0, "finalise": 10.0}
    assert speed.overall == pytest.approx(3.0)
    assert speed.busy == pytest.approx(6 / 10)
    assert summary.peak_bytes == 7
    assert str(speed) == "3 MPix/s (read 10, model 5, finalise 10), the model ran 60% of the time"


# In a small process: what is held must alone be more than all that was held before.
HELD = """
from geodl.runtime.memory import peak_bytes
before = peak_bytes()
held = b"x" * (before + 2**24)
with_it = peak_bytes()
del held
print(before, with_it, peak_bytes())
"""


def test_the_peak_is_what_this_process_has_held() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], check=True, capture_output=True, text=True)
    before, with_it, after = map(int, done.stdout.split())
    # The kernel counts pages to some hundred.
    assert with_it > before + 2**23
    assert after > before + 2**23
