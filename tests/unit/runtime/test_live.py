"""The dashboard's page tells of every run: its blocks, its speed, its failures."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from geodl.base.errors import BlockError, MissingPackageError, OptionError, OutputError
from geodl.runtime.connect import connect
from geodl.runtime.ledger import Ledger
from geodl.runtime.live import ProgressPage
from geodl.runtime.report import check_report, reported
from geodl.runtime.run import run_blocks


@dataclass(frozen=True)
class Spec:
    key: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"block {self.key[0]}"


@dataclass(frozen=True)
class Task:
    fails: int = -1

    def read(self, spec: Spec) -> int:
        return spec.key[0]

    def compute(self, spec: Spec, loaded: int) -> int:
        if loaded == self.fails:
            raise ValueError("no such <thing>")
        return loaded

    def write(self, spec: Spec, computed: int) -> tuple[dict[str, Any], bytes]:
        return {"skipped": computed == 0, "seconds": {"model": 0.5}}, b""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect("local", workers=1, threads_per_worker=2) as found:
        yield found


def page(client: Client, name: str) -> str:
    link = client.dashboard_link.removesuffix("status") + name
    with urllib.request.urlopen(link, timeout=120) as answer:
        return answer.read().decode()  # type: ignore[no-any-return]


def run(task: Task, client: Client, folder: Path, fingerprint: str) -> None:
    with Ledger.open(folder / "a.run", fingerprint, {}) as ledger:
        run_blocks(
            task,
            [Spec((k,)) for k in range(4)],
            4,
            ledger=ledger,
            client=client,
            progress=False,
            pixels=4_000_000,
        )


def test_runs_stand_on_the_page_with_the_newest_first(client: Client, tmp_path: Path) -> None:
    run(Task(), client, tmp_path, "a" * 8)
    with pytest.raises(BlockError):
        run(Task(fails=2), client, tmp_path / "second", "b" * 8)
    broken, whole = json.loads(page(client, "geodl.json"))["runs"]
    assert whole["run"] == "geodl_infer_aaaaaaaa"
    assert (whole["state"], whole["done"], whole["total"], whole["skipped"]) == (
        "finished",
        4,
        4,
        1,
    )
    # Four blocks of a megapixel; and four half seconds in one process.
    assert whole["mpix_per_s"] * whole["wall_s"] == pytest.approx(4, rel=0.3, abs=1)
    assert whole["busy"] == 1
    assert (broken["state"], broken["done"], broken["failed"]) == ("failed", 3, 1)
    assert broken["failures"] == ["block 2: BlockError: block 2: ValueError: no such <thing>"]
    assert "<title>geodl runs</title>" in page(client, "geodl")


def test_the_page_is_added_once_for_all_runs(client: Client, tmp_path: Path) -> None:
    for number in range(2):
        run(Task(), client, tmp_path / str(number), f"{number}" * 8)
    plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    assert plugins.count(ProgressPage.name) == 1
    assert len(json.loads(page(client, "geodl.json"))["runs"]) >= 2


def test_resumed_blocks_are_told_apart(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BlockError):
        run(Task(fails=1), client, tmp_path, "c" * 8)
    run(Task(), client, tmp_path, "c" * 8)
    newest = json.loads(page(client, "geodl.json"))["runs"][0]
    assert (newest["resumed"], newest["done"]) == (3, 4)


def test_a_report_is_asked_for_with_a_client_a_page_and_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_report(None, None) is None
    with pytest.raises(OptionError, match=r"pass client=geodl.connect"):
        check_report(None, tmp_path / "run.html")
    with pytest.raises(OptionError, match=r"name it \.html"):
        check_report(object(), tmp_path / "run.pdf")
    with pytest.raises(OutputError, match="nowhere"):
        check_report(object(), tmp_path / "nowhere" / "run.html")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(MissingPackageError, match=r"geodl\[dashboard\]"):
        check_report(object(), tmp_path / "run.html")


def test_a_report_names_the_tasks_of_the_run(client: Client, tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="the extra dashboard is not installed")
    path = check_report(client, tmp_path / "run.html")
    with reported(client, path):
        run(Task(), client, tmp_path, "d" * 8)
    assert "geodl_infer_dddddddd" in (tmp_path / "run.html").read_text("utf-8")
