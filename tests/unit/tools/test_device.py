"""A run uses the device of whoever does its blocks."""

from __future__ import annotations

from typing import Any

import pytest
from distributed import Client, get_worker

from geodl.base.errors import GeodlWarning, OptionError
from geodl.tools import device
from geodl.tools.device import run_device


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
    workers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpus(monkeypatch, lambda: True)
    assert run_device(None, workers) == run_device("cuda", workers) == "cuda"


def test_a_cluster_of_both_kinds_uses_cpus_and_says_so(
    workers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu, without = workers.scheduler_info(n_workers=-1)["workers"]

    def only_the_first() -> bool:
        return bool(get_worker().address == with_gpu)

    gpus(monkeypatch, only_the_first)
    with pytest.warns(GeodlWarning, match=rf"1 of 2 workers see a GPU.*none on {without}"):
        assert run_device(None, workers) == "cpu"
    with pytest.raises(OptionError, match=rf"no GPU on {without}"):
        run_device("cuda", workers)
