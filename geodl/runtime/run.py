"""Running the blocks of a plan: here, or on the workers of a Dask client. The same code in both."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from geodl.base.errors import BlockError, OutputError, RunCancelledError, SourceError
from geodl.base.places import place
from geodl.runtime.ledger import Ledger, record_block
from geodl.runtime.memory import keep_freed_memory, peak_bytes
from geodl.runtime.packed import unpack
from geodl.runtime.progress import Progress

logger = logging.getLogger(__name__)

# Networks use all cores of their process, and a GPU holds one batch.
_computing = threading.Lock()

# Transient read failures (a network share, an object store) are tried again after these waits.
RETRY_WAITS_S = (0.5, 2.0)
# What a source raises that another try would not mend.
LASTING_ERRORS = (FileNotFoundError, PermissionError)
# Failing blocks do not stop the others, unless so many fail before the first one succeeds.
_HOPELESS = 8
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class Spec(Protocol):
    """A unit of work: small, picklable, with a key that is unique in the run."""

    @property
    def key(self) -> tuple[int, ...]: ...

    @property
    def name(self) -> str: ...


class BlockTask(Protocol):
    """What to do with a block, in three steps so that reading and writing overlap computing.

    Here one thread reads ahead and one writes behind; a Dask worker's threads share a lock for
    computing, so that of two threads one reads or writes while the other computes.

    Picklable and small: it names sources and models, and holds neither pixels nor weights. Each
    step may run twice for the same block; writing must give the same bytes again.
    """

    def read(self, spec: Any) -> Any:
        """The block's input."""
        ...

    def compute(self, spec: Any, loaded: Any) -> Any:
        """The block's result; called from one thread of a process at a time."""
        ...

    def write(self, spec: Any, computed: Any) -> tuple[dict[str, Any], bytes]:
        """Write it; return a small JSON report and a payload for the ledger (or ``b""``)."""
        ...


@dataclass
class RunSummary:
    """What a run did: counts of blocks, seconds by stage, and the failures by block name.

    ``seconds`` are of all blocks, those of earlier calls too, and ``seconds_now`` of this call's.
    ``blocks_s`` is the time that the blocks took together, ``wall_s`` that of the whole run.
    ``peak_bytes`` is the most memory that a process of this call has held.
    """

    total: int
    done: int = 0
    resumed: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seconds_now: dict[str, float] = field(default_factory=dict)
    blocks_s: float = 0.0
    wall_s: float = 0.0
    peak_bytes: int = 0

    def count(self, report: dict[str, Any], *, resumed: bool = False) -> None:
        self.done += 1
        self.skipped += bool(report.get("skipped"))
        for stage, value in report.get("seconds", {}).items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value
            if not resumed:
                self.seconds_now[stage] = self.seconds_now.get(stage, 0.0) + value
        if not resumed:
            self.peak_bytes = max(self.peak_bytes, int(report.get("peak_bytes", 0)))

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "done": self.done,
            "failed": len(self.failures),
            "skipped": self.skipped,
            "resumed": self.resumed,
        }


def run_blocks(
    task: BlockTask,
    specs: Iterable[Spec],
    total: int,
    *,
    ledger: Ledger,
    client: Any = None,
    progress: bool = True,
    name: str = "infer",
    cancel: threading.Event | None = None,
    watch: Callable[[int, int], None] | None = None,
    pixels: int = 0,
) -> RunSummary:
    """Run all blocks that the ledger does not hold yet.

    Parameters
    ----------
    specs, total
        The blocks, as an iterable that is read as it is needed, and their number.
    client
        A ``distributed.Client``; None runs here, one block at a time, with the next one read and
        the last one written beside the model.
    name
        Stage; tasks are named ``geodl_<name>_<run>`` on the Dask dashboard.
    cancel
        Set it to stop after the blocks in flight.
    watch
        Called with (done, total) after each block.
    pixels
        Of all blocks together, for the throughput on the page ``/geodl`` of a client's dashboard.

    Raises
    ------
    ClusterError
        A worker of the client lacks something that the blocks need.
    BlockError
        Blocks failed for good, or a worker was lost for good: they are named. The others are
        finished and kept.
    OutputError
        The output cannot be written (disk full, no permission). Finished blocks are kept.
    RunCancelledError
        ``cancel`` was set.
    """
    summary = RunSummary(total, resumed=len(ledger.done))
    for _, report in ledger.reports():
        summary.count(report, resumed=True)
    bar = Progress(total, name, done=summary.done, show=progress)
    if watch is not None:
        bar.watch(watch)
        watch(summary.done, total)
    left = (spec for spec in specs if spec.key not in ledger.done)
    started = time.monotonic()
    stop = cancel or threading.Event()
    if client is None:
        keep_freed_memory()
        outcomes = _run_here(task, left, ledger.folder, stop)
    else:
        from geodl.runtime.remote import run_on_client

        outcomes = run_on_client(task, left, ledger, client, name, stop, summary, pixels)
    try:
        _gather(outcomes, summary, bar)
    finally:
        outcomes.close()
        bar.close()
        summary.blocks_s = summary.wall_s = time.monotonic() - started
    if stop.is_set():
        raise RunCancelledError(
            f"stopped after {summary.done} of {total} blocks; the same call goes on from there"
        )
    if summary.failures:
        raise BlockError(_describe_failures(summary))
    return summary


