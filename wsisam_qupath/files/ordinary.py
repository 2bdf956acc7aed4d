"""Ordinary files and nothing else, checksums, atomic writes, and the cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import stat
import tempfile
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError

CACHE_VARIABLE = "WSISAM_QUPATH_CACHE"
"""Environment variable that names another cache folder."""

NOT_A_FILE = "it is not an ordinary file"
"""Reason of the ``OSError`` for a folder, a pipe, a socket or a device in place of a file."""

_BLOCK_BYTES = 1 << 20
_PID_DIGITS_MAX = 10

# Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))


def open_checked(name: str | os.PathLike[str], flags: int, *, dir_fd: int | None = None) -> int:
    """Open an ordinary file; anything else is refused without waiting for it.

    Args:
        flags: flags of ``os.open``.
        dir_fd: handle of the folder that the name is relative to.

    Returns:
        A file descriptor.

    Raises:
        OSError: it cannot be opened; with the reason :data:`NOT_A_FILE` where it is none.
    """
    handle = os.open(name, flags | _FLAGS, 0o666, dir_fd=dir_fd)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, NOT_A_FILE, os.fspath(name))


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open an ordinary file for reading. Links are followed.

    Raises:
        OSError: see :func:`open_checked`.
    """
    return os.fdopen(open_checked(path, os.O_RDONLY), "rb")


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """Check that a file is an ordinary one, for libraries that open it by name.

    Raises:
        OSError: see :func:`open_checked`.
    """
    os.close(open_checked(path, os.O_RDONLY))


def read_file(path: str | os.PathLike[str], *, bytes_max: int | None = None) -> bytes:
    """Read the content of an ordinary file.

    Args:
        bytes_max: larger files are refused before anything is read.

    Raises:
        OSError: see :func:`open_checked`; with ``errno.EFBIG`` where it is larger.
    """
    with open_file(path) as file:
        return read_all(file, bytes_max)


def read_all(file: BinaryIO, bytes_max: int | None = None) -> bytes:
    """Read the rest of an open file; see :func:`read_file`."""
    if bytes_max is None:
        return file.read()
    size = os.fstat(file.fileno()).st_size
    # One byte more, since a file may grow while it is read.
    content = b"" if size > bytes_max else file.read(bytes_max + 1)
    if max(size, len(content)) > bytes_max:
        raise OSError(errno.EFBIG, f"it is larger than {bytes_max >> 20} MiB", str(file.name))
    return content


def compute_sha256(path: Path) -> str:
    """Compute the SHA-256 of an ordinary file, 64 lower-case hex digits (0.05 s for 39 MB).

    Raises:
        OSError: the file cannot be read.
    """
    with open_file(path) as file:
        return sha256_of_open(file)


def sha256_of_open(file: BinaryIO) -> str:
    """Compute the SHA-256 of the rest of an open file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Find the folder for downloads and compiled models; it is not created here.

    The user's cache folder of the platform, unless ``WSISAM_QUPATH_CACHE`` names another one.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs  # 0.04 s, which `--help` need not spend

    return platformdirs.user_cache_path("wsisam-qupath", appauthor=False)


def process_folder(kind: str, owner: object, folder: Path | None = None) -> Path:
    """Make a folder for this process, after removing those of processes that were killed.

    Args:
        kind: beginning of the folder's name.
        owner: object that the folder is removed with, at the latest when this process ends in
            order.
        folder: where it is made; None is the cache, not the system's temporary folder, which some
            systems run no programs from.

    Raises:
        OSError: the folder that it is made in cannot be written.
    """
    import psutil  # not for `--help`

    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # Machines that share a home folder number their processes each for itself.
    prefix = f"{kind}-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"
    for path in folder.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and len(pid) < _PID_DIGITS_MAX and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=folder))
    weakref.finalize(owner, shutil.rmtree, made, ignore_errors=True)
    return made


def write_atomically(
    path: Path, content: bytes | Iterable[bytes], *, private: bool = False
) -> None:
    """Write a file whole or not at all; until the last moment the earlier file stays.

    Args:
        content: the bytes, whole or in pieces.
        private: whether only this user may read it.

    Raises:
        OutputError: it cannot be written there.
    """
    with open_atomically(path, private=private) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)


@contextmanager
def open_atomically(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that replaces a path when the body ends without an error.

    A link is followed: what it names is replaced, not the link.

    Args:
        private: whether only this user may read it.

    Raises:
        OutputError: it cannot be written there.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            # Not `chmod` afterwards: others could open it before.
            opener = partial(os.open, mode=0o600) if private else None
            with open(unfinished, "x+b", opener=opener) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be written ({exc.strerror or exc}). Choose another place for the "
            "output, or free space and permissions there."
        ) from exc


def make_folder(folder: Path, fix: str = "choose another folder") -> None:
    """Make a folder and its parents, if they are not there.

    Args:
        fix: what to do if that fails; ends the message.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be created ({exc.strerror}): {fix}.") from exc


def measure_folder_bytes(folder: Path) -> int:
    """Measure how many bytes the files in a folder and below it hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a result could be written, before the work starts. Changes nothing.

    Raises:
        OutputError: no such folder, no permission, or something else is there.
    """
    target = Path(os.path.realpath(path))
    try:
        target.exists()
    except OSError as exc:  # a name too long, or a folder that may not be entered
        raise OutputError(
            f"{path} cannot be written ({exc.strerror}): choose another name or folder."
        ) from exc
    if target.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{path} is not an ordinary file: name another one.")
    if not target.parent.is_dir():
        raise OutputError(f"There is no folder {target.parent}: create it, or name another one.")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} is write-protected: allow writing, or name another file.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {target.parent} is write-protected: choose one that you may write to."
        )


@contextmanager
def hold_alone(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes from doing the same work at the same time, wherever locks work.

    Args:
        path: path of the lock file, which is removed at the end.
        busy: message for the error raised if another process holds it.

    Raises:
        OutputError: another process holds it.
        OSError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # only where something is written

    lock = FileLock(path)
    try:
        # Some network drives have no locks.
        with suppress(NotImplementedError):
            lock.acquire(timeout=0)
    except Timeout as exc:
        raise OutputError(busy) from exc
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows it goes with the lock
            path.unlink()
        lock.release()
