"""Blocks run once each, here or on workers; failures are named and the rest is kept."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from geodl.base.errors import (
    BlockError,
    OutputError,
    RunCancelledError,
    SourceError,
    SourceRefusedError,
)
from geodl.runtime import connect as connect_module
from geodl.runtime.connect import connect
from geodl.runtime.future import start
from geodl.runtime.ledger import Ledger
from geodl.runtime.run import run_blocks

LAYOUT = {"block_px": 1, "chunk_px": 1}


@dataclass(frozen=True)
class Spec:
    row: int
    col: int = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.row, self.col

    @property
    def name(self) -> str:
        return f"block {self.row},{self.col}"


@dataclass(frozen=True)
class Square:
    """Writes row squared into a file of the block's own; fails where it is told to."""

    folder: str
    bad: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()

    def read(self, spec: Spec) -> int:
        if spec.row in self.refused:
            with open(Path(self.folder, "asked"), "a") as file:
                file.write(f"{spec.row}\n")
            raise SourceRefusedError(f"{spec.row} is for others")
        if spec.row in self.late:
            flag = Path(self.folder, f"tried-{spec.row}")
            if not flag.exists():
                flag.touch()
                raise SourceError(f"no answer for {spec.row}")
        return spec.row

    def compute(self, spec: Spec, loaded: int) -> int:
        if spec.row in self.bad:
            raise ValueError(f"cannot square {spec.row}")
        return loaded**2

    def write(self, spec: Spec, computed: int) -> tuple[dict[str, Any], bytes]:
        if spec.row in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        with open(Path(self.folder, f"out-{spec.row}"), "a") as file:
            file.write(f"{computed}\n")
        return {"seconds": {"model": 0.5}}, str(computed).encode()


@pytest.fixture(scope="module")
def client(workers: Client) -> Client:
    return workers


def go(
    folder: Path, task: Square, count: int = 6, client: Client | None = None, **more: Any
) -> Any:
    with Ledger.open(folder / "p.run", "f", LAYOUT) as ledger:
        summary = run_blocks(
            task,
            (Spec(i) for i in range(count)),
            count,
            ledger=ledger,
            client=client,
            progress=False,
            **more,
        )
        ledger.refresh()
        return summary, dict(ledger.payloads())


@pytest.mark.parametrize("remote", [False, True])
def test_every_block_runs_once_and_its_payload_is_kept(
    tmp_path: Path, remote: bool, client: Client
) -> None:
    summary, payloads = go(tmp_path, Square(str(tmp_path)), 20, client if remote else None)
    assert payloads == {(i, 0): str(i**2).encode() for i in range(20)}
    assert summary.done == summary.total == 20
    assert summary.seconds["model"] == pytest.approx(10.0)
    assert all((tmp_path / f"out-{i}").read_text() == f"{i**2}\n" for i in range(20))


@pytest.mark.parametrize("remote", [False, True])
def test_a_failing_block_is_named_and_only_it_runs_again(
    tmp_path: Path, remote: bool, client: Client
) -> None:
    there = client if remote else None
    with pytest.raises(BlockError, match=r"1 of 6 blocks failed, 5 are.*block 2,0.*cannot square"):
        go(tmp_path, Square(str(tmp_path), bad=(2,)), client=there)
    summary, payloads = go(tmp_path, Square(str(tmp_path)), client=there)
    assert summary.resumed == 5
    assert len(payloads) == 6
    assert all((tmp_path / f"out-{i}").read_text() == f"{i**2}\n" for i in range(6))


@pytest.mark.parametrize("remote", [False, True])
def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    tmp_path: Path, remote: bool, client: Client
) -> None:
    with pytest.raises(OutputError, match=r"block 4,0.*No space left.*kept"):
        go(tmp_path, Square(str(tmp_path), full=(4,)), 50, client if remote else None)
    summary, _ = go(tmp_path, Square(str(tmp_path)), 50)
    assert summary.resumed >= 4


def test_a_source_that_fails_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geodl.runtime.run.RETRY_WAITS_S", (0.0, 0.0))
    summary, _ = go(tmp_path, Square(str(tmp_path), late=(1, 3)))
    assert summary.done == 6


def test_what_is_refused_is_asked_for_once_and_the_rest_is_done(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match=r"2 of 6 blocks failed, 4 are finished.*is for others"):
        go(tmp_path, Square(str(tmp_path), refused=(1, 3)))
    assert sorted((tmp_path / "asked").read_text().split()) == ["1", "3"]


def test_a_run_in_which_nothing_works_stops_early(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match="8 of 1000 blocks failed, 0 are finished"):
        go(tmp_path, Square(str(tmp_path), bad=tuple(range(1000))), 1000)


@pytest.mark.parametrize("remote", [False, True])
def test_a_cancelled_run_stops_and_goes_on(tmp_path: Path, remote: bool, client: Client) -> None:
    stop = threading.Event()

    def watch(done: int, total: int) -> None:
        if done >= 3:
            stop.set()

    there = client if remote else None
    with pytest.raises(RunCancelledError, match="of 200 blocks"):
        go(tmp_path, Square(str(tmp_path)), 200, there, cancel=stop, watch=watch)
    summary, _ = go(tmp_path, Square(str(tmp_path)), 200, there)
    assert 3 <= summary.resumed < 200
    assert summary.done == 200


def test_the_future_tells_progress_result_and_error() -> None:
    def work(future: Any) -> str:
        future.watch(1, 4)
        assert future.progress == 0.25
        return "done"

    future = start(work)
    assert future.result(timeout=120) == "done"
    assert future.progress == 1.0
    assert not future.cancel()

    def broken(_: Any) -> None:
        raise BlockError("block 1,1")

    assert isinstance(start(broken).exception(timeout=120), BlockError)


def test_task_names_on_the_dashboard_are_readable(tmp_path: Path, client: Client) -> None:
    go(tmp_path, Square(str(tmp_path)), 3, client, name="classify")

    def prefixes(dask_scheduler: Any) -> list[str]:
        return list(dask_scheduler.task_prefixes)

    assert any(name.startswith("geodl_classify_") for name in client.run_on_scheduler(prefixes))


def test_worker_threads_share_the_cores(client: Client) -> None:
    connect_module.prepare_workers(client)
    import os

    counts = client.run(os.environ.get, "OMP_NUM_THREADS")
    wanted = os.environ.get("OMP_NUM_THREADS") or str(max(1, connect_module.available_cores() // 2))
    assert set(counts.values()) == {wanted}


def test_connect_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'local'"):
        connect("locale")
    with pytest.raises(TypeError, match="'workers'"):
        connect("local", worker=2)
