"""What counts as the time of a process: its work and its waiting, but not its queue for a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from wsisam_qupath.qupath.jvm.work_time import WorkTime, count_seconds, read_active

WORKING = "print(flush=True)\nwhile True: pass"


@pytest.mark.parametrize(
    ("worked", "queued", "counted"),
    [
        (0.0, 0.0, 10.0),  # it hangs, or waits for a disk
        (0.05, 0.0, 10.0),  # nearly
        (10.0, 0.0, 10.0),
        (4.0, 6.0, 4.0),  # beside others
        (0.0, 10.0, 0.2),  # it gets no core at all: fifty times as long
        (14.0, 0.0, 10.0),  # in several threads
    ],
)
def test_work_counts_and_a_queue_for_a_core_does_not(
    worked: float, queued: float, counted: float
) -> None:
    assert count_seconds(10.0, worked, queued) == pytest.approx(counted)


def test_the_work_of_a_process_is_read() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKING], stdout=subprocess.PIPE) as child:
        while read_active(child.pid)[0] < 0.3:  # however busy the machine is
            time.sleep(0.01)
        child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a process queued")
def test_how_long_a_process_queued_is_read() -> None:
    count = 2 * (os.cpu_count() or 1)
    children = [
        subprocess.Popen([sys.executable, "-c", WORKING], stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        while all(read_active(child.pid)[1] < 0.1 for child in children):
            time.sleep(0.01)
        assert max(read_active(child.pid)[1] for child in children) >= 0.1
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_before_a_process_begins_all_time_counts() -> None:
    used = WorkTime(lambda: None, 1.0)
    time.sleep(0.3)

    assert used.look() >= 0.3
