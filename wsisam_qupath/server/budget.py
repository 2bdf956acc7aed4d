"""How much memory the requests of a server may take together: reserved before it is used."""

from __future__ import annotations

import threading

from .problems import ProblemError, make_busy_problem


class MemoryBudget:
    """Bytes that requests share. Safe to use from many threads."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._lock = threading.Lock()
        self._reserved = 0

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are reserved now."""
        return self._reserved

    def reservation(self) -> Reservation:
        """Make an empty reservation; see :meth:`Reservation.grow`."""
        return Reservation(self)

    def take(self, size: int) -> None:
        """Reserve bytes.

        Raises:
            ProblemError: ``too-large`` where that is more than there ever is; ``busy`` where
                others have it now.
        """
        with self._lock:
            if size > self.total_bytes:
                raise ProblemError(
                    "too-large",
                    f"This needs {size >> 20} MiB of memory; the server gives requests "
                    f"{self.total_bytes >> 20} MiB. Send less at a time.",
                )
            if self._reserved + size > self.total_bytes:
                raise make_busy_problem(
                    "The server's memory is taken by other requests. Try again in a moment."
                )
            self._reserved += size

    def give_back(self, size: int) -> None:
        """Give reserved bytes back."""
        with self._lock:
            self._reserved -= size


class Reservation:
    """The bytes that one request has reserved; a context manager that gives them back."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def grow(self, size: int) -> None:
        """Reserve more; see :meth:`MemoryBudget.take`."""
        self._budget.take(size)
        self._size += size

    def close(self) -> None:
        """Give everything back; does nothing the second time."""
        size, self._size = self._size, 0
        self._budget.give_back(size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
