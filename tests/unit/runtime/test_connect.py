"""One call connects to any cluster, and refuses by name what it does not take."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, SpecCluster

from geodl.base.errors import (
    ClusterError,
    FormatError,
    MissingPackageError,
    NotSupportedError,
    OptionError,
    SourceError,
    UnknownOptionError,
)
from geodl.base.signals import interrupts_kept
from geodl.runtime.clusters import LAUNCHERS, cuda, slurm
from geodl.runtime.clusters.processes import SchedulerProcess, process_environment, start_processes
from geodl.runtime.clusters.recipe import read_recipe
from geodl.runtime.clusters.spec import Launcher, Spec, Started
from geodl.runtime.connect import active_client, chosen_client, connect


@pytest.fixture(scope="module")
def running() -> Iterator[SpecCluster]:
    with processes(1) as cluster:
        yield cluster


def processes(count: int) -> SpecCluster:
    return start_processes(Spec(dashboard_address=None), "distributed.Nanny", count)


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def spec(kind: str, **options: Any) -> Spec:
    return Spec.of(kind, options, LAUNCHERS[kind].options)


def test_a_scheduler_file_and_a_recipe_lead_to_the_same_cluster(
    running: SpecCluster, tmp_path: Path
) -> None:
    address = running.scheduler_address
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": address}))
    there = recipe(tmp_path, f"cluster: {address}\noptions:\n  timeout_s: 60\n")
    for target in (address, str(file), there):
        with connect(target) as client:
            assert client.submit(sum, (1, 2)).result() == 3
            assert client.scheduler_info()["address"] == address
    with Client(running) as client:
        assert client.submit(sum, (2, 3)).result() == 5, "a cluster that was joined stays"


def test_nothing_at_an_address_is_said_with_the_address() -> None:
    with socket.socket() as silent:
        # Taken, so that nobody else listens there either.
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SourceError, match=f"{address}.*no Dask scheduler answers"):
            connect(address, timeout_s=0.3)


def test_a_file_that_is_no_scheduler_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text('{"workers": {}}')
    with pytest.raises(FormatError, match=r"scheduler\.json is no scheduler file"):
        connect(str(file))
    with pytest.raises(NotSupportedError, match=r"no such cluster or file.*Did you mean 'slurm'"):
        connect("slrm")


@pytest.mark.parametrize(
    ("target", "options", "name"),
    [
        ("local", {"worker": 2}, "worker"),
        ("cuda", {"gpus": 2}, "gpus"),
        ("slurm", {"partition": "x"}, "partition"),
        ("tcp://127.0.0.1:9", {"workers": 2}, "workers"),
    ],
)
def test_unknown_options_are_refused_by_name(
    target: str, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(UnknownOptionError, match=f"no option '{name}'"):
        connect(target, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"threads_per_worker": 0},
        {"memory_limit": "much"},
        {"memory_limit": True},
        # Gigabytes were meant; Dask would start such a worker for ever.
        {"memory_limit": 4},
    ],
)
def test_sizes_are_checked_before_anything_starts(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        connect("local", **options)


def test_an_absent_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, module in (("cuda", "dask_cuda"), ("slurm", "dask_jobqueue")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingPackageError, match=rf"geodl\[{kind}\]"):
            connect(kind, **({"workers": 1, "memory_limit": "1GB"} if kind == "slurm" else {}))


def test_one_cuda_worker_is_started_for_each_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def start(given: Spec, worker_class: str, count: int, **options: Any) -> str:
        asked.update(options, worker_class=worker_class, count=count)
        return "cluster"

    monkeypatch.setitem(sys.modules, "dask_cuda", ModuleType("dask_cuda"))
    monkeypatch.setattr(cuda, "start_processes", start)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,GPU-1")
    started = cuda.LAUNCHER.start(spec("cuda"))
    assert (started.cluster, started.expected) == ("cluster", 3)
    assert asked == {"worker_class": "dask_cuda.CUDAWorker", "count": 1, "memory_limit": "auto"}
    with pytest.raises(OptionError, match="3 GPUs are visible"):
        cuda.LAUNCHER.start(spec("cuda", workers=2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(OptionError, match="no GPU is visible"):
        cuda.LAUNCHER.start(spec("cuda"))


def test_slurm_jobs_ask_for_what_was_asked_for() -> None:
    with interrupts_kept():
        jobqueue = pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    arguments = slurm.job_arguments(
        spec(
            "slurm",
            workers=3,
            threads_per_worker=2,
            memory_limit="3GiB",
            walltime="01:30:00",
            queue="gpu",
            account="maps",
            gpus=1,
            directives=["--exclusive"],
            prologue=["module load proj"],
        )
    )
    arguments.pop("scheduler_options")
    script = jobqueue.SLURMCluster.job_cls("tcp://10.0.0.1:8786", "w", **arguments).job_script()
    for line in (
        "-p gpu",
        "-A maps",
        "--cpus-per-task=2",
        "--mem=3G",
        "-t 01:30:00",
        "--exclusive",
        "--gres=gpu:1",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load proj\n" in script
    assert "--nthreads 2" in script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": None}, "needs workers"),
        ({"memory_limit": "auto"}, "needs workers"),
        ({"gpus": 2}, "a worker uses one"),
        ({"walltime": 5400.5}, "walltime=5400.5 is no time"),
        ({"directives": "--exclusive"}, "no list of texts"),
        ({"queue": 3}, "queue=3 is no text"),
    ],
)
def test_slurm_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        slurm.job_arguments(spec("slurm", **{"workers": 1, "memory_limit": "1GB", **options}))


def test_a_job_that_slurm_refuses_ends_the_call_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        '#!/bin/sh\ngrep -q "SBATCH --mem" "$2" && echo "no partition $1" >&2; exit 1\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(OptionError, match=r"refuses the job \(no partition --test-only"):
        connect("slurm", workers=1, memory_limit="1GB", dashboard_address=None)


def test_workers_that_never_come_end_the_wait_and_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[SpecCluster] = []

    def start(given: Spec) -> Started:
        made.append(processes(0))
        return Started(made[0], 1, 0.2, "the queue is full")

    monkeypatch.setattr("geodl.runtime.connect.LAUNCHERS", {"slow": Launcher((), start)})
    with pytest.raises(OptionError, match="the queue is full"):
        connect("slow")
    assert made[0].status.name == "closed"


def test_keywords_beside_a_recipe_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Spec] = []

    def start(given: Spec) -> Started:
        seen.append(given)
        raise OptionError("enough")

    monkeypatch.setattr("geodl.runtime.connect.LAUNCHERS", {"local": Launcher((), start)})
    path = recipe(tmp_path, "cluster: local\noptions: {workers: 2, memory_limit: 1GB}\n")
    with pytest.raises(OptionError, match="enough"):
        connect(path, workers=3)
    assert (seen[0].workers, seen[0].memory_limit) == (3, 10**9)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("cluster: local\nworkers: 2\n", UnknownOptionError, "'workers'"),
        ("workers: 2\n", FormatError, "is no recipe"),
        ("cluster: [local\n", FormatError, "no readable YAML"),
        ("cluster: !!python/name:os.system\n", FormatError, "no readable YAML"),
        ("cluster: local\noptions: [1]\n", FormatError, "no mapping"),
        ("cluster: other.yaml\n", FormatError, "another recipe"),
        ("cluster: local\n" + "# long\n" * 20_000, FormatError, "at most"),
    ],
)
def test_recipes_are_checked(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_recipe(recipe(tmp_path, text))


def test_a_scheduler_that_does_not_start_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SchedulerProcess.__init__, "__defaults__", (0.0,))
    with pytest.raises(ClusterError, match="did not start within 0 s"):
        processes(1)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ClusterError, match="ended with code 1"):
        processes(1)


def test_local_workers_take_their_share(tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        "cluster: local\noptions: {workers: 1, memory_limit: 500MB, dashboard_address: null}\n",
    )
    with connect(path) as client:
        assert isinstance(client, Client)
        facts = client.scheduler_info()["workers"].values()
        assert [worker["memory_limit"] for worker in facts] == [500 * 10**6]


ASKED = """
from distributed.worker import Worker
import dask
import psutil
names = ("distributed.worker.profile.interval", "distributed.admin.tick.interval")
print(*(dask.config.get(name) for name in names))
"""


def test_processes_look_after_themselves_seldom_unless_the_user_says_otherwise() -> None:
    def answer() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", ASKED], env=process_environment(), check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split()

    assert answer() == ["100ms", "250ms"]
    with dask.config.set({"distributed.admin.tick.interval": "30ms"}):
        assert answer() == ["100ms", "30ms"]


def test_a_client_that_can_do_nothing_is_refused(running: SpecCluster) -> None:
    with pytest.raises(OptionError, match="tcp://head:8786' is no Dask client"):
        chosen_client("tcp://head:8786")  # type: ignore[arg-type]
    with Client(running) as client:
        assert chosen_client(None) is chosen_client(client) is client
    with pytest.raises(OptionError, match="is closed; connect again"):
        chosen_client(client)
    assert active_client() is None


async def _ask_asynchronously(address: str) -> None:
    async with Client(address, asynchronous=True) as client:
        assert active_client() is None
        with pytest.raises(OptionError, match="asynchronous=False"):
            chosen_client(client)


def test_an_asynchronous_client_is_refused(running: SpecCluster) -> None:
    asyncio.run(_ask_asynchronously(running.scheduler_address))


CALLER = """
import os, sys
from geodl.runtime.connect import connect
client = connect("local", workers=1, dashboard_address=None)
print(client.run_on_scheduler(os.getpid), *client.run(os.getpid).values(), flush=True)
sys.stdin.read()
"""


def test_a_killed_caller_leaves_no_process_behind() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        scheduler, worker = map(int, caller.stdout.readline().split())
        started = psutil.Process(caller.pid).children(recursive=True)
        assert {scheduler, worker} < {process.pid for process in started}
        caller.kill()
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left
