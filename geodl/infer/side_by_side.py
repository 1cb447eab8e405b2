"""Many small pieces of work, some at once, their results in order.

Layers over the points of one block are too small to divide among cores: with one core for each of
several blocks, RandLANet takes two thirds of the time on two cores. The scores are then the same
for any number of cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``.

    Parameters
    ----------
    threads
        That do work at once.
    ahead
        Results that may wait for whoever takes them, besides those in work.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="geodl-pieces") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
