"""Connecting to a Dask cluster, and readying its workers."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from geodl.base.errors import NotSupportedError, OptionError
from geodl.base.options import check_known, nearest

if TYPE_CHECKING:
    from distributed import Client

_LOCAL_OPTIONS = ("workers", "threads_per_worker", "memory_limit", "dashboard_address")
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "inproc://")


def connect(target: str = "local", **options: Any) -> Client:
    """Connect to a cluster, or start one on this machine.

    Parameters
    ----------
    target
        ``"local"`` starts workers as processes of their own, which works from scripts without a
        main guard and from notebooks. An address such as ``tcp://host:8786``, or the path of a
        scheduler file, connects to a running cluster.
    options
        For ``"local"``: ``workers`` (default: one a core), ``threads_per_worker`` (1),
        ``memory_limit`` (per worker, default: the machine's share), ``dashboard_address`` (":0").

    Returns
    -------
    distributed.Client
        Closing it stops a cluster that was started here.

    Raises
    ------
    UnknownOptionError, OptionError
        An option that the target does not take.
    NotSupportedError
        A kind of cluster that is not offered.
    """
    from distributed import Client

    if target == "local":
        check_known(options, _LOCAL_OPTIONS, "connect('local')")
        return _connect_local(**options)
    if target.startswith(_SCHEMES):
        check_known(options, (), f"connect({target!r})")
        return Client(target)
    if os.path.isfile(target):
        check_known(options, (), f"connect({target!r})")
        return Client(scheduler_file=target)
    known = ("local",)
    raise NotSupportedError(
        f"connect({target!r}): no such cluster or file.{nearest(target, known)} Give 'local', an "
        f"address such as 'tcp://host:8786', or the path of a scheduler file that exists."
    )


def _connect_local(
    workers: int | None = None,
    threads_per_worker: int = 1,
    memory_limit: str | int = "auto",
    dashboard_address: str | None = ":0",
) -> Client:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    cores = available_cores()
    count = max(1, cores // threads_per_worker) if workers is None else workers
    if count < 1 or threads_per_worker < 1:
        raise OptionError(
            f"workers={count} and threads_per_worker={threads_per_worker} must both be at least 1"
        )
    with warnings.catch_warnings():
        # Port 8787 is often taken; the dashboard then moves and the client shows where.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        cluster = SubprocessCluster(
            n_workers=count,
            threads_per_worker=threads_per_worker,
            # None means no dashboard, though the annotation knows only text.
            dashboard_address=dashboard_address,  # type: ignore[arg-type]
            worker_kwargs={
                "memory_limit": memory_limit if memory_limit != "auto" else _share(count)
            },
        )
    client = Client(cluster)
    _close_cluster_with(client, cluster)
    client.wait_for_workers(count)
    return client


def _share(workers: int) -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT) // workers


def _close_cluster_with(client: Client, cluster: Any) -> None:
    """Stop the cluster when the client is closed, so that no worker outlives a script."""
    close = client.close

    def close_both(*args: Any, **kwargs: Any) -> Any:
        done = close(*args, **kwargs)
        cluster.close()
        return done

    client.close = close_both  # type: ignore[method-assign]


def available_cores() -> int:
    """Cores that this process may use: its affinity, where the system knows one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def active_client() -> Client | None:
    """The Dask client of this context, or None; Dask is not imported for the question."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def prepare_workers(client: Client) -> int:
    """Ready all workers, those of later too; return the number of Dask threads.

    Raises
    ------
    OptionError
        No worker is there within a minute.
    """
    from geodl.runtime.worker import GeodlPlugin

    if not client.scheduler_info(n_workers=-1)["workers"]:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise OptionError(f"the cluster {client!r} has no workers; start some first") from None
    by_host: dict[str, int] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        by_host[worker["host"]] = by_host.get(worker["host"], 0) + worker["nthreads"]
    client.register_plugin(GeodlPlugin(os.environ.get("OMP_NUM_THREADS"), by_host))
    return sum(by_host.values())
