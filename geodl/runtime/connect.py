"""Connecting to a Dask cluster, and readying its workers."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodl.base.errors import FormatError, NotSupportedError, OptionError, SourceError
from geodl.base.files import read_json
from geodl.base.options import as_float, check_known, nearest
from geodl.runtime.clusters import LAUNCHERS
from geodl.runtime.cores import available_cores

if TYPE_CHECKING:
    from distributed import Client

    from geodl.runtime.clusters.spec import Started

__all__ = ["active_client", "available_cores", "chosen_client", "connect", "prepare_workers"]

_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "inproc://")
_TIMEOUT_S = 30.0
_FIRST_WORKER_S = 60.0


def connect(target: str | os.PathLike[str] = "local", **options: Any) -> Client:
    """Connect to a cluster, or start one.

    Parameters
    ----------
    target
        ``"local"`` starts workers on this machine as processes of their own, which works from
        scripts without a main guard and from notebooks; ``"cuda"`` starts one for each GPU of this
        machine; ``"slurm"`` submits one SLURM job for each. An address such as
        ``tcp://host:8786``, or the path of a scheduler file, connects to a running cluster. The
        path of a YAML recipe stands for what it holds (``cluster:`` and ``options:``).
    options
        For all that are started here: ``workers`` (local: one a core; cuda: one a GPU; slurm:
        must be given), ``threads_per_worker`` (blocks in hand: one computes, the others read and
        write; local and cuda: 2, slurm: 1), ``memory_limit`` (of each worker; default: its share
        of the machine; slurm: must be given), ``dashboard_address`` (":0"). For slurm also
        ``queue``, ``account``, ``walltime``, ``gpus`` (0 or 1 each), ``interface``,
        ``directives`` and ``prologue`` (lists of lines), ``local_directory``, ``log_directory``,
        ``python``, and ``queue_timeout_s`` (3600) to wait for the first worker. For an address or
        file ``timeout_s`` (30). Beside a recipe they override its own.

    Returns
    -------
    distributed.Client
        Closing it stops a cluster that was started here.

    Raises
    ------
    UnknownOptionError, OptionError
        An option that the target does not take, or a cluster without workers.
    SourceError
        Nothing answers at the address.
    FormatError
        A recipe or scheduler file that cannot be read.
    MissingPackageError
        The extra ``cuda`` or ``slurm`` is not installed.
    NotSupportedError
        A kind of cluster that is not offered.
    """
    from geodl.runtime.clusters.recipe import SUFFIXES, read_recipe

    text = os.fspath(target)
    if text.lower().endswith(SUFFIXES) and os.path.isfile(text):
        text, known = read_recipe(Path(text))
        options = {**known, **options}
    if text in LAUNCHERS:
        return _launch(text, options)
    if text.startswith(_SCHEMES):
        return _join(text, options, address=text)
    if os.path.isfile(text):
        return _join(text, options, scheduler_file=_scheduler_file(text))
    raise NotSupportedError(
        f"connect({text!r}): no such cluster or file.{nearest(text, LAUNCHERS)} Give "
        f"{', '.join(map(repr, LAUNCHERS))}, an address such as 'tcp://host:8786', or the path of "
        f"a scheduler file or YAML recipe that exists."
    )


def _launch(kind: str, options: Mapping[str, Any]) -> Client:
    from geodl.runtime.clusters.client import ClusterClient
    from geodl.runtime.clusters.spec import Spec

    launcher = LAUNCHERS[kind]
    started: Started = launcher.start(Spec.of(kind, options, launcher.options))
    try:
        client = ClusterClient(started.cluster)
    except BaseException:
        started.cluster.close()
        raise
    try:
        client.wait_for_workers(started.expected, timeout=started.within_s)
    except TimeoutError:
        client.close()
        raise OptionError(f"connect({kind!r}): {started.late}") from None
    except BaseException:
        client.close()
        raise
    return client


def _join(target: str, options: Mapping[str, Any], **where: Any) -> Client:
    from distributed import Client

    check_known(options, ("timeout_s",), f"connect({target!r})")
    timeout_s = as_float(options.get("timeout_s", _TIMEOUT_S), "timeout_s", minimum=0.1)
    try:
        return Client(**where, timeout=timeout_s)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"connect({target!r}): no Dask scheduler answers there ({error}). See that it runs, "
            f"that this machine may reach its port, and that both have the same version of dask."
        ) from error


def _scheduler_file(path: str) -> str:
    facts = read_json(path)
    if not isinstance(facts, dict) or not isinstance(facts.get("address"), str):
        raise FormatError(
            f"{path} is no scheduler file of Dask (it names no address); a recipe ends in .yaml"
        )
    return path


def active_client() -> Client | None:
    """The Dask client of this context, or None; Dask is not imported for the question."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        return None
    # A client whose cluster has gone stays the current one until it is closed.
    return client if client.status == "running" and not client.asynchronous else None


def chosen_client(client: Client | None) -> Client | None:
    """The client that a tool was given, or else the active one, or None.

    Raises
    ------
    OptionError
        Something else was given, or a client that is closed or asynchronous.
    """
    if client is None:
        return active_client()
    if not hasattr(client, "scheduler_info"):
        raise OptionError(
            f"client={client!r} is no Dask client; give what geodl.connect(...) returns."
        )
    if client.asynchronous:
        raise OptionError("client is asynchronous; give one that was made with asynchronous=False.")
    if client.status != "running":
        raise OptionError(
            f"client={client!r} is {client.status}; connect again with geodl.connect(...)."
        )
    return client


def prepare_workers(client: Client) -> int:
    """Ready all workers, those of later too; return the number of their threads.

    Raises
    ------
    OptionError
        No worker is there within a minute.
    """
    from geodl.runtime.worker import GeodlPlugin

    if not client.scheduler_info(n_workers=-1)["workers"]:
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
        except TimeoutError:
            raise OptionError(f"the cluster {client!r} has no workers; start some first") from None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    by_host = Counter(worker["host"] for worker in workers)
    client.register_plugin(GeodlPlugin(os.environ.get("OMP_NUM_THREADS"), dict(by_host)))
    return sum(worker["nthreads"] for worker in workers)
