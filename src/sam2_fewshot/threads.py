"""Numerical work in several threads; NumPy and SciPy release Python's lock in most of it."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4
"""With more threads, what holds Python's lock takes over, and each needs memory of its own."""
_AHEAD = 3
"""So many items a thread are begun before the first result is taken, since some take much longer than others."""


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads: one for each core this process may use, up to four.

    ``OMP_NUM_THREADS`` limits them as it limits PyTorch's threads.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores(), _MOST, int(limit) if limit.isdecimal() else _MOST))


def mapped(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function to items in several threads.

    Parameters
    ----------
    work
        Changes nothing that another call reads.
    items
        Are taken as they are needed.

    Yields
    ------
    Result
        In the order of the items, whichever is done first. Few are held at a time.
    """
    count = threads()
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > count * _AHEAD:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
