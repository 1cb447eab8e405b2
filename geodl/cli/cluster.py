"""``geodl cluster``: what can be started, and what a running cluster is."""

from __future__ import annotations

import argparse
import time
from typing import Any

from geodl.cli.look import as_lines
from geodl.cli.main import Run, Word


def add_info(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument(
        "target", help="local, cuda, slurm, an address, a scheduler file or a recipe"
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.cli.reach import examine_cluster

        faults: list[str] = []
        found = examine_cluster(options.target, faults)
        options.status = 1 if faults else 0
        return {**found, "faults": faults}

    return run, as_lines


def add_start(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument("target", nargs="?", default="local", help="local, cuda, slurm or a recipe")
    parser.add_argument("--workers", type=int, help="processes that do the work")
    parser.add_argument(
        "--for", dest="seconds", type=float, help="stop after so many seconds (default: Ctrl-C)"
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.runtime.connect import connect

        more = {} if options.workers is None else {"workers": options.workers}
        started = time.monotonic()
        with connect(options.target, **more) as client:
            address = client.scheduler_info(n_workers=0)["address"]
            _announce(f"cluster at {address}; use it with --client {address}")
            try:
                _wait(options.seconds)
            except KeyboardInterrupt:
                _announce("stopping")
        return {"address": address, "seconds": round(time.monotonic() - started, 1)}

    return run, lambda value: f"stopped: {value['address']} after {value['seconds']} s"


def _announce(text: str) -> None:
    import sys

    sys.stderr.write(f"geodl: {text}\n")
    sys.stderr.flush()


def _wait(seconds: float | None) -> None:
    """Wait so long, or until Ctrl-C."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        time.sleep(1.0 if end is None else max(0.0, min(1.0, end - time.monotonic())))
