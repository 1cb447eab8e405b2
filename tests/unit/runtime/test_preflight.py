"""Before the first block every worker shows that it can do the run, or is named with the reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, get_worker

from geodl.base.errors import ClusterError, SourceError, SourceNotFoundError
from geodl.core.blocks import RasterBlock
from geodl.core.grid import GeoGrid, Window
from geodl.runtime import preflight as module
from geodl.runtime.ledger import Ledger
from geodl.runtime.packed import pack
from geodl.runtime.preflight import check_worker, preflight, read_one_pixel, versions
from geodl.runtime.run import run_blocks


@dataclass(frozen=True)
class Spec:
    key: tuple[int, ...]
    name: str = "block 0"


@dataclass(frozen=True)
class Task:
    """Probes leave a mark each; the worker at one address has no such source."""

    marks: Path
    lacks: str | None = None

    def probe(self) -> None:
        address = get_worker().address
        (self.marks / _port(address)).touch()
        if address == self.lacks:
            raise SourceNotFoundError("There is no file /scenes/a.tif; check the path.")

    def read(self, spec: Spec) -> int:
        return 1

    def compute(self, spec: Spec, loaded: int) -> int:
        (self.marks / "block").touch()
        return loaded

    def write(self, spec: Spec, computed: int) -> tuple[dict[str, Any], bytes]:
        return {}, b""


@pytest.fixture(scope="module")
def client(workers: Client) -> Client:
    return workers


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def addresses(client: Client) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def run(task: Task, client: Client, folder: Path) -> None:
    with Ledger.open(folder / "a.run", "f" * 8, {}) as ledger:
        run_blocks(task, [Spec((0,))], 1, ledger=ledger, client=client, progress=False)


def test_every_worker_is_asked_once_and_the_run_folder_is_left_clean(
    client: Client, tmp_path: Path
) -> None:
    run(Task(tmp_path), client, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *map(_port, addresses(client)),
        "block",
        "a.run",
    }
    assert not (tmp_path / "a.run" / "probe").exists()


def test_a_worker_without_the_source_is_named_before_the_first_block(
    client: Client, tmp_path: Path
) -> None:
    address = addresses(client)[0]
    with pytest.raises(ClusterError, match=rf"1 of 2 workers.*{address}.*/scenes/a\.tif"):
        run(Task(tmp_path, lacks=address), client, tmp_path)
    assert not (tmp_path / "block").exists()


def test_other_versions_are_named(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("t")
    other = {**versions(), "torch": "1.0"}
    with pytest.raises(ClusterError, match=r"has torch .* \(here 1\.0\); install the same"):
        check_worker(pack(None), str(tmp_path), "t", "w", other)


def test_a_run_folder_that_is_not_shared_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARED_WITHIN_S", 0.0)
    with pytest.raises(ClusterError, match="does not see the run folder"):
        check_worker(pack(None), str(tmp_path / "probe"), "t", "w", versions())
    (tmp_path / "t").write_text("t")
    (tmp_path / "w").mkdir()
    with pytest.raises(ClusterError, match=r"cannot write into the run folder .*Is a directory"):
        check_worker(pack(None), str(tmp_path), "t", "w", versions())


def test_what_a_worker_writes_must_arrive(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARED_WITHIN_S", 0.0)
    monkeypatch.setattr(module, "check_worker", _writes_elsewhere)
    with pytest.raises(ClusterError, match=r"2 of 2 workers.*does not arrive here"):
        preflight(client, Task(tmp_path), tmp_path)


def _writes_elsewhere(*_: Any) -> str:
    return "text"


def test_a_busy_worker_is_left_to_its_first_block(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        preflight(client, Task(tmp_path), tmp_path, patience_s=0.0)
    assert "are not checked" in caplog.text


@dataclass(frozen=True)
class Damaged:
    """A raster whose windows read unless they lie among ``bad``."""

    bad: frozenset[tuple[int, int]]
    error: type[OSError] = SourceError
    name: str = "scene.tif"

    @property
    def grid(self) -> GeoGrid:
        return GeoGrid(width=10, height=20, transform=(1, 0, 0, 0, 1, 0))

    def read(self, window: Window) -> RasterBlock:
        if (window.row, window.col) in self.bad:
            raise self.error(f"scene.tif at {window.row}")
        return RasterBlock(np.zeros((1, 1, 1)), np.ones((1, 1), bool))


def test_one_damaged_tile_is_the_matter_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS_S", (0.0, 0.0))
    source = Damaged(frozenset({(10, 5), (0, 0)}))
    read_one_pixel(source)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"scene\.tif at 19"):
        read_one_pixel(replace(source, bad=source.bad | {(19, 9)}))  # type: ignore[arg-type]
    with pytest.raises(SourceNotFoundError, match="at 10"):
        read_one_pixel(replace(source, error=SourceNotFoundError))  # type: ignore[arg-type]
