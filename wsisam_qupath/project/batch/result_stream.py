"""Results from the threads of executors, for one coroutine to iterate over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

from ...prompts.results import SerializedResult

Results: TypeAlias = Sequence[SerializedResult]


class ResultStream:
    """Iterates over results in the order in which they arrive, until all futures are done.

    A context manager: leaving it cancels what is not done. Made and used inside one event loop;
    only :meth:`deliver` may be called from any thread.

    Raises:
        WsiSamError: while iterating, what a future failed with.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Results | asyncio.Future[Results]] = asyncio.Queue()
        self._futures: list[asyncio.Future[Results]] = []
        self._done = 0

    def deliver(self, result: SerializedResult) -> None:
        """Add one result ahead of the future that it belongs to; see :class:`.Work`."""
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, [result])

    def add(self, futures: Iterable[Future[Results]]) -> None:
        """Add futures of results; see :meth:`.Executor.submit`."""
        for future in map(asyncio.wrap_future, futures):
            future.add_done_callback(self._arrived.put_nowait)
            self._futures.append(future)

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> Results:
        if self._done == len(self._futures):
            raise StopAsyncIteration
        arrived = await self._arrived.get()
        if not isinstance(arrived, asyncio.Future):
            return arrived
        self._done += 1
        return arrived.result()

    def __enter__(self) -> ResultStream:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._futures:
            future.cancel()
