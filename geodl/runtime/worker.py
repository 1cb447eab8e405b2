"""What every Dask worker needs before its first block."""

from __future__ import annotations

import os
import sys
from typing import Any

from distributed import WorkerPlugin

from geodl.runtime.cores import available_cores
from geodl.runtime.memory import keep_freed_memory


class GeodlPlugin(WorkerPlugin):  # type: ignore[misc]
    """Sets the number of torch threads, so that processes x threads equal the host's cores, and
    lets memory that a block has used serve the next one.

    Nannies set OMP_NUM_THREADS to 1, which leaves cores idle where there are fewer workers than
    cores.

    Parameters
    ----------
    threads
        The user's own ``OMP_NUM_THREADS``; None divides a host's cores among its workers.
    workers_by_host
        Workers on each host; each computes one block at a time, on all its threads of torch.
    """

    name = "geodl"

    def __init__(self, threads: str | None, workers_by_host: dict[str, int]) -> None:
        self.threads = threads
        self.workers_by_host = workers_by_host

    def setup(self, worker: Any) -> None:
        keep_freed_memory()
        if self.threads is not None and self.threads.isdigit() and int(self.threads) > 0:
            count = int(self.threads)
        else:
            sharing = self.workers_by_host.get(worker.ip, 1)
            count = available_cores() // max(1, sharing)
            # Without task affinity a SLURM job sees the whole node, though part of it is others'.
            given = os.environ.get("SLURM_CPUS_PER_TASK", "")
            if given.isdigit():
                count = min(count, int(given))
            count = max(1, count)
        # Read by torch when it is first imported; where it is there already, it is told.
        os.environ["OMP_NUM_THREADS"] = str(count)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(count)
