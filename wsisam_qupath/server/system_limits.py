"""Limits that the server asks the operating system to set for its own process."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress

_OPEN_FILES = 8_192
"""Open files that the process asks for: each connection takes one, and many systems give a process
a thousand unless it asks."""

_M_MMAP_THRESHOLD = -3
"""glibc's number of the parameter (``malloc.h``): size from which a block comes from the system by
itself."""

_LARGE_BLOCK_BYTES = 1 << 20
"""That size here: below the arrays of an embedding, above those of a click, which would be slowed
down."""


def allow_open_files() -> None:
    """Ask the system to allow this process as many open files as a busy server needs."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def return_freed_memory() -> None:
    """Make large blocks of memory return to the system as soon as they are freed.

    That is what glibc does at first. But with each such block it raises the size from which it
    does so, up to 32 MiB, and later embeddings then lie among smaller blocks in the heaps of
    many threads, which keep their size when an embedding is dropped. Other C libraries are left
    as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
