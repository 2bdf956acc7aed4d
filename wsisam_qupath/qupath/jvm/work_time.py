"""Time limits that hold on a busy machine: what a process works counts, not how long it queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

IDLE_SHARE = 0.02
"""Share of a core below which a process waits for something else or hangs; all its time counts."""

_STEPS = 5
_STEP_SECONDS_MAX = 5.0
"""Work is compared with idleness in steps of this length, or in so many steps of a short limit."""


class WorkTime:
    """Seconds that another process has worked, or waited for anything but a core.

    On a machine with much else to do a process may get a tenth of a core, and take ten times as
    long for the same work. So a second in which it works counts as what it worked, and a second in
    which it does nothing as a second: a limit ends what hangs on time, and whatever works, or
    queues for a core, after 1 / :data:`IDLE_SHARE` times the limit at the latest. That it queues is
    seen on Linux alone, of its first thread; elsewhere who gets next to nothing seems to hang.

    Args:
        find_pid: finds the number of the process; None before it has begun.
        seconds_max: limit that this time is compared with.

    Attributes:
        step_seconds: longest time between two looks.
    """

    def __init__(self, find_pid: Callable[[], int | None], seconds_max: float) -> None:
        self.step_seconds = min(_STEP_SECONDS_MAX, seconds_max / _STEPS)
        self._find_pid = find_pid
        self._counted = 0.0
        self._looked_at = time.monotonic()
        self._active = read_active(self._find_pid())

    def look(self) -> float:
        """Count the seconds since the start, as described above; call it as often as wanted."""
        now, active = time.monotonic(), read_active(self._find_pid())
        passed = now - self._looked_at
        worked, queued = (
            after - before for after, before in zip(active, self._active, strict=True)
        )
        counted = self._counted + count_seconds(passed, worked, queued)
        if passed >= self.step_seconds:
            self._counted, self._looked_at, self._active = counted, now, active
        return counted


def count_seconds(passed: float, worked: float, queued: float) -> float:
    """Count how much of the time that passed is the process's own, all in seconds.

    Args:
        worked, queued: how long a process had a core, and how long it was ready but had none,
            seconds.
    """
    least = IDLE_SHARE * passed
    is_idle = worked + queued < least
    return passed if is_idle else min(passed, max(worked, least))


def read_active(pid: int | None) -> tuple[float, float]:
    """Read the CPU seconds of a process, and those that its first thread queued for a core.

    Zeros where there is none, so that all time counts.
    """
    if pid is None:
        return 0.0, 0.0
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0, 0.0
    return float(times.user + times.system), _read_queued(pid)


def _read_queued(pid: int) -> float:
    """Read how long a process's first thread was ready and not run, s; 0 if unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
