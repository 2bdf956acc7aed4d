"""Keep freed memory in the process while it trains."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt, of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

_NEVER = 2**31 - 1
_USUAL_BYTES, _USUAL_BLOCKS = 128 << 10, 65536


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory for the next tensors, for the time of the body.

    A step allocates and frees tensors of 4 to 64 MiB by the hundred. glibc returns each to the
    system, which clears every page of the next one. Other C libraries are
    left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    mallopt = libc.mallopt
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, _USUAL_BLOCKS)
        mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
        mallopt(_TRIM_THRESHOLD, _USUAL_BYTES)
        libc.malloc_trim(0)
