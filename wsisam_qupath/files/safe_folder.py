"""Files below a folder that somebody else may have filled: no link in it is ever followed.

A project that was received may hold links, pipes or devices where this program expects files of
its own. To look first and open by name afterwards would leave a moment in which a name is given to
something else. So each folder on the way is opened by its handle, without following links, and
what was opened is looked at by its handle too.

On Windows, where Python opens nothing relative to a handle, each part of a path is looked at by
name right before its use.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .ordinary import NOT_A_FILE, open_checked, read_all

_HAS_HANDLES = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")

_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_REPARSE_POINT: int = getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0x400)

_BLOCK_BYTES = 1 << 20

IS_A_LINK = "it is a link, and links in here are not followed"
"""Reason of the ``OSError`` with ``errno.ELOOP``."""


@dataclass(frozen=True)
class SafeFolder:
    """A folder that may itself be reached by a link, and the files below it, which may not.

    Paths that are handed over are absolute, below :attr:`root`, and hold no ``..``. All methods
    raise ``OSError``; its reason is :data:`IS_A_LINK` where a link stands in the way, and
    :data:`.ordinary.NOT_A_FILE` where something other than an ordinary file does.

    Attributes:
        root: absolute path of the folder.
    """

    root: Path

    def open(self, path: Path) -> BinaryIO:
        """Open an ordinary file for reading."""
        return self._opened(path, os.O_RDONLY, "rb")

    def read(self, path: Path, *, bytes_max: int | None = None) -> bytes:
        """Read the content of an ordinary file.

        Args:
            bytes_max: larger files are refused with ``errno.EFBIG`` before anything is read.
        """
        with self.open(path) as file:
            return read_all(file, bytes_max)

    def read_if_there(self, path: Path) -> bytes | None:
        """Read the content of an ordinary file; None if there is no such file."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def append(self, path: Path) -> io.FileIO:
        """Open a file for appending without a buffer; it and its folders are made if needed.

        A file that has a second name elsewhere (a hard link) is refused.
        """
        self.make_folder(path.parent)
        file = io.FileIO(self._handle(path, os.O_CREAT | os.O_RDWR | os.O_APPEND), "ab")
        if os.fstat(file.fileno()).st_nlink > 1:
            file.close()
            raise OSError(errno.EMLINK, "it has a second name, a hard link, elsewhere", str(path))
        return file

    def create(self, path: Path) -> BinaryIO:
        """Open a new file for writing; whatever has its name is removed first."""
        self.remove(path)
        return self._opened(path, _NEW_FILE, "wb")

    def write_synced(self, path: Path, content: bytes) -> None:
        """Write a new file through to the disk: it survives a power cut."""
        with self.create(path) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def write_atomically(self, path: Path, content: bytes, *, mode: int | None = None) -> None:
        """Write a file whole or not at all; a link of that name is replaced.

        Args:
            mode: permissions; None is those of the file that is replaced, or the usual ones.
        """
        unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
        if mode is None:
            with suppress(OSError):
                mode = stat.S_IMODE(self.state(path).st_mode)
        try:
            with self.create(unfinished) as file:
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.replace(unfinished, path)
        except BaseException:
            with suppress(OSError):
                self.remove(unfinished)
            raise

    def write_new(self, path: Path, content: bytes) -> None:
        """Write a new file whole or not at all; ``FileExistsError`` where its name is taken."""
        unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            self.write_synced(unfinished, content)
            self._name_new(unfinished, path)
        finally:
            with suppress(OSError):
                self.remove(unfinished)

    def _name_new(self, source: Path, target: Path) -> None:
        """Give a file a name that nothing has, in the same folder."""
        with self._place(source) as (folder, name):
            new = target.name if folder is not None else str(target)
            try:
                os.link(name, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                raise
            except (OSError, NotImplementedError):  # a drive without hard links, such as exFAT
                if self.is_there(target):
                    raise FileExistsError(errno.EEXIST, "its name is taken", str(target)) from None
                self.replace(source, target)

    def copy_synced(self, source: Path, target: Path) -> None:
        """Copy a file to a new one, through to the disk."""
        with self.open(source) as read, self.create(target) as written:
            shutil.copyfileobj(read, written, _BLOCK_BYTES)
            written.flush()
            os.fsync(written.fileno())

    def sync(self, path: Path) -> None:
        """Write what another program wrote through to the disk."""
        with self._opened(path, os.O_RDWR, "rb+") as file:
            os.fsync(file.fileno())

    def sync_folder(self, folder: Path) -> None:
        """Make renamed files survive a power cut, on platforms that can."""
        if os.name == "nt":
            return
        with suppress(OSError), self._folder(folder) as handle:  # some network drives refuse it
            if handle is not None:
                os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file over another one of the same folder."""
        assert source.parent == target.parent, (source, target)
        with self._place(source) as (folder, name):
            new = target.name if folder is not None else str(target)
            os.replace(name, new, src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, path: Path) -> None:
        """Remove a file or a link, if there is one."""
        with suppress(FileNotFoundError), self._place(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def state(self, path: Path) -> os.stat_result:
        """Read size, time and mode of an ordinary file or a folder."""
        if path == self.root:
            return path.stat()
        with self._place(path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if _is_link(found):
                raise _link_error(path)
            return found

    def is_there(self, path: Path) -> bool:
        """Whether anything has that name, including links that lead nowhere.

        What stands behind a link is not there: to look for it raises.
        """
        try:
            with self._place(path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def check(self, path: Path) -> None:
        """Check that no link is on the way to a path, which need not exist.

        For libraries that want a name; what they then open may be another thing.
        """
        with suppress(FileNotFoundError):
            self.state(path)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, if they are not there."""
        inner = self.root
        for part in self._parts(folder):
            inner = inner / part
            with self._place(inner) as (handle, name), suppress(FileExistsError):
                os.mkdir(name, dir_fd=handle)
        with self._folder(folder):  # what was there may be a link
            pass

    def file_names(self, folder: Path) -> list[str]:
        """List the names of the ordinary files in a folder; none if there is no such folder."""
        try:
            with (
                self._folder(folder) as handle,
                os.scandir(folder if handle is None else handle) as found,
            ):
                return [one.name for one in found if one.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def _opened(self, path: Path, flags: int, mode: str) -> BinaryIO:
        return os.fdopen(self._handle(path, flags), mode)  # type: ignore[return-value]

    def _handle(self, path: Path, flags: int) -> int:
        with self._place(path) as (folder, name):
            try:
                return open_checked(name, flags | _NO_FOLLOW, dir_fd=folder)
            except OSError as exc:
                if exc.errno in (errno.ELOOP, errno.EMLINK) or self._names_link(folder, name):
                    raise _link_error(path) from exc
                raise OSError(exc.errno, exc.strerror, str(path)) from exc

    @contextmanager
    def _place(self, path: Path) -> Iterator[tuple[int | None, str]]:
        """Open the folder of a path, and give the name in it; without handles, the path."""
        with self._folder(path.parent) as folder:
            if folder is None:
                _refuse_link(path)
            yield folder, path.name if folder is not None else str(path)

    @contextmanager
    def _folder(self, folder: Path) -> Iterator[int | None]:
        """Open the handle of a folder; None on systems without such handles."""
        parts = self._parts(folder)
        if not _HAS_HANDLES:
            for depth in range(len(parts)):
                _refuse_link(self.root.joinpath(*parts[: depth + 1]))
            yield None
            return
        handle = os.open(self.root, _FOLDER & ~_NO_FOLLOW)
        try:
            for depth, part in enumerate(parts):
                handle = self._inner(handle, part, parts[: depth + 1])
            yield handle
        finally:
            os.close(handle)

    def _parts(self, folder: Path) -> tuple[str, ...]:
        """Split the way from the root to a folder into names."""
        own, parts = self.root.parts, folder.parts
        if parts[: len(own)] == own:  # nearly always, and quick: asked a hundred times per image
            parts = parts[len(own) :]
        else:  # Windows spells one name in several ways
            inside = folder.is_relative_to(self.root)
            parts = folder.relative_to(self.root).parts if inside else ("..",)
        if ".." in parts:
            raise OSError(errno.EINVAL, f"it is not in {self.root}", str(folder))
        return parts

    def _inner(self, outer: int, name: str, parts: tuple[str, ...]) -> int:
        """Open the handle of a folder inside another one, and close the other one.

        Args:
            parts: the names that lead from the root to that folder.
        """
        try:
            inner = os.open(name, _FOLDER, dir_fd=outer)
        except OSError as exc:
            path = self.root.joinpath(*parts)
            # Linux calls a link that is opened as a folder no folder.
            if exc.errno in (errno.ELOOP, errno.EMLINK) or self._names_link(outer, name):
                raise _link_error(path) from exc
            raise OSError(exc.errno, exc.strerror, str(path)) from exc
        os.close(outer)
        return inner

    @staticmethod
    def _names_link(folder: int | None, name: str) -> bool:
        try:
            return _is_link(os.stat(name, dir_fd=folder, follow_symlinks=False))
        except OSError:
            return False


def name_of_open(file: BinaryIO, path: Path) -> Path:
    """Find a name by which a library in this process opens the very file that is open.

    Args:
        path: its own name; returned on systems that have no other.
    """
    handle = file.fileno()
    for folder in ("/proc/self/fd", "/dev/fd"):
        name = Path(folder, str(handle))
        with suppress(OSError):
            if os.path.samestat(name.stat(), os.fstat(handle)):
                return name
    return path


def is_refusal(exc: OSError) -> bool:
    """Whether an error says that the path is something other than an ordinary file."""
    return exc.strerror in (IS_A_LINK, NOT_A_FILE)


def _refuse_link(path: Path) -> None:
    with suppress(FileNotFoundError):
        if _is_link(path.stat(follow_symlinks=False)):
            raise _link_error(path)


def _is_link(state: os.stat_result) -> bool:
    """Whether a path is a link or what Windows calls a junction."""
    return stat.S_ISLNK(state.st_mode) or bool(
        getattr(state, "st_file_attributes", 0) & _REPARSE_POINT
    )


def _link_error(path: Path) -> OSError:
    return OSError(errno.ELOOP, IS_A_LINK, str(path))
