"""Workers on this machine, as processes of their own."""

from __future__ import annotations

import warnings
from typing import Any

from distributed.deploy.subprocess import SubprocessCluster
from distributed.system import MEMORY_LIMIT

from geodl.runtime.clusters.spec import Launcher, Spec, Started
from geodl.runtime.cores import available_cores

START_S = 120.0
LATE = "the workers of this machine did not start; their messages stand above"


def start_processes(spec: Spec, worker_class: str, count: int, **options: Any) -> Any:
    """A scheduler and ``count`` processes of ``worker_class``.

    They are started by name rather than forked, which works from scripts without a main guard and
    from notebooks.
    """
    with warnings.catch_warnings():
        # Port 8787 is often taken; the dashboard then moves and the client shows where.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        return SubprocessCluster(
            n_workers=count,
            threads_per_worker=spec.threads_per_worker,
            # None means no dashboard, though the annotation knows only text.
            dashboard_address=spec.dashboard_address,  # type: ignore[arg-type]
            worker_class=worker_class,
            worker_kwargs=options,
        )


def _start(spec: Spec) -> Started:
    count = spec.workers or max(1, available_cores() // spec.threads_per_worker)
    limit = spec.memory_limit or int(MEMORY_LIMIT) // count
    cluster = start_processes(spec, "distributed.Nanny", count, memory_limit=limit)
    return Started(cluster, count, START_S, LATE)


LAUNCHER = Launcher((), _start)
