"""Counts and times what the model has done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a :class:`.Segmenter` did so far; seconds spent in each stage, summed over threads.

    Attributes:
        pairs_embedded, pairs_cached: patch pairs that were encoded, and those that were not, since
            their patches were in memory or on the disk.
        patches_stored: patches encoded by an earlier run that were read from the disk.
    """

    pairs_embedded: int = 0
    pairs_cached: int = 0
    patches_stored: int = 0
    prompts_answered: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "encode", "decode", "outline"), 0.0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def measure_time(self, stage: str) -> Iterator[None]:
        """Add the time of the body to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    def count_stored(self) -> None:
        """Count a patch that was read from the disk."""
        with self._lock:
            self.patches_stored += 1
