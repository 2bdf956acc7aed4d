"""What counts as the time of a process: its work and its waiting, but not its queue for a core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from wsisam_qupath.qupath.jvm.work_time import WorkTime

WORKING = "print(flush=True)\nwhile True: pass"
SLEEPING = "import time; print(flush=True); time.sleep(600)"


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has begun to run this code."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.communicate()


def look_until(used: WorkTime, seconds: float) -> float:
    """Look every step until so much time has passed; what was counted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(used.step_seconds)
        counted = used.look()
    return counted


def test_time_in_which_a_process_does_nothing_counts_as_it_passes() -> None:
    with process(SLEEPING) as child:
        begun = time.monotonic()
        counted = look_until(WorkTime(lambda: child.pid, 1.0), 1.0)

        assert counted == pytest.approx(time.monotonic() - begun, abs=0.1)


def test_time_in_which_it_works_counts_as_what_it_worked() -> None:
    with process(WORKING) as child:
        worked_before = sum(psutil.Process(child.pid).cpu_times()[:2])
        used = WorkTime(lambda: child.pid, 5.0)
        counted = look_until(used, 2.0)
        worked = sum(psutil.Process(child.pid).cpu_times()[:2]) - worked_before

        # The rest is what others kept it waiting.
        assert counted == pytest.approx(worked, abs=0.3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a process queued")
def test_a_process_that_queues_for_a_core_does_not_hang() -> None:
    count = 4 * (os.cpu_count() or 1)
    with ExitStack() as held:
        children = [held.enter_context(process(WORKING)) for _ in range(count)]
        os.setpriority(os.PRIO_PROCESS, children[0].pid, 19)
        used = WorkTime(lambda: children[0].pid, 5.0)
        counted = look_until(used, 4.0)

        assert counted < 1.0


@pytest.mark.skipif(os.name == "nt", reason="stops a process by a signal")
def test_a_process_that_gets_less_of_a_core_has_longer() -> None:
    with process(WORKING) as child:
        used = WorkTime(lambda: child.pid, 10.0)
        begun = time.monotonic()
        for _ in range(6):  # half of each step, as beside another process on its core
            child.send_signal(signal.SIGSTOP)
            time.sleep(used.step_seconds / 2)
            child.send_signal(signal.SIGCONT)
            time.sleep(used.step_seconds / 2)
            counted = used.look()

        assert counted < 0.7 * (time.monotonic() - begun)


def test_before_a_process_begins_and_after_it_ended_all_time_counts() -> None:
    used = WorkTime(lambda: None, 1.0)
    time.sleep(0.3)
    assert used.look() >= 0.3

    with process(SLEEPING) as child:
        used = WorkTime(lambda: child.pid, 1.0)
    time.sleep(0.3)
    assert used.look() >= 0.3
