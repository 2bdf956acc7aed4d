"""FIFO queue for the device, with a limit on waiting requests.

Locks, in the order in which they are taken: the line's own, held only to look and to step in or
out; whoever is at its head then takes the engine's device lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .budget import MemoryBudget
from .config import Limits
from .problems import ProblemError, make_busy_problem

_LOOK_SECONDS = 0.1
"""How often a request that waits checks whether its client is still there."""


class ClientGoneError(Exception):
    """The client has closed its connection."""


class DroppedError(Exception):
    """Work done ahead of time is dropped: other work is wanted."""


class DeviceQueue:
    """FIFO queue of requests for the device; work ahead of time comes after all others.

    Args:
        at_once: most requests that may be in it, computing or waiting.
        seconds_waited: is told how long each turn was waited for.
        budget: the memory that requests share.
    """

    def __init__(
        self,
        at_once: int,
        seconds_waited: Callable[[float], None] = lambda _: None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._at_once = at_once
        self._seconds_waited = seconds_waited
        self.budget = budget or MemoryBudget(Limits().memory_bytes)
        self._changed = threading.Condition()
        self._line: deque[_Ticket] = deque()
        self._holder: _Ticket | None = None
        self._ahead: QueueSlot | None = None
        self._slots: set[QueueSlot] = set()
        self._refused = False
        self._stopped = False

    def acquire(
        self, is_gone: Callable[[], bool], seconds: float, *, is_ahead: bool = False
    ) -> QueueSlot:
        """Acquire a slot for one request, to be released when it is finished.

        Args:
            is_gone: tells whether the client has gone away.
            seconds: longest time it may take, or from one :meth:`QueueSlot.extend_deadline` to the
                next.
            is_ahead: whether nobody waits for it yet; it is dropped when the next such request
                comes.

        Raises:
            ProblemError: ``busy``, at once.
        """
        with self._changed:
            self.check_open()
            if len(self._slots) >= self._at_once:
                raise make_busy_problem(
                    f"The server has {self._at_once} requests, which is as many as it "
                    "takes. Try again in a moment."
                )
            slot = QueueSlot(self, is_gone, seconds, is_ahead=is_ahead)
            self._slots.add(slot)
            if is_ahead:
                if self._ahead is not None:
                    self._ahead.is_dropped = True
                self._ahead = slot
            return slot

    def check_open(self) -> None:
        """Raise if no more requests are accepted.

        Raises:
            ProblemError: ``busy``.
        """
        if self._refused:
            raise make_busy_problem(
                "The server stops. Start it again, then repeat this.", retry_after_s=10
            )

    def close(self, seconds: float) -> None:
        """Accept no more requests, wait some time for running ones, then refuse the rest."""
        with self._changed:
            self._refused = True
            self._changed.wait_for(lambda: not self._slots, seconds)
            self._stopped = True
            self._changed.notify_all()

    @property
    def in_hand(self) -> int:
        """The number of requests that are computing or waiting."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """The number of pieces of work that wait for their turn."""
        return max(0, len(self._line) - 1)

    def release(self, slot: QueueSlot) -> None:
        """Make room for another request. Does nothing the second time."""
        slot.memory.close()
        with self._changed:
            self._slots.discard(slot)
            self._changed.notify_all()

    @contextmanager
    def turn(self, slot: QueueSlot) -> Iterator[None]:
        """Wait for this piece's turn at the device; the turn ends with the body."""
        ticket = _Ticket(slot.is_ahead)
        came = time.perf_counter()
        with self._changed:
            self._line.append(ticket)
        try:
            self._wait(ticket, slot)
            self._seconds_waited(time.perf_counter() - came)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                if self._holder is ticket:
                    self._holder = None
                self._changed.notify_all()

    def _wait(self, ticket: _Ticket, slot: QueueSlot) -> None:
        with self._changed:
            while self._holder is not None or self._find_next() is not ticket:
                self._changed.wait(_LOOK_SECONDS)
                self._check(slot)
            self._holder = ticket
        self._check(slot)

    def _find_next(self) -> _Ticket:
        return next((one for one in self._line if not one.is_ahead), self._line[0])

    def _check(self, slot: QueueSlot) -> None:
        if self._stopped:
            raise make_busy_problem(
                "The server was stopped before this was done.", retry_after_s=10
            )
        slot.check()


@dataclass(frozen=True, eq=False)
class _Ticket:
    """A piece of work in the line."""

    is_ahead: bool


class QueueSlot:
    """One request among those being processed; see :meth:`DeviceQueue.admit`.

    Attributes:
        memory: memory of the server that the request takes.
        is_ahead, is_dropped: see :meth:`DeviceQueue.acquire`.
        patience_s: how long the client waits for a model that is still being loaded.
    """

    def __init__(
        self,
        queue: DeviceQueue,
        is_gone: Callable[[], bool],
        seconds: float,
        *,
        is_ahead: bool = False,
    ) -> None:
        self.is_ahead = is_ahead
        self.is_dropped = False
        self.patience_s = 0.0
        self._queue = queue
        self._is_gone = is_gone
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self.memory = queue.budget.reservation()

    def extend_deadline(self) -> None:
        """Restart the time limit, as a result was delivered."""
        self._until = time.monotonic() + self._seconds

    def check(self) -> None:
        """Raise if the request is too late, or its client is gone.

        Raises:
            ClientGoneError: nobody waits for it.
            DroppedError: other work is done ahead of time instead.
            ProblemError: ``too-slow``.
        """
        if self.is_dropped:
            raise DroppedError
        if self._is_gone():
            raise ClientGoneError
        if time.monotonic() > self._until:
            raise ProblemError(
                "too-slow",
                f"The request took longer than {self._seconds:g} s. Send fewer prompts at a "
                "time, or raise the server's limit (max_seconds).",
            )

    def check_waiting(self) -> None:
        """Raise as :meth:`check`, and if the server stops: what has not begun does not delay that.

        Raises:
            ProblemError: ``busy``, too.
        """
        self._queue.check_open()
        self.check()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn of one piece of this request's work."""
        with self._queue.turn(self):
            yield

    def release(self) -> None:
        """Release the slot; does nothing the second time."""
        self._queue.release(self)
