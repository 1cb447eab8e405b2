"""Pieces of work side by side: in order, few at once, and torch's threads left as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from geodl.infer.side_by_side import side_by_side
from geodl.nets.threads import torch_threads


def test_results_come_in_the_order_of_the_items() -> None:
    later = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert later.wait(120)
        later.set()
        return number * number

    assert list(side_by_side(slow_first, range(20), threads=3, ahead=2)) == [
        n * n for n in range(20)
    ]


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = side_by_side(lambda n: n, items(), threads=2, ahead=3)  # type: ignore[arg-type,var-annotated]
    next(results)
    assert len(taken) == 5
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 5


def test_several_work_at_once() -> None:
    """Each waits until the other is there: one thread alone would wait for ever."""
    both = threading.Barrier(2, timeout=120)
    assert sorted(side_by_side(lambda n: (both.wait(), n)[1], range(4), threads=2, ahead=2)) == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_an_error_ends_the_rest() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    results = side_by_side(work, range(1000), threads=2, ahead=2)
    with pytest.raises(ValueError, match="the third"):
        list(results)


def test_threads_of_torch_hold_for_new_threads_and_are_put_back() -> None:
    def threads(_: int) -> int:
        torch.ones(10).sum()
        return torch.get_num_threads()

    with torch_threads(3):
        with torch_threads(1) as before:
            assert set(side_by_side(threads, range(4), threads=2, ahead=0)) == {1}
        assert before == 3
        assert torch.get_num_threads() == 3
        with torch_threads(None):
            assert torch.get_num_threads() == 3
