"""What the server asks of the operating system for its own process."""

import platform
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc"),
]

_ANSWER_IN_MANY_THREADS = """
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil

from wsisam_qupath.server.system_limits import return_freed_memory

ROUNDS, AT_ONCE, KEPT, MIB = 80, 4, 40, 1 << 20
if {returns}:
    return_freed_memory()
cache = deque(maxlen=KEPT)
sizes = random.Random(0)


def answer(_):
    passing = [np.ones(sizes.randrange(50_000, 900_000), np.float32) for _ in range(6)]
    small = [bytes(sizes.randrange(1_000, 60_000)) for _ in range(50)]
    cache.append((np.ones(4 * MIB, np.uint8), np.ones(5 * MIB // 2, np.uint8), small[:3]))


before = psutil.Process().memory_info().rss
with ThreadPoolExecutor(40) as threads:
    for _ in range(ROUNDS):
        list(threads.map(answer, range(AT_ONCE)))
    held = sum(array.nbytes for one in cache for array in one[:2])
    print((psutil.Process().memory_info().rss - before) / held)
"""
"""Prints the memory that is taken, as a share of what embeddings in a cache hold of it."""


def measure_share(*, returns: bool) -> float:
    """Memory that a process takes while requests in many threads fill a cache of embeddings."""
    program = _ANSWER_IN_MANY_THREADS.format(returns=returns)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_memory_of_embeddings_that_were_dropped_goes_back_to_the_system() -> None:
    assert measure_share(returns=True) < min(1.3, measure_share(returns=False))
