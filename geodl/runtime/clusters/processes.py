"""A scheduler and workers on this machine, each a process of its own."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import dask
from distributed.config import defaults as DASK_DEFAULTS
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import Subprocess, SubprocessWorker

from geodl.base.errors import ClusterError
from geodl.runtime.clusters import end_with_caller
from geodl.runtime.clusters.spec import Spec

START_S = 120.0
_HOST = "127.0.0.1"
# One block computes while another is read or written.
_THREADS = 2
# By itself Dask looks after each process 50 to 100 times a second, for its plots; where all cores
# compute, that takes 6 % of them.
_INTERVALS = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.memory.monitor-interval": "250ms",
    "distributed.admin.tick.interval": "250ms",
    "distributed.admin.system-monitor.interval": "2s",
}


def start_processes(spec: Spec, worker_class: str, count: int, **options: Any) -> SpecCluster:
    """A scheduler and ``count`` processes of ``worker_class``.

    They are started by name rather than forked, which works from scripts without a main guard and
    from notebooks.

    Raises
    ------
    ClusterError
        The scheduler does not start.
    """
    scheduler = {
        "host": _HOST,
        "port": 0,
        "dashboard": spec.dashboard_address is not None,
        # Without a dashboard the scheduler still answers HTTP, somewhere.
        "dashboard_address": spec.dashboard_address or ":0",
    }
    worker = {
        "host": _HOST,
        "nthreads": spec.threads_per_worker or _THREADS,
        "silence_logs": "WARNING",
        **options,
    }
    one = {
        "cls": WorkerProcess,
        "options": {"worker_class": worker_class, "worker_kwargs": worker},
    }
    with warnings.catch_warnings():
        # Port 8787 is often taken; the dashboard then moves and the client shows where.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        try:
            return SpecCluster(
                workers=dict.fromkeys(range(count), one),
                scheduler={"cls": SchedulerProcess, "options": {"options": scheduler}},
                worker=one,
                name="geodl",
                silence_logs="WARNING",
            )
        except RuntimeError as error:
            raise ClusterError(
                f"connect: {error}. Its messages stand above; see that this machine has memory "
                f"and file handles left, and call again."
            ) from error


class SchedulerProcess(Subprocess):
    """A scheduler whose messages reach the caller's terminal, and which ends with the caller.

    That of ``distributed`` writes them into a pipe that nobody reads: full after a day of workers
    that come and go, it stops the scheduler, and a scheduler that is late stops its caller.
    """

    def __init__(self, options: dict[str, Any], timeout_s: float = START_S) -> None:
        self.options = options
        self.timeout_s = timeout_s
        self.address: str | None = None
        super().__init__()

    async def _start(self) -> None:
        with tempfile.TemporaryDirectory(prefix="geodl-") as folder:
            file = Path(folder, "scheduler.json")
            spec = {
                "cls": "distributed.Scheduler",
                "opts": {
                    **self.options,
                    "scheduler_file": str(file),
                    "preload": [end_with_caller.__name__],
                },
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "dask", "spec", "--spec", json.dumps(spec)),
                stdin=asyncio.subprocess.PIPE,
                env={"DASK_LOGGING__DISTRIBUTED": "warning", **process_environment()},
            )
            self.process = process
            try:
                self.address = await asyncio.wait_for(_answer(process, file), self.timeout_s)
            except TimeoutError:
                await self.close()
                raise RuntimeError(
                    f"the scheduler did not start within {self.timeout_s:g} s"
                ) from None


class WorkerProcess(SubprocessWorker):  # type: ignore[misc]
    """A worker that looks after itself less often than that of ``distributed``."""

    async def _start(self) -> None:
        spec = {"cls": self.worker_class, "opts": self.worker_kwargs}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", json.dumps(spec)),
            env=process_environment(),
        )


def process_environment() -> dict[str, str]:
    """Of this process, and its settings of Dask with our intervals in place of Dask's own."""
    settings: dict[str, Any] = {"distributed": copy.deepcopy(dask.config.get("distributed"))}
    for name, interval in _INTERVALS.items():
        if dask.config.get(name) == dask.config.get(name, config=DASK_DEFAULTS):
            dask.config.set({name: interval}, config=settings)
    return {**os.environ, "DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(settings)}


async def _answer(process: asyncio.subprocess.Process, file: Path) -> str:
    """The address of a scheduler, once it has written it down."""
    while process.returncode is None:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError):
            # Not there yet, or half written.
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the scheduler ended with code {process.returncode}")
