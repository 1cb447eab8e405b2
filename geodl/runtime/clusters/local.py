"""Workers on this machine, as processes of their own."""

from __future__ import annotations

from distributed.system import MEMORY_LIMIT

from geodl.runtime.clusters.processes import START_S, start_processes
from geodl.runtime.clusters.spec import Launcher, Spec, Started
from geodl.runtime.cores import available_cores

LATE = "the workers of this machine did not start; their messages stand above"


def _start(spec: Spec) -> Started:
    count = spec.workers or available_cores()
    limit = spec.memory_limit or int(MEMORY_LIMIT) // count
    cluster = start_processes(spec, "distributed.Nanny", count, memory_limit=limit)
    return Started(cluster, count, START_S, LATE)


LAUNCHER = Launcher((), _start)
