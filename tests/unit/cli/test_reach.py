"""``geodl doctor --client`` tells whether a cluster is there and suits this process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from distributed import Client

from geodl.cli.main import main
from geodl.cli.reach import _compare, examine_cluster
from geodl.runtime.clusters.processes import start_processes
from geodl.runtime.clusters.spec import Spec
from geodl.runtime.connect import connect
from geodl.runtime.preflight import versions


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect("local", workers=2, memory_limit=2**30, dashboard_address=None) as found:
        yield found


def test_a_cluster_is_described(client: Client) -> None:
    faults: list[str] = []
    address = client.scheduler_info(n_workers=0)["address"]
    found = examine_cluster(address, faults)
    assert faults == []
    assert (found["workers"], found["threads"], found["memory_gb"]) == (2, 4, 2.0)
    assert found["scheduler"] == address


def test_an_address_where_nothing_is_makes_the_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geodl.runtime.connect._TIMEOUT_S", 0.3)
    assert main(["doctor", "--json", "--client", "tcp://127.0.0.1:9"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["cluster"] == {"target": "tcp://127.0.0.1:9", "workers": 0}
    assert any("tcp://127.0.0.1:9" in fault for fault in report["faults"])
    assert main(["doctor", "--client", "tcp://127.0.0.1:9"]) == 1
    assert "cluster: tcp://127.0.0.1:9 cannot be reached" in capsys.readouterr().out


def test_no_workers_is_a_fault() -> None:
    faults: list[str] = []
    with start_processes(Spec(dashboard_address=None), "distributed.Nanny", 0) as empty:
        assert examine_cluster(empty.scheduler_address, faults)["workers"] == 0
    assert len(faults) == 1
    assert "has no workers" in faults[0]


def test_other_versions_are_faults() -> None:
    faults: list[str] = []
    here = versions()
    _compare("tcp://a", {**here, "numpy": "1.0"}, here, faults)
    _compare("tcp://b", ModuleNotFoundError("No module named 'geodl'"), here, faults)
    _compare("tcp://c", here, here, faults)
    assert [fault.split(" has ")[0] for fault in faults[:1]] == ["The worker tcp://a"]
    assert f"numpy 1.0 (here {here['numpy']})" in faults[0]
    assert "tcp://b cannot run geodl" in faults[1]
    assert len(faults) == 2
