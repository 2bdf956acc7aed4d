"""Files, one per running server, in which clients on this machine find URL and token.

The file of a server is its own, ``~/.wsisam-qupath/servers/<process>.json`` unless its user names
another one, so that a server that stops takes nobody else's away.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import FormatError
from ..files import read_file, write_atomically
from ..files.formats import CONNECTION
from .schemas import PROTOCOL

OWN_FOLDER = Path("~/.wsisam-qupath")
"""Folder of private files of a user's servers."""

_BYTES_MAX = 64 << 10

_SAME_START_SECONDS = 2.0
"""Largest difference of start times of one process, seconds; a larger one means another process
with its number."""


@contextmanager
def connection_file(path: Path | None, url: str, token: str) -> Iterator[None]:
    """Keep a connection file while the body runs; nothing if there is no path.

    Raises:
        OutputError: it cannot be written.
    """
    if path is None:
        yield
        return
    about = {
        **CONNECTION.stated,
        "protocol": PROTOCOL,
        "url": url,
        "token": token,
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "version": __version__,
    }
    content = f"{json.dumps(about, indent=2)}\n".encode("ascii")
    write_atomically(path, content, private=True)
    try:
        yield
    finally:
        with suppress(OSError):
            if read_file(path, bytes_max=_BYTES_MAX) == content:  # else it is another server's
                path.unlink()


def remove_stale(folder: Path) -> None:
    """Remove the files of killed servers of this machine; the others stay.

    So do those of a newer version of this program.
    """
    with suppress(OSError):
        for path in folder.glob("*.json"):
            with suppress(OSError, ValueError, RecursionError, FormatError):
                if _is_stale(path, json.loads(read_file(path, bytes_max=_BYTES_MAX))):
                    path.unlink()


def _is_stale(path: Path, about: Any) -> bool:
    """Whether a server of this machine no longer runs; a home folder may be shared with others."""
    if not isinstance(about, dict) or about.get("host") != socket.gethostname():
        return False
    CONNECTION.check(path, about)
    pid, started = about.get("pid"), about.get("started")
    if not isinstance(pid, int) or not isinstance(started, (int, float)):
        return False
    now = _started(pid)
    return now is None or abs(now - started) > _SAME_START_SECONDS


def _started(pid: int) -> float | None:
    """Find when a process began, seconds since 1970; None if there is none."""
    import psutil  # not for `--help`

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None
