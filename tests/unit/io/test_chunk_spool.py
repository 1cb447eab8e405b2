"""Chunks that are computed once, kept on disk while they are needed, and no longer."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import threading
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from geodl.core.grid import Window
from geodl.io.chunk_spool import ChunkSpool
from geodl.io.source import open_source


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[np.ndarray]:
        self.calls += 1
        return [np.arange(6).reshape(1, 2, 3), np.ones((2, 3), bool)]


def test_a_chunk_is_computed_by_the_first_who_asks() -> None:
    spool, make = ChunkSpool(), Maker()
    other = pickle.loads(pickle.dumps(spool))
    results = []
    threads = [
        threading.Thread(target=lambda s=s: results.append(s.get(3, 4, make)))
        for s in (spool, other, spool, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make.calls == 1
    for data, mask in results:
        assert data.tolist() == [[[0, 1, 2], [3, 4, 5]]]
        assert mask.all()


def test_the_folder_goes_with_its_owner_alone() -> None:
    spool = ChunkSpool()
    assert not os.path.exists(spool.folder)
    spool.get(0, 0, Maker())
    folder, copy = spool.folder, pickle.loads(pickle.dumps(spool))
    del copy
    gc.collect()
    assert os.path.isdir(folder)
    del spool
    gc.collect()
    assert not os.path.exists(folder)


def test_rows_that_lie_behind_are_forgotten() -> None:
    spool, make = ChunkSpool(), Maker()
    for row in range(6):
        spool.get(row, 0, make)
    spool.forget_above(5)
    left = sorted({path.name[:7] for path in Path(spool.folder).iterdir()})
    assert left == ["0000003", "0000004", "0000005"]
    spool.get(0, 0, make)
    assert make.calls == 7


def test_a_full_disk_only_costs_the_memory_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    spool, make = ChunkSpool(), Maker()
    for _ in range(2):
        assert spool.get(0, 0, make)[0].sum() == 15
    assert make.calls == 2


@pytest.mark.parametrize("upwards", [False, True])
def test_any_windows_of_a_lazy_array_are_parts_of_the_whole(upwards: bool) -> None:
    data = np.random.default_rng(0).integers(0, 9, (2, 37, 53))
    y = np.arange(37.0) if upwards else -np.arange(37.0)
    array = xr.DataArray(
        da.from_array(data, chunks=(1, 10, (5, 48))) + 0,
        dims=("band", "y", "x"),
        coords={"y": y, "x": np.arange(53.0), "mask": (("y", "x"), data[0] > 2)},
    )
    source = open_source(array.rio.write_crs(32633))
    expected = data[:, ::-1] if upwards else data
    rng = np.random.default_rng(1)
    for _ in range(20):
        row, col = int(rng.integers(0, 36)), int(rng.integers(0, 52))
        height, width = int(rng.integers(1, 38 - row)), int(rng.integers(1, 54 - col))
        block = source.read(Window(row=row, col=col, height=height, width=width))
        part = expected[:, row : row + height, col : col + width]
        np.testing.assert_array_equal(block.data, part)
        np.testing.assert_array_equal(block.mask, part[0] > 2)
