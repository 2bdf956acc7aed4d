"""Prepare the next samples while the device works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def prefetch(
    make: Callable[[K], T], keys: Iterable[K], *, depth: int = 3, threads: int = 1
) -> Iterator[tuple[T, float]]:
    """Yield ``make(key)`` in order, made up to ``depth`` ahead, and the seconds waited for each."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="views") as pool:
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > depth:
                    yield _wait_for(waiting.popleft())
            while waiting:
                yield _wait_for(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()


def _wait_for(future: Future[T]) -> tuple[T, float]:
    start = time.perf_counter()
    return future.result(), time.perf_counter() - start
