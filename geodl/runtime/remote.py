"""Blocks on the workers of a Dask client, a bounded number at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any

from distributed import CancelledError, as_completed

from geodl.base.errors import BlockError, ClusterError, GeodlError
from geodl.runtime.connect import prepare_workers
from geodl.runtime.ledger import Ledger
from geodl.runtime.live import LiveRun
from geodl.runtime.packed import call, pack
from geodl.runtime.preflight import preflight
from geodl.runtime.run import BlockTask, Outcome, RunSummary, Spec, execute_packed

_LOOKAHEAD_PER_THREAD = 3


def run_on_client(
    task: BlockTask,
    specs: Iterator[Spec],
    ledger: Ledger,
    client: Any,
    name: str,
    stop: threading.Event,
    summary: RunSummary,
    pixels: int,
) -> Generator[Outcome, None, None]:
    """Yield what became of each block.

    Raises
    ------
    ClusterError
        A worker cannot do the blocks, or the scheduler is lost. Finished blocks are kept.
    """
    threads = prepare_workers(client)
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    preflight(client, task, ledger.folder)
    prefix = f"geodl_{name}_{ledger.fingerprint[:8]}"
    live = LiveRun(client, prefix, name, summary.total, summary.done, pixels, workers)
    pending: dict[Any, Spec] = {}
    # The client that was given need not be the active one.
    waiting = as_completed(with_results=False, loop=client.loop)
    attempt = os.urandom(3).hex()
    packed = pack(task)

    def submit(count: int) -> None:
        for spec in islice(specs, 0 if stop.is_set() else count):
            future = client.submit(
                execute_packed,
                packed,
                spec,
                str(ledger.folder),
                key=(f"{prefix}-{attempt}", *spec.key),
                retries=0,
                pure=False,
            )
            pending[future] = spec
            waiting.add(future)

    try:
        submit(max(1, threads) * _LOOKAHEAD_PER_THREAD)
        while pending:
            future = next(waiting)
            spec = pending.pop(future)
            outcome = _outcome(future, spec, client)
            submit(1)
            report, error = outcome
            if report is not None:
                live.finished(report)
            else:
                live.failed(spec.name, error)
            yield spec, report, error
            future.release()
    finally:
        live.end(stopped=bool(pending) or stop.is_set())
        if pending and client.status == "running":
            client.cancel(list(pending))


def each_in_order(
    client: Any, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """Results of a function of ours on workers, in the order of the calls, a few of them ahead.

    Parameters
    ----------
    calls
        The arguments of each call, small and picklable.
    """
    ahead = max(1, prepare_workers(client)) * _LOOKAHEAD_PER_THREAD
    packed, left, pending = pack(function), iter(calls), deque[Any]()

    def submit(count: int) -> None:
        for arguments in islice(left, count):
            pending.append(client.submit(call, packed, *arguments, pure=False))

    try:
        submit(ahead)
        while pending:
            future = pending.popleft()
            yield future.result()
            submit(1)
    finally:
        if pending and client.status == "running":
            client.cancel(list(pending))


def _outcome(
    future: Any, spec: Spec, client: Any
) -> tuple[dict[str, Any] | None, BaseException | None]:
    """The block's report or its error.

    A result may die with its worker before it is fetched; the cluster then does the block again,
    which this waits for.
    """
    try:
        return future.result(), None
    except CancelledError:
        if client.status == "running":
            return None, BlockError(f"{spec.name} was cancelled by the cluster")
        raise ClusterError(
            "the scheduler of the cluster is lost; finished blocks are kept. Start a cluster "
            "again and repeat the call to go on."
        ) from None
    except (GeodlError, OSError) as error:
        return None, error
    except Exception as error:  # noqa: BLE001 - the block boundary: named and kept
        return None, BlockError(f"{spec.name}: {type(error).__name__}: {error}")
