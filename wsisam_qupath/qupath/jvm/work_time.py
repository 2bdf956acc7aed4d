"""Time limits that hold on a busy machine: what a process works counts, not how long it queues."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

IDLE_SHARE = 0.02
"""A process that gets less of a core waits for something else, or hangs; all of its time counts."""

_STEPS = 5
_STEP_SECONDS_MAX = 5.0
"""Work is compared with idleness in steps of this length, or in so many steps of a short limit."""


class WorkTime:
    """Seconds that another process has worked, or waited for anything but a core.

    On a machine with much else to do a process may get a tenth of a core, and take ten times as
    long for the same work. So a second in which it works counts as what it worked, and a second in
    which it does nothing as a second: a limit ends what hangs on time, and whatever works after
    1 / :data:`IDLE_SHARE` times the limit at the latest.

    Args:
        find_pid: finds the number of the process; None before it has begun.
        seconds_max: the limit that this time is compared with.

    Attributes:
        step_seconds: how often to look, at least.
    """

    def __init__(self, find_pid: Callable[[], int | None], seconds_max: float) -> None:
        self.step_seconds = min(_STEP_SECONDS_MAX, seconds_max / _STEPS)
        self._find_pid = find_pid
        self._counted = 0.0
        self._looked_at = time.monotonic()
        self._worked = self._read_worked()

    def look(self) -> float:
        """Seconds since the start, as described above; may be called as often as wanted."""
        now, worked = time.monotonic(), self._read_worked()
        passed, work = now - self._looked_at, worked - self._worked
        counted = self._counted + (min(passed, work) if work >= IDLE_SHARE * passed else passed)
        if passed >= self.step_seconds:
            self._counted, self._looked_at, self._worked = counted, now, worked
        return counted

    def _read_worked(self) -> float:
        """CPU seconds of the process; 0 where there is none, so that all time counts."""
        pid = self._find_pid()
        if pid is None:
            return 0.0
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)
