"""What goes on, told to the scheduler, and the page ``/geodl`` of its dashboard that shows it."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from typing import Any

from distributed import SchedulerPlugin
from tornado.web import RequestHandler

from geodl.runtime.live_page import PAGE

logger = logging.getLogger(__name__)

TOPIC = "geodl"
_EVERY_S = 1.0
_KEPT_RUNS = 50
_SHOWN_FAILURES = 20


class LiveRun:
    """Facts of one run, sent to the scheduler about once a second.

    Parameters
    ----------
    client
        The client that runs it.
    run, stage
        Name of the run's tasks on the dashboard, and of what they do.
    total, done
        Blocks of the run, and those finished before.
    pixels
        Of all blocks together; 0 where blocks have none.
    workers
        Processes that share the work; each computes one block at a time.
    """

    def __init__(
        self,
        client: Any,
        run: str,
        stage: str,
        total: int,
        done: int,
        pixels: int,
        workers: int,
    ) -> None:
        self._client = client
        self._started = time.monotonic()
        self._sent = float("-inf")
        self._pixels_per_block = pixels / total if total else 0.0
        self._workers = workers
        self._before = done
        self._busy_s = 0.0
        self.facts: dict[str, Any] = {
            "run": run,
            "stage": stage,
            "state": "running",
            "total": total,
            "done": done,
            "resumed": done,
            "skipped": 0,
            "failed": 0,
            "failures": [],
            "mpix_per_s": 0.0,
            "busy": 0.0,
            "wall_s": 0.0,
        }
        _add_page(client)

    def finished(self, report: dict[str, Any]) -> None:
        """A block is done; its report tells the seconds by stage."""
        self.facts["done"] += 1
        self.facts["skipped"] += bool(report.get("skipped"))
        seconds = report.get("seconds", {})
        # Of the compute stage the model is a part, where it is told apart.
        self._busy_s += seconds.get("model", seconds.get("compute", 0.0))
        self.send()

    def failed(self, name: str, error: BaseException | None) -> None:
        self.facts["failed"] += 1
        text = f"{name}: {type(error).__name__}: {error}"
        self.facts["failures"] = [*self.facts["failures"], text][-_SHOWN_FAILURES:]
        self.send()

    def end(self, *, stopped: bool) -> None:
        """The last word."""
        failed = self.facts["failed"] > 0
        self.facts["state"] = "stopped" if stopped else "failed" if failed else "finished"
        self.send(now=True)

    def send(self, *, now: bool = False) -> None:
        clock = time.monotonic()
        if not now and clock - self._sent < _EVERY_S:
            return
        self._sent = clock
        wall_s = max(clock - self._started, 1e-9)
        here = self.facts["done"] - self._before
        self.facts["wall_s"] = round(wall_s, 3)
        self.facts["mpix_per_s"] = round(here * self._pixels_per_block / 1e6 / wall_s, 3)
        self.facts["busy"] = round(min(1.0, self._busy_s / (wall_s * max(1, self._workers))), 3)
        try:
            self._client.log_event(TOPIC, dict(self.facts))
        except (OSError, RuntimeError) as error:
            # A scheduler that is lost is told of by the blocks themselves.
            logger.debug("progress was not sent: %s", error)


def _add_page(client: Any) -> None:
    try:
        client.register_plugin(ProgressPage())
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        # A scheduler in an environment of its own may lack geodl; the run needs no page.
        logger.info("the scheduler shows no geodl page: %s", error)
    else:
        link = str(client.dashboard_link or "").removesuffix("status")
        logger.info("progress: %sgeodl", link)


class ProgressPage(SchedulerPlugin):  # type: ignore[misc]
    """Serves ``/geodl`` and ``/geodl.json`` beside the dashboard; needs no bokeh."""

    name = "geodl-progress"
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        self.runs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        scheduler.http_application.add_handlers(
            ".*$", [(r"/geodl/?", _Page), (r"/geodl\.json", _Facts, {"runs": self.runs})]
        )

    def log_event(self, topic: str, msg: Any) -> None:
        if topic != TOPIC:
            return
        self.runs.pop(msg["run"], None)
        self.runs[msg["run"]] = msg
        while len(self.runs) > _KEPT_RUNS:
            self.runs.popitem(last=False)


class _Page(RequestHandler):  # type: ignore[misc]
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.write(PAGE)


class _Facts(RequestHandler):  # type: ignore[misc]
    def initialize(self, runs: OrderedDict[str, dict[str, Any]]) -> None:
        self.runs = runs

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        # The newest first.
        self.write(json.dumps({"runs": list(reversed(self.runs.values()))}))
