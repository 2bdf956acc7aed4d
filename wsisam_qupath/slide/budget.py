"""Memory that pixels may take: one budget per process, and what share each use has of it.

The budget is 2 GB for a process with its programs, model and caches. Everything that is decoded
reserves its decoded size first and waits until that fits; what can never fit is refused before a
decoder sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SlideError

MIB = 1 << 20

DECODING_BYTES = 640 * MIB
"""Most bytes that are being decoded at a time, in all threads together."""

SEGMENT_BYTES_MAX = 256 * MIB
"""Largest tile or strip, decoded, bytes: it is decoded whole even for a corner of it."""

CACHE_BYTES = 192 * MIB
"""Bytes of decoded tiles and strips that are kept for the next reading."""


WIDE_MIN = 64
"""Least value that the highest 8 bits of 16-bit samples must reach somewhere; below it only 14 bits
or fewer are used."""


class Reservations:
    """Bytes that are promised to threads; a thread waits until its share is free.

    Args:
        total_bytes: most bytes that all threads may hold together.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._free = total_bytes
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Hold so many bytes during the ``with`` block. Reservations must not be nested.

        Raises:
            SlideError: it is more than all threads together may hold.
        """
        if size_bytes > self._total:
            raise SlideError(
                f"Its pixels take {size_bytes / MIB:.0f} MB at a time, more than the "
                f"{self._total / MIB:.0f} MB that may be decoded."
            )
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size_bytes)
            self._free -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free += size_bytes
                self._changed.notify_all()


decoding = Reservations(DECODING_BYTES)
"""The reservations of everything that decodes pixels in this process."""
