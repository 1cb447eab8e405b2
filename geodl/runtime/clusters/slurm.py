"""Workers as SLURM jobs, one job each, through dask-jobqueue; the scheduler lives here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_float, as_int
from geodl.base.packages import require
from geodl.base.signals import interrupts_kept
from geodl.runtime.clusters.spec import Launcher, Spec, Started

_OPTIONS = (
    "queue",
    "account",
    "walltime",
    "gpus",
    "interface",
    "directives",
    "prologue",
    "local_directory",
    "log_directory",
    "python",
    "queue_timeout_s",
)
# As sbatch takes it: minutes, [hours:]minutes:seconds, or days-hours[:minutes[:seconds]].
_WALLTIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")
_QUEUE_TIMEOUT_S = 3600.0
_ANSWER_S = 60.0


def _start(spec: Spec) -> Started:
    # Importing dask-jobqueue 0.9 makes Ctrl-C end the process, whatever it did before.
    with interrupts_kept():
        jobqueue = require("dask_jobqueue", "slurm")
    arguments = job_arguments(spec)
    if shutil.which("sbatch") is None:
        raise OptionError(
            "connect('slurm'): there is no sbatch here; run this on a login or compute node of "
            "the SLURM cluster, or give the address or scheduler file of a running Dask cluster"
        )
    wait_s = as_float(
        spec.more.get("queue_timeout_s", _QUEUE_TIMEOUT_S), "queue_timeout_s", minimum=1
    )
    of_jobs = {name: value for name, value in arguments.items() if name != "scheduler_options"}
    _check_job(jobqueue.slurm.SLURMJob("tcp://the-scheduler:8786", "a-worker", **of_jobs))
    cluster = jobqueue.SLURMCluster(**arguments)
    cluster.scale(jobs=spec.workers)
    late = (
        f"SLURM started no worker within {wait_s:.0f} s; look at `squeue --me`, choose another "
        f"queue or a shorter walltime, or wait longer with queue_timeout_s"
    )
    # Workers that start later join the run; one is enough to begin.
    return Started(cluster, 1, wait_s, late)


def _check_job(job: Any) -> None:
    """Ask SLURM whether it would take a job; dask-jobqueue only logs that it does not, and waits.

    Raises
    ------
    OptionError
        With what sbatch says.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(job.job_script())
        file.flush()
        try:
            asked = subprocess.run(
                ["sbatch", "--test-only", file.name],
                capture_output=True,
                text=True,
                timeout=_ANSWER_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OptionError(
                f"connect('slurm'): sbatch gave no answer within {_ANSWER_S:.0f} s; see `sinfo`"
            ) from None
    if asked.returncode:
        raise OptionError(
            f"connect('slurm'): sbatch refuses the job ({' '.join(asked.stderr.split())}); see "
            f"`sinfo`, and the queue, account, walltime, memory_limit and gpus that you ask for"
        )


def job_arguments(spec: Spec) -> dict[str, Any]:
    """What dask-jobqueue's ``SLURMCluster`` is given.

    Raises
    ------
    OptionError
        Workers or memory are missing, or an option has a wrong value.
    """
    if spec.workers is None or spec.memory_limit is None:
        raise OptionError(
            "connect('slurm') needs workers (jobs, one worker each) and memory_limit (of each, "
            "for example '16GB')"
        )
    more = spec.more
    directives = _texts(more, "directives")
    gpus = as_int(more.get("gpus", 0), "connect('slurm'): gpus", minimum=0)
    if gpus > 1:
        raise OptionError(f"connect('slurm'): gpus={gpus}; a worker uses one, ask for more workers")
    if gpus:
        directives.append("--gres=gpu:1")
    arguments = {
        "cores": spec.threads_per_worker or 1,
        "processes": 1,
        "memory": str(spec.memory_limit),
        "walltime": _walltime(more.get("walltime")),
        "job_extra_directives": directives,
        "job_script_prologue": _texts(more, "prologue"),
        "scheduler_options": {"dashboard_address": spec.dashboard_address},
    }
    for name in ("queue", "account", "interface", "local_directory", "log_directory", "python"):
        value = more.get(name)
        if value is not None and not isinstance(value, str):
            raise OptionError(f"connect('slurm'): {name}={value!r} is no text")
        arguments[name] = value
    # What is None is left to the user's own jobqueue.yaml.
    return {name: value for name, value in arguments.items() if value not in (None, [])}


def _walltime(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not _WALLTIME.fullmatch(str(value)):
        raise OptionError(
            f"connect('slurm'): walltime={value!r} is no time such as '02:00:00' or '1-12'; in "
            f"YAML put it in quotes"
        )
    return str(value)


def _texts(more: Mapping[str, Any], name: str) -> list[str]:
    value = more.get(name) or []
    if isinstance(value, str) or not all(isinstance(line, str) for line in value):
        raise OptionError(f"connect('slurm'): {name}={value!r} is no list of texts")
    return list(value)


LAUNCHER = Launcher(_OPTIONS, _start)
