from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace
from urllib.error import URLError

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from torch import nn

from geodl.base.errors import OfflineWarning, OptionError, SourceError
from geodl.nets import weights
from geodl.nets.weights import fetch, offline, with_pretrained


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """No earlier failure, no caches, and nothing of this test left behind."""
    for name in ("GEODL_OFFLINE", "GEODL_WEIGHTS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(weights, "_cause", "")
    # No test but that of a stall waits for one, however slow the machine.
    monkeypatch.setattr(weights, "STALL_S", 120.0)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "torch-cache"))
    yield
    torch.hub.set_dir(before)


class Builder:
    """Counts its calls that ask for weights; ``answer`` is raised, called, or means success."""

    def __init__(self, answer=None) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, pretrained: bool) -> nn.Module:
        net = nn.Linear(2, 2)
        if pretrained:
            self.asked += 1
            if isinstance(self.answer, BaseException):
                raise self.answer
            if self.answer is not None:
                self.answer()
        return net


FAILURES = [
    OSError("no route"),
    URLError("no name"),
    huggingface_hub.errors.LocalEntryNotFoundError("not cached"),
    RuntimeError("a test blocks sockets"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
def test_a_failure_warns_once_and_gives_the_random_weights_of_that_seed(failure):
    builder = Builder(failure)
    torch.manual_seed(3)
    expected = nn.Linear(2, 2).weight
    torch.manual_seed(3)
    with pytest.warns(OfflineWarning, match="geodl weights fetch") as caught:
        net, loaded = with_pretrained(builder, "x")
    assert not loaded
    assert len(caught) == 1
    assert torch.equal(net.weight, expected)


def test_success_in_the_caches_touches_no_network(monkeypatch):
    monkeypatch.setattr(weights, "_from_network", None)
    net, loaded = with_pretrained(Builder(), "x")
    assert loaded
    assert isinstance(net, nn.Linear)


def test_random_weights_on_request_look_nowhere():
    builder = Builder(OSError())
    _, loaded = with_pretrained(builder, "x", pretrained=False)
    assert not loaded
    assert builder.asked == 0


def attempts_at_the_network(monkeypatch) -> list[int]:
    calls: list[int] = []
    attempt = weights._attempt
    monkeypatch.setattr(weights, "_attempt", lambda *args: calls.append(1) or attempt(*args))
    return calls


def test_the_first_failure_stops_attempts_here_in_children_and_elsewhere(monkeypatch):
    calls = attempts_at_the_network(monkeypatch)
    with pytest.warns(OfflineWarning):
        with_pretrained(Builder(OSError()), "x")
    assert len(calls) == 1
    assert os.environ["GEODL_OFFLINE"] == "1"
    with pytest.warns(OfflineWarning):
        with_pretrained(Builder(OSError()), "y")
    # Another process of the user, started before: it has not the variable, but sees the marker.
    monkeypatch.delenv("GEODL_OFFLINE")
    assert offline()
    with pytest.warns(OfflineWarning):
        with_pretrained(Builder(OSError()), "z")
    assert len(calls) == 1


def test_the_users_word_beats_the_marker_and_the_marker_ages(monkeypatch):
    with pytest.warns(OfflineWarning):
        with_pretrained(Builder(OSError()), "x")
    monkeypatch.setenv("GEODL_OFFLINE", "0")
    assert not offline()
    monkeypatch.delenv("GEODL_OFFLINE")
    old = time.time() - weights._MARKER_S - 1
    os.utime(weights._marker(), (old, old))
    assert not offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert offline()


def test_offline_by_request_makes_no_attempt(monkeypatch):
    calls = attempts_at_the_network(monkeypatch)
    monkeypatch.setenv("GEODL_OFFLINE", "1")
    with pytest.warns(OfflineWarning):
        with_pretrained(Builder(OSError()), "x")
    assert not calls


def test_a_wrong_value_of_the_variable_is_named(monkeypatch):
    monkeypatch.setenv("GEODL_OFFLINE", "perhaps")
    with pytest.raises(OptionError, match="GEODL_OFFLINE"):
        offline()


def test_an_attempt_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(weights, "STALL_S", 0.2)
    release, ended = threading.Event(), []

    def hang() -> None:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            release.wait()
            ended.append(True)
        raise OSError("not here")

    with pytest.warns(OfflineWarning, match="no answer"):
        _, loaded = with_pretrained(Builder(hang), "x")
    assert not ended, "the attempt was waited for"
    release.set()
    assert not loaded
    # So that the thread left behind stops at its next request.
    assert huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_slow_download_goes_on_while_bytes_arrive(tmp_path, monkeypatch):
    clock, looks, look = [0.0], threading.Semaphore(0), weights._bytes_arrived
    monkeypatch.setattr(weights, "STALL_S", 1.5)
    monkeypatch.setattr(
        weights, "time", SimpleNamespace(time=time.time, monotonic=lambda: clock[0])
    )
    monkeypatch.setattr(weights, "_bytes_arrived", lambda: looks.release() or look())

    def trickle() -> None:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise OSError("not cached")
        part = tmp_path / "cache/models--a--b/blobs/x.incomplete"
        part.parent.mkdir(parents=True, exist_ok=True)
        for second in range(4):
            part.write_bytes(b"x" * (second + 1))
            # The third look from here begins after the second, which saw the bytes, has ended.
            while looks.acquire(blocking=False):
                pass
            for _ in range(3):
                looks.acquire()
            clock[0] += 1.0

    _, loaded = with_pretrained(Builder(trickle), "x")
    assert loaded
    assert clock == [4.0]


def test_one_text_for_all_failures_so_that_it_shows_once_in_a_script():
    script = [Builder(OSError("a")), Builder(OSError("b"))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for builder in script:
            with_pretrained(builder, "x")
    assert len(caught) == 1


def url_builder(url: str):
    class FromUrl(Builder):
        def __call__(self, pretrained: bool) -> nn.Module:
            net = super().__call__(pretrained)
            if pretrained:
                net.load_state_dict(torch.hub.load_state_dict_from_url(url, progress=False))
            return net

    return FromUrl()


def test_fetched_weights_are_found_in_the_folder_without_network(tmp_path, monkeypatch):
    source = tmp_path / "linear.pth"
    torch.save({"weight": torch.full((2, 2), 7.0), "bias": torch.zeros(2)}, source)
    build = url_builder(source.as_uri())
    monkeypatch.setattr(weights, "PROVIDERS", {"ours": lambda name: [build]})
    assert fetch(["linear"], tmp_path / "folder") == ["linear"]
    source.unlink()
    monkeypatch.setenv("GEODL_OFFLINE", "1")
    monkeypatch.setenv("GEODL_WEIGHTS", str(tmp_path / "folder"))
    net, loaded = with_pretrained(build, "linear")
    assert loaded
    assert (net.weight == 7).all()


def test_the_folder_holds_hub_files_too(tmp_path, monkeypatch):
    repo = tmp_path / "folder/hub/models--a--b"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("0" * 40) / "f.txt").write_text("here")
    monkeypatch.setenv("GEODL_WEIGHTS", str(tmp_path / "folder"))
    monkeypatch.setenv("GEODL_OFFLINE", "1")
    builder = Builder(lambda: huggingface_hub.hf_hub_download("a/b", "f.txt"))
    _, loaded = with_pretrained(builder, "x")
    assert loaded


def test_a_failed_fetch_names_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PROVIDERS", {"ours": lambda name: [Builder(OSError("gone"))]})
    with pytest.raises(SourceError, match=r"'linear'.*gone"):
        fetch(["linear"], tmp_path)


def test_fetch_needs_a_folder_and_a_known_name(tmp_path):
    with pytest.raises(OptionError, match="GEODL_WEIGHTS"):
        fetch(["resnet18"])
    with pytest.raises(OptionError, match="resnet1800"):
        fetch(["resnet1800"], tmp_path)


SCRIPT = """
import socket, sys, time, warnings
def refuse(*args, **kwargs):
    raise OSError("sockets are blocked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import timm
from geodl.nets.backbones import make_backbone
waits, sleep = [], time.sleep
time.sleep = lambda seconds: waits.append(seconds) or sleep(seconds)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("default")
    loaded = [make_backbone(name, 3)[1] for name in ("resnet18", "resnet18", "resnet34")]
assert loaded == [False] * 3, loaded
assert [w.category.__name__ for w in caught] == ["OfflineWarning"], caught
# The hub's own retries would wait three quarters of a minute.
assert sum(waits) < 10, waits
"""


def test_with_sockets_blocked_real_backbones_get_random_weights_in_time(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "GEODL_OFFLINE"}
    env |= {"TMPDIR": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Retrying" not in done.stderr
