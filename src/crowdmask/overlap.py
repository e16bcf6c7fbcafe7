"""Work on the host that goes on while the device, or the next step, is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items, in order, made by a thread that is up to `depth` items ahead.

    An error of the iterator is raised where its item would have come.
    """
    source = iter(items)
    end = object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting: deque[Future] = deque(pool.submit(next, source, end) for _ in range(depth))
        while True:
            item = waiting.popleft().result()
            if item is end:
                return
            waiting.append(pool.submit(next, source, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def behind(work: Callable[[T], S], items: Iterable[T], depth: int = 2) -> Iterator[S]:
    """`work(item)` for all items, in order, done by a thread while the next items are made."""
    pool = ThreadPoolExecutor(1)
    try:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            while len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
