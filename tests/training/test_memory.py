"""Freed memory stays in the process while it trains, and returns to the system afterwards."""

from __future__ import annotations

import platform

import pytest

from fixtures.command_line import run_python

MEASURE = """
import numpy as np
import psutil
from wsisam_qupath_training.trainer.memory import keep_freed_memory

def measure_kept_mib():
    before = psutil.Process().memory_info().rss
    block = np.ones(64 << 20, np.uint8)
    del block
    return (psutil.Process().memory_info().rss - before) >> 20

with keep_freed_memory():
    kept = measure_kept_mib()
print(kept, measure_kept_mib())
"""
"""How much of a block of 64 MiB stays after it is freed, in a training and after it."""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept_for_the_time_of_a_training() -> None:
    kept, afterwards = map(int, run_python("-c", MEASURE).out.split())

    assert kept > 32
    assert afterwards < 32
