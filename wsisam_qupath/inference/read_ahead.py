"""Pixels are read in threads while the device computes on those that were read before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Check: TypeAlias = Callable[[], None]
"""Raises an error if nobody waits for the work any more, or it has taken too long."""

_LOOK_SECONDS = 0.2
"""How often a thread that waits for pixels checks whether anybody still wants them."""

_READ_THREADS = 2
_READ_AHEAD = 2


def go_on() -> None:
    """Never stop the work."""


def read_ahead(
    read: Callable[[T, Check], R], items: Iterable[T], check: Check
) -> Generator[R, None, None]:
    """Yield the results of ``read`` in order, while the next few are read in threads.

    Args:
        read: reads one item; it is given a check to call again and again, which raises once nobody
            wants the result.
        items: what to read; taken by the caller's thread, a few ahead of what is yielded.
        check: called while a result is waited for; what it raises ends this.
    """
    remaining = iter(items)
    is_over = threading.Event()

    def check_wanted() -> None:
        if is_over.is_set():
            raise CancelledError

    with ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="slide-reader") as threads:
        pending: deque[Future[R]] = deque(
            threads.submit(read, item, check_wanted) for item in islice(remaining, _READ_AHEAD)
        )
        try:
            while pending:
                result = _wait_for(pending[0], check)
                pending.popleft()
                pending.extend(
                    threads.submit(read, item, check_wanted) for item in islice(remaining, 1)
                )
                yield result
        finally:
            is_over.set()
            for future in pending:
                future.cancel()


def _wait_for(future: Future[R], check: Check) -> R:
    while not wait([future], _LOOK_SECONDS).done:
        check()
    return future.result()
