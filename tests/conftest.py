"""Settings and shared inputs of all tests."""

from __future__ import annotations

import os

# Before any test imports numpy, torch or matplotlib.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["GEODL_OFFLINE"] = "1"

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

MakeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where torch sees no device."""
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if not wanted:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real sample data; the test is skipped where there is none."""
    named = os.environ.get("GEODL_SAMPLE_DATA")
    if not named:
        pytest.skip("GEODL_SAMPLE_DATA does not name the folder of real sample data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"GEODL_SAMPLE_DATA={named} is not a folder")
    return folder


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MakeOnce:
    """``make_once(name, make)``: a folder that one process of the run fills, for all of them.

    ``make`` gets an empty folder. Tests must not write into it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / f"shared-{name}", shared / f"shared-{name}.done"
        with FileLock(shared / f"shared-{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Open figures would be warned of by the twentieth test that draws."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
