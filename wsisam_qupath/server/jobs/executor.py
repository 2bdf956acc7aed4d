"""Executor of a batch that uses the server's model and queues with all other requests."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from ...geojson.provenance import add_client
from ...inference.executors import SearchWork, Work
from ...inference.segmenter import Segmenter
from ...options import OutlineOptions
from ...prompts.results import SerializedResult
from ..problems import ProblemError
from ..queue import ClientGoneError, DeviceQueue, QueueSlot

_FULL_SECONDS = 0.2
"""Time after which a job tries again when there is no room for it."""


class SharedExecutor:
    """Answers prompts with a shared model; see :class:`.inference.executors.Executor`.

    It has one place among the server's requests while it has prompts to answer, and waits for its
    turn with each piece of work: so a click waits for no more than one of them.
    """

    images_at_once = 2

    def __init__(
        self,
        segmenter: Segmenter,
        device_queue: DeviceQueue,
        options: OutlineOptions,
        client_name: str = "",
    ) -> None:
        self._segmenter, self._device_queue = segmenter, device_queue
        self._options, self._client_name = options, client_name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-engine")
        self._closed = threading.Event()

    def submit(self, work: Work | SearchWork) -> list[Future[Sequence[SerializedResult]]]:
        """See :class:`.Executor`; all answers are delivered one by one."""
        return [self._thread.submit(self._predict, work)]

    def _predict(self, work: Work | SearchWork) -> Sequence[SerializedResult]:
        slot = self._acquire_slot()
        try:
            found = work.predict(self._segmenter, self._options, slot.turn)
            with closing(found) as answers:
                for one in answers:
                    if one.feature is not None:
                        add_client(one.feature, self._client_name)
                    work.deliver(one)
        finally:
            slot.release()
        return ()

    def _acquire_slot(self) -> QueueSlot:
        """Acquire a slot as soon as there is room, however long that takes."""
        while not self._closed.is_set():
            try:
                return self._device_queue.acquire(self._closed.is_set, math.inf)
            except ProblemError:
                self._closed.wait(_FULL_SECONDS)
        raise ClientGoneError

    def close(self) -> None:
        """Stop after the current piece of work."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)
