"""A look at every worker before the first block: what a run needs is there, or is named.

Workers that join later are not asked; what they lack is told by their first block.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from geodl.base.errors import ClusterError, SourceError
from geodl.base.places import make_folder, place, remote_errors, remove_tree
from geodl.core.blocks import RasterSource
from geodl.core.grid import Window
from geodl.runtime.packed import call, pack, unpack
from geodl.runtime.run import LASTING_ERRORS, RETRY_WAITS_S

logger = logging.getLogger(__name__)

# Blocks of another run may keep a worker busy; a share that hangs keeps it for ever.
PATIENCE_S = 300.0
_LOOK_EVERY_S = 2.0
# Network file systems show a file of another host late.
_SHARED_WITHIN_S = 10.0
_PACKAGES = ("geodl", "torch", "numpy")


@runtime_checkable
class Probed(Protocol):
    """A block task that can say before the first block whether its inputs are within reach."""

    def probe(self) -> None:
        """Open what the blocks need; raise an error that names what is missing."""
        ...


def read_one_pixel(source: RasterSource) -> None:
    """Read a pixel of a source.

    One damaged tile, or an outage of a moment, is the matter of the blocks that meet it: pixels
    elsewhere are tried a little later.

    Raises
    ------
    SourceError
        Of the last try; names the path.
    """
    rows, cols = source.grid.height, source.grid.width
    waits = iter(RETRY_WAITS_S)
    for row, col in ((rows // 2, cols // 2), (0, 0)):
        try:
            source.read(Window(row=row, col=col, height=1, width=1))
        except LASTING_ERRORS:
            raise
        except SourceError as error:
            logger.warning("preflight: %s", error)
            time.sleep(next(waits))
        else:
            return
    source.read(Window(row=rows - 1, col=cols - 1, height=1, width=1))


def preflight(client: Any, task: Any, folder: Path, *, patience_s: float = PATIENCE_S) -> None:
    """Ask every worker of a client whether it can do the task's blocks.

    Parameters
    ----------
    task
        A block task; its ``probe`` runs on every worker if it has one.
    folder
        The run folder, which takes a file from each worker and gives it back here.
    patience_s
        Workers that are busy for longer than this are left to their first block.

    Raises
    ------
    ClusterError
        Names each worker that cannot, what it lacks and the remedy.
    """
    started = time.monotonic()
    token = uuid.uuid4().hex
    probe = folder / "probe"
    make_folder(probe)
    (probe / token).write_text(token)
    try:
        asked = _ask(client, task, probe, token)
        problems = _gather(client, asked, probe, patience_s)
    finally:
        remove_tree(probe)
    if problems:
        raise ClusterError(_describe(problems, len(asked)))
    logger.info("preflight: %d workers in %.1f s", len(asked), time.monotonic() - started)


def _ask(client: Any, task: Any, probe: Path, token: str) -> dict[Any, tuple[str, str]]:
    """One task for each worker: its future, with the worker's address and file."""
    asked = {}
    here = versions()
    packed, packed_task = pack(check_worker), pack(task)
    for number, address in enumerate(client.scheduler_info(n_workers=-1)["workers"]):
        name = f"{token}-{number}"
        future = client.submit(
            call,
            packed,
            packed_task,
            str(probe),
            token,
            name,
            here,
            key=f"geodl_preflight-{name}",
            workers=[address],
            allow_other_workers=False,
            priority=10,
            pure=False,
        )
        asked[future] = address, name
    return asked


def _gather(
    client: Any, asked: Mapping[Any, tuple[str, str]], probe: Path, patience_s: float
) -> dict[str, str]:
    """What is wrong, by worker."""
    from distributed import wait

    problems: dict[str, str] = {}
    gone: list[str] = []
    left = set(asked)
    deadline = time.monotonic() + patience_s
    while left and time.monotonic() < deadline:
        try:
            with client.as_current():
                done = wait(left, timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        for future in done:
            address, name = asked[future]
            problem = _problem(future, probe / name)
            if problem:
                problems[address] = problem
        left -= done
        there = client.scheduler_info(n_workers=-1)["workers"] if left else {}
        lost = {future for future in left if asked[future][0] not in there}
        gone += [asked[future][0] for future in lost]
        left -= lost
    client.cancel([*left, *(f for f in asked if asked[f][0] in gone)])
    if gone and len(gone) == len(asked):
        return dict.fromkeys(gone, "died while it opened the inputs; does it have enough memory?")
    if gone or left:
        silent = [*gone, *(asked[future][0] for future in left)]
        logger.warning("workers that left or are busy are not checked: %s", ", ".join(silent))
    return problems


def _problem(future: Any, file: Path) -> str | None:
    if future.status == "cancelled":
        return None
    error = future.exception()
    if error is not None:
        return f"{type(error).__name__}: {error}"
    if not _appears(file, future.result()):
        return (
            f"what it writes into {file.parent} does not arrive here; the output must lie on a "
            f"file system that this process and all workers share"
        )
    return None


def _describe(problems: Mapping[str, str], total: int) -> str:
    shown = [f"{address}: {text}" for address, text in list(problems.items())[:3]]
    more = len(problems) - len(shown)
    return (
        f"{len(problems)} of {total} workers cannot do this run; nothing was started. "
        + "; ".join(shown)
        + (f"; and {more} more" if more else "")
    )


def versions() -> dict[str, str]:
    """Versions that client and workers must share; torch is not imported for the question."""
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in _PACKAGES:
        try:
            # Builds of one version for CPU and for CUDA differ in the label behind the plus.
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found


def check_worker(
    packed_task: bytes, folder: str, token: str, name: str, expected: Mapping[str, str]
) -> str:
    """What runs on each worker; returns the text that it has written into its file.

    Raises
    ------
    ClusterError
        Another version than the client's, or a run folder that is not shared.
    """
    wrong = {key: text for key, text in versions().items() if expected.get(key) != text}
    if wrong:
        pairs = ", ".join(f"{key} {text} (here {expected.get(key)})" for key, text in wrong.items())
        raise ClusterError(f"has {pairs}; install the same versions on client and workers")
    probe = place(folder)
    if not _appears(probe / token, token):
        raise ClusterError(
            f"does not see the run folder {probe.parent}; the output must lie on a file system "
            f"that the client and all workers share"
        )
    text = uuid.uuid4().hex
    try:
        (probe / name).write_text(text)
    except remote_errors() as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"cannot write into the run folder {probe.parent} ({reason}); give its user "
            f"the right to, or choose another output_name"
        ) from error
    task = unpack(packed_task)
    if isinstance(task, Probed):
        task.probe()
    return text


def _appears(file: Path, text: str) -> bool:
    deadline = time.monotonic() + _SHARED_WITHIN_S
    while True:
        try:
            if file.read_text() == text:
                return True
        except remote_errors():
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
