"""Opens an unknown file first in a process that may crash.

Libraries for scanners' formats trust what a header says. One that runs out of memory ends its
process, and with it everything else that the process was doing.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import cachetools

from ..errors import SlideError

SECONDS_MAX = 120
"""Longest time to open a file, seconds: it takes below one, from a slow network drive longer."""

_REFUSED = 3
"""Exit status of the process if the library itself says that it cannot open the file."""

_found: cachetools.LRUCache[tuple[str, int, int], str | None] = cachetools.LRUCache(4096)
_LOCK = threading.Lock()


def check_opens(path: Path) -> None:
    """Whether OpenSlide opens a file and reads a corner of each level without harm; asked once.

    Where it says itself that it cannot, nothing is raised: the caller hears that from OpenSlide.

    Raises:
        SlideError: it crashed, took more than 4 GB, or had not ended in two minutes.
    """
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    with _LOCK:
        is_known = key in _found
        reason = _found.get(key)
    if not is_known:
        reason = _reason(path)
        with _LOCK:
            _found[key] = reason
    if reason is not None:
        raise SlideError(
            f"{path} cannot be opened: {reason}. It is damaged, or made to do harm: copy it again "
            "from its source, or export it from QuPath as OME-TIFF."
        )


def _reason(path: Path) -> str | None:
    command = [sys.executable, str(Path(__file__).with_name("probe_child.py")), str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"OpenSlide had not ended after {SECONDS_MAX} s"
    if done.returncode in (0, _REFUSED):
        return None
    return f"OpenSlide ends its process at it (status {done.returncode})"
