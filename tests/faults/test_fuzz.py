"""Readers of model packages under many more damaged files than the everyday tests try."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

READERS = Path(__file__).parents[1] / "unit" / "bundle"


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_readers_of_packages_fail_with_named_errors_only() -> None:
    """EMD, DLPK, weights and ONNX; ``GEODL_FUZZ`` is how many examples each test draws."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=3600",
         "-k", "damaged or any_ or checksums", str(READERS)],
        env={**os.environ, "GEODL_FUZZ": os.environ.get("GEODL_FUZZ", "5000")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
