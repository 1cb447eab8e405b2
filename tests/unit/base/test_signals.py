"""Ctrl-C stays what it was."""

from __future__ import annotations

import signal
import threading

import pytest

from geodl.base.signals import interrupts_kept


def test_a_handler_set_inside_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_kept():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(RuntimeError):
        _fail_inside()
    assert signal.getsignal(signal.SIGINT) is before


def _fail_inside() -> None:
    with interrupts_kept():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise RuntimeError


def test_other_threads_pass_through() -> None:
    done = []

    def work() -> None:
        with interrupts_kept():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