Outcome = tuple[Spec, "dict[str, Any] | None", "BaseException | None"]


def _gather(outcomes: Iterator[Outcome], summary: RunSummary, bar: Progress) -> None:
    computed = 0
    for spec, report, error in outcomes:
        if error is None and report is not None:
            summary.count(report)
            computed += 1
            bar.advance()
            continue
        if _stops_the_run(error):
            raise OutputError(
                f"{spec.name}: the output cannot be written ({error}). {summary.done} of "
                f"{summary.total} blocks are kept; free space or mend permissions, then repeat "
                f"the call to go on."
            ) from error
        if not isinstance(error, Exception):
            raise error if error is not None else BlockError(f"{spec.name} gave no report")
        logger.error("%s failed: %s", spec.name, error)
        summary.failures[spec.name] = f"{type(error).__name__}: {error}"
        if computed == 0 and len(summary.failures) >= _HOPELESS:
            raise BlockError(_describe_failures(summary)) from error
        if len(summary.failures) == 1:
            first = error
            logger.info("going on with the other blocks", exc_info=first)


def _stops_the_run(error: BaseException | None) -> bool:
    """Whether no other block can be written either."""
    if isinstance(error, SourceError):
        return False
    return isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno in _FULL)


def _describe_failures(summary: RunSummary) -> str:
    shown = [f"{name}: {text}" for name, text in islice(summary.failures.items(), 3)]
    more = len(summary.failures) - len(shown)
    return (
        f"{len(summary.failures)} of {summary.total} blocks failed, {summary.done} are finished "
        f"and kept; mend the cause and repeat the call to go on. "
        + "; ".join(shown)
        + (f"; and {more} more" if more > 0 else "")
    )


def _read_with_retries(task: BlockTask, spec: Spec, waits_s: Sequence[float]) -> tuple[Any, float]:
    started = time.perf_counter()
    for wait_s in (*waits_s, None):
        try:
            return task.read(spec), time.perf_counter() - started
        except LASTING_ERRORS:
            raise
        except SourceError as error:
            if wait_s is None:
                raise
            logger.warning("%s: %s; trying again in %g s", spec.name, error, wait_s)
            time.sleep(wait_s)
    raise BlockError(f"{spec.name} was not read")


def _finish(
    task: BlockTask, spec: Spec, computed: Any, seconds: dict[str, float], folder: Path
) -> dict[str, Any]:
    started = time.perf_counter()
    report, payload = task.write(spec, computed)
    seconds = {**seconds, **report.pop("seconds", {})}
    seconds["write"] = time.perf_counter() - started
    report["seconds"] = {stage: round(value, 6) for stage, value in seconds.items()}
    report["peak_bytes"] = peak_bytes()
    record_block(folder, spec.key, report, payload)
    return report


def execute_block(task: BlockTask, spec: Spec, folder: str) -> dict[str, Any]:
    """Run one block from reading to its line in the ledger; here or on a worker."""
    loaded, read_s = _read_with_retries(task, spec, RETRY_WAITS_S)
    with _computing:
        started = time.perf_counter()
        computed = task.compute(spec, loaded)
        seconds = {"read": read_s, "compute": time.perf_counter() - started}
    del loaded
    return _finish(task, spec, computed, seconds, place(folder))


def execute_packed(packed: bytes, spec: Spec, folder: str) -> dict[str, Any]:
    """:func:`execute_block` of a task that travels as bytes; what a Dask worker calls."""
    return execute_block(unpack(packed), spec, folder)


def _run_here(
    task: BlockTask, specs: Iterator[Spec], folder: Path, stop: threading.Event
) -> Generator[Outcome, None, None]:
    """Blocks one after another; the next is read and the last written while one computes."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="geodl-read")
    writer = ThreadPoolExecutor(1, thread_name_prefix="geodl-write")
    ahead: tuple[Spec, Future[Any]] | None = None
    behind: tuple[Spec, Future[Any]] | None = None
    waits_s: Sequence[float] = RETRY_WAITS_S

    def start_read() -> tuple[Spec, Future[Any]] | None:
        spec = None if stop.is_set() else next(specs, None)
        if spec is None:
            return None
        return spec, reader.submit(_read_with_retries, task, spec, waits_s)

    def settle(pending: tuple[Spec, Future[Any]]) -> Outcome:
        spec, future = pending
        error = future.exception()
        return (spec, None, error) if error is not None else (spec, future.result(), None)

    try:
        ahead = start_read()
        while ahead is not None:
            spec, future = ahead
            error = future.exception()
            if error is not None:
                # Waiting did not help: the source is broken rather than slow to answer.
                waits_s = ()
                ahead = start_read()
                yield spec, None, error
                continue
            loaded, read_s = future.result()
            ahead = start_read()
            # The names let go of pixels as soon as these are used: three blocks live at most.
            del future
            started = time.perf_counter()
            try:
                computed = task.compute(spec, loaded)
            except Exception as problem:  # noqa: BLE001 - the block boundary: named and kept
                yield spec, None, problem
                continue
            finally:
                del loaded
            seconds = {"read": read_s, "compute": time.perf_counter() - started}
            if behind is not None:
                yield settle(behind)
            behind = spec, writer.submit(_finish, task, spec, computed, seconds, folder)
            del computed
        if behind is not None:
            last, behind = behind, None
            yield settle(last)
    finally:
        # Blocks that are computed already are worth their line in the ledger.
        reader.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True)
