"""The lock of a project: one command at a time may write into it."""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, ProjectError, escape
from ..files.formats import LOCK_HOLDER
from ..qupath.files.entries import Project
from ..qupath.files.integrity import check_writable_project
from ..qupath.files.json_text import SUMMARY_BYTES_MAX, as_object, parse

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCK = "lock"
_HOLDER = "lock.json"
_UNKNOWN = {"pid": "?", "host": "an unknown computer", "since": "an unknown time"}

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems that cannot lock files."""


@contextmanager
def project_lock(project: Project, *, what: str) -> Iterator[None]:
    """Hold the lock of a project against other processes, on all computers that share it.

    The operating system holds the lock, in ``wsisam-qupath/lock``; it ends with this process,
    however that ends, so a lock is never left behind. The file itself stays: removing it could
    break the lock of a process that is waiting for it. QuPath does not know the lock.

    On a file system without locks, a file serves as the lock by its existence. It stays after a
    kill, and the message says which file to delete.

    Args:
        what: name of the command, for the message that other processes get.

    Raises:
        ProjectError: another process has it, or the project cannot be written (in which case
            nothing is left in it).
    """
    check_writable_project(project)
    folder = project.own_folder
    is_new = not os.path.lexists(folder)
    try:
        lock = _acquire(project)
        try:
            _write_holder(project, what)
        except OSError:
            lock.release()
            raise
    except OSError as exc:
        if is_new:
            _remove(folder)
        raise ProjectError(
            f"The project {project.path} cannot be locked in {folder} ({exc.strerror or exc}): "
            "check its permissions and the free space on its disk."
        ) from exc
    try:
        yield
    finally:
        with suppress(OSError):  # the drive is gone, and the lock with it
            project.files.remove(folder / _HOLDER)
            lock.release()


def _acquire(project: Project) -> BaseFileLock:
    """Acquire the lock.

    Raises:
        ProjectError: another process holds it.
        OSError: the lock file cannot be made.
    """
    from filelock import FileLock, SoftFileLock, Timeout  # not for `--help`

    path = project.own_folder / _LOCK
    # The library opens it by its name, and all versions of it for Python 3.10 empty what they find.
    project.files.append(path).close()
    lock: BaseFileLock = FileLock(path, timeout=0, thread_local=False)
    try:
        try:
            with warnings.catch_warnings():  # filelock says that it uses the other kind
                warnings.simplefilter("ignore")
                lock.acquire()
        except (NotImplementedError, OSError) as exc:
            if isinstance(exc, Timeout) or getattr(exc, "errno", errno.ENOSYS) not in _NO_LOCKS:
                raise
            lock = SoftFileLock(path.with_suffix(".file"), timeout=0, thread_local=False)
            lock.acquire()
    except Timeout as exc:
        raise ProjectError(_describe_holder(project, lock)) from exc
    return lock


def _write_holder(project: Project, what: str) -> None:
    holder = {
        **LOCK_HOLDER.stated,
        "what": what,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }
    path = project.own_folder / _HOLDER
    project.files.write_atomically(path, json.dumps(holder).encode("ascii"))


def _describe_holder(project: Project, lock: BaseFileLock) -> str:
    """Describe which process holds the lock, as far as its file says."""
    from filelock import SoftFileLock

    try:
        content = project.files.read(project.own_folder / _HOLDER, bytes_max=SUMMARY_BYTES_MAX)
        holder = as_object(parse(content))
        LOCK_HOLDER.check(project.own_folder / _HOLDER, holder)
    except (OSError, ValueError):
        holder = {}
    except FormatError:
        holder = {"what": "program, of a newer version than this,"}
    said = {key: escape(str(value), 100) for key, value in holder.items()}
    who = "process {pid} on {host}, since {since}".format_map({**_UNKNOWN, **said})
    after_a_kill = ""
    if isinstance(lock, SoftFileLock):
        after_a_kill = f" If that process no longer exists, delete {lock.lock_file}."
    return (
        f"Another {said.get('what', 'process')} works on {project.path} ({who}): wait until it is "
        f"done, or end it.{after_a_kill}"
    )


def _remove(folder: Path) -> None:
    """Remove a lock file that was just created."""
    with suppress(OSError):
        for name in (_HOLDER, _LOCK):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
