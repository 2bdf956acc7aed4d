"""The server's one model as an engine of a batch, which stands in line with everybody else."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from ..batch.engines import Work
from ..engine import Segmenter, SegmentOptions
from ..geojson.provenance import ObjectType
from ..results import Answer
from ..work import answer
from .problems import ProblemError
from .turns import ClientGoneError, Place, Turns

_FULL_SECONDS = 0.2
"""A job comes back so often when there is no room for it."""


class SharedEngine:
    """Answers with a model that others use too; see :class:`.batch.engines.Engine`.

    It has one place among the server's requests while it has prompts to answer, and waits for its
    turn with each piece of work: so a click waits for no more than one of them.
    """

    images_in_hand = 2

    def __init__(
        self,
        segmenter: Segmenter,
        turns: Turns,
        options: SegmentOptions,
        object_type: ObjectType,
    ) -> None:
        self._segmenter, self._turns = segmenter, turns
        self._options, self._object_type = options, object_type
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-engine")
        self._closed = threading.Event()

    def answer(self, work: Work) -> list[Future[Sequence[Answer]]]:
        """See :class:`.Engine`; all answers are delivered one by one."""
        return [self._thread.submit(self._answer, work)]

    def _answer(self, work: Work) -> Sequence[Answer]:
        place = self._place()
        try:
            found = answer(
                self._segmenter,
                work.slide,
                work.prompts,
                self._options,
                self._object_type,
                turn=place.turn,
            )
            with closing(found) as answers:
                for one in answers:
                    work.deliver(one)
        finally:
            place.leave()
        return ()

    def _place(self) -> Place:
        """A place, as soon as there is room: nobody waits for the answer to this in vain."""
        while not self._closed.is_set():
            try:
                return self._turns.admit(self._closed.is_set, math.inf)
            except ProblemError:
                self._closed.wait(_FULL_SECONDS)
        raise ClientGoneError

    def close(self) -> None:
        """Stop after the piece of work that it is at."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)
