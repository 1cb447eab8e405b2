"""A run uses the device of whoever does its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster, get_worker

from geodl.base.errors import GeodlWarning, OptionError
from geodl.tools import device
from geodl.tools.device import run_device


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as found,
    ):
        yield found


def gpus(patch: pytest.MonkeyPatch, answer: Any) -> None:
    patch.setattr(device, "sees_gpu", answer)


def test_without_a_client_this_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, lambda: False)
    assert run_device(None) == run_device("cpu") == "cpu"
    with pytest.raises(OptionError, match='processorType="GPU": torch sees no GPU here'):
        run_device("cuda")
    gpus(monkeypatch, lambda: True)
    assert run_device(None) == run_device("cuda") == "cuda"
    assert run_device("cpu") == "cpu"


def test_workers_with_gpus_are_used_from_a_client_without(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpus(monkeypatch, _always)
    assert run_device(None, client) == run_device("cuda", client) == "cuda"


def test_a_cluster_of_both_kinds_uses_cpus_and_says_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, _second)
    with pytest.warns(GeodlWarning, match=r"1 of 2 workers see a GPU.*none on inproc://"):
        assert run_device(None, client) == "cpu"
    with pytest.raises(OptionError, match=r"no GPU on inproc://"):
        run_device("cuda", client)


def _always() -> bool:
    return True


def _second() -> bool:
    return bool(get_worker().name == 1)
