"""Checks that the files of a project are intact, unchanged and writable, without Java.

QuPath reads a damaged ``data.qpdata`` as an image without objects and says so in its log only;
what is then saved overwrites months of work. Hence these looks before and after every reading.
"""

from __future__ import annotations

import mmap
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from ...errors import FormatError, ImageError, ProjectError, escape
from ...files import IS_A_LINK, SafeFolder, is_refusal
from .backups import list_backups
from .entries import ImageEntry, Project
from .json_text import PROJECT_BYTES_MAX, SUMMARY_BYTES_MAX, as_object, parse

_JAVA_HEAD = b"\xac\xed\x00\x05"
"""First bytes of every Java serialization."""

_QUPATH_TAIL = b"t\x00\x03EOF"
"""Last bytes that QuPath writes: the string "EOF"."""

_ANY_OBJECT = b"r\x00\x20qupath.lib.objects.PathROIObject"
"""Name of the class of all objects but the root, as Java writes it."""

_NOTES = Path("data") / "metadata.json"
"""QuPath's notes on the project, below its folder; it can do without them, but not with damaged
ones."""

_LEAST_FREE_BYTES = 4 << 20
"""Free space for lock, journal, history and summaries; each image needs its own space besides."""

_COPIES = 2
"""Copies of a ``data.qpdata`` while it is replaced: the backup and the new one."""


@dataclass(frozen=True)
class FileVersion:
    """The state of a file, to detect that it changed."""

    mtime_ns: int
    size_bytes: int


@dataclass(frozen=True)
class FileVersions:
    """States of the files that must not change between reading and writing an image.

    Attributes:
        project: state of the ``.qpproj``; None if QuPath has it open, and may save it at any time.
        qpdata: state of the image's ``data.qpdata``; None while there is none.
    """

    project: FileVersion | None
    qpdata: FileVersion | None


def read_versions(
    project: Project, entry: ImageEntry, *, with_project: bool = True
) -> FileVersions:
    """Read the current states of the files of a project and an image.

    Args:
        with_project: False if QuPath has the project open: saving it, QuPath changes nothing that
            an image's objects depend on, and takes the file away for a moment.

    Raises:
        ProjectError: the project is gone, or either cannot be looked at (ImageError for the image).
    """
    try:
        stamp = _make_version(project.path.stat()) if with_project else None
    except OSError as exc:
        raise ProjectError(
            f"The project {project.path} is no longer there ({exc.strerror}): was it moved, or its "
            "drive taken away?"
        ) from exc
    try:
        return FileVersions(stamp, read_data_version(entry))
    except OSError as exc:
        raise _make_unreadable_error(entry, exc) from exc


def read_data_version(entry: ImageEntry) -> FileVersion | None:
    """Read the state of an image's ``data.qpdata`` as it is now; None if there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        return _make_version(entry.files.state(entry.qpdata))
    except FileNotFoundError:
        return None


def _make_version(state: os.stat_result) -> FileVersion:
    return FileVersion(state.st_mtime_ns, state.st_size)


def check_data(entry: ImageEntry) -> int | None:
    """Check that the objects of an image can be read, without reading them.

    Returns:
        How many objects ``summary.json`` states, with the root; None where it states none. An
        image that was never opened has neither file.

    Raises:
        ImageError: ``data.qpdata`` is damaged or gone, or QuPath was stopped while it saved.
    """
    stated = read_stated_count(entry, entry.summary)
    leftover = entry.folder / "data.qpdata.bkp"
    if os.path.lexists(leftover):
        raise ImageError(
            f"{_name(entry)}: QuPath was stopped while it saved the image, for {leftover} is still "
            "there. Open the image in QuPath, look whether its objects are right, and save it."
        )
    try:
        damage = _damage(entry)
    except FileNotFoundError as exc:
        if stated is not None and stated > 1:
            raise ImageError(
                f"{_name(entry)}: {entry.qpdata} is gone, but {entry.summary.name} counts {stated} "
                f"objects in it. Put back {_copy(entry)}."
            ) from exc
        return stated
    except OSError as exc:
        raise _make_unreadable_error(entry, exc) from exc
    if damage:
        raise ImageError(f"{_name(entry)}: {entry.qpdata} {damage}. Put back {_copy(entry)}.")
    return stated


def check_count(entry: ImageEntry, stated: int | None, loaded: int) -> None:
    """Check that all objects of an image were read.

    Args:
        stated: number of objects that :func:`check_data` returned.
        loaded: number of objects that QuPath read, with the root.

    Raises:
        ImageError: it read other objects than there are.
    """
    if stated is not None and stated != loaded:
        raise ImageError(
            f"{_name(entry)}: {entry.qpdata} reads as {loaded} objects, but {entry.summary.name} "
            f"counts {stated}. Open the image in QuPath and save it if its objects are right, else "
            f"put back {_copy(entry)}."
        )
    if stated is None and loaded <= 1 and _holds_objects(entry):
        raise ImageError(
            f"{_name(entry)}: {entry.qpdata} holds objects, but reads as if it held none. Open the "
            f"image in QuPath and save it if its objects are right, else put back {_copy(entry)}."
        )


def read_stated_count(entry: ImageEntry, summary: Path) -> int | None:
    """Read how many objects a summary of an image states, with the root; None without a number.

    Raises:
        ImageError: it is no ordinary file.
    """
    try:
        content = as_object(parse(entry.files.read(summary, bytes_max=SUMMARY_BYTES_MAX)))
    except OSError as exc:
        if is_refusal(exc):
            raise _make_unreadable_error(entry, exc, summary) from exc
        return None
    except ValueError:
        return None
    count = as_object(content.get("hierarchy")).get("nObjects")
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _damage(entry: ImageEntry) -> str | None:
    """Describe what is wrong with ``data.qpdata``; None if it looks whole."""
    with entry.files.open(entry.qpdata) as file:
        head = file.read(len(_JAVA_HEAD))
        size = file.seek(0, os.SEEK_END)
        if not size:
            return "is empty"
        if head != _JAVA_HEAD:
            return "is not what QuPath writes"
        file.seek(max(0, size - len(_QUPATH_TAIL)))
        return None if file.read() == _QUPATH_TAIL else "is cut short"


def _holds_objects(entry: ImageEntry) -> bool:
    """Whether ``data.qpdata`` has any object besides the root, even if it is damaged."""
    try:
        with (
            entry.files.open(entry.qpdata) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(_ANY_OBJECT) >= 0
    except (FileNotFoundError, ValueError):  # ValueError: an empty file
        return False
    except OSError as exc:
        raise _make_unreadable_error(entry, exc) from exc


def _copy(entry: ImageEntry) -> str:
    """Name the copy of an image's objects that the user can put back."""
    try:
        copies = list_backups(entry)
    except (OSError, FormatError):  # a folder may be entered that may not be listed
        copies = []
    if copies:
        return f"a copy of it: {copies[-1].path.name} in the same folder, or a backup of yours"
    return "a copy of it from a backup of yours"


def _make_unreadable_error(entry: ImageEntry, exc: OSError, path: Path | None = None) -> ImageError:
    return ImageError(
        f"{_name(entry)}: {path or entry.qpdata} cannot be read ({exc.strerror}): check that it is "
        "a file of its own that you may read."
    )


def _name(entry: ImageEntry) -> str:
    return escape(entry.name)


def find_damaged_notes(files: SafeFolder, folder: Path) -> Path | None:
    """Find the damaged file, if any, with which QuPath cannot open a project.

    Args:
        folder: folder of the project.

    Returns:
        ``data/metadata.json`` if it is there and is no JSON object, as when it is empty.
    """
    path = folder / _NOTES
    try:
        content = parse(files.read(path, bytes_max=PROJECT_BYTES_MAX))
    except OSError:
        return None
    except ValueError:
        return path
    return None if isinstance(content, dict) else path


def check_writable_project(project: Project) -> None:
    """Check that a project can be opened by QuPath and be written, without touching it.

    A project that its owner marked as read-only stays untouched even for those whom the system
    would let write.

    Raises:
        ProjectError: something of it is write-protected, or its disk is full.
    """
    damaged = find_damaged_notes(project.files, project.folder)
    if damaged is not None:
        raise ProjectError(
            f"QuPath cannot open the project {project.path}, for it was stopped while it wrote "
            f"{damaged}. Delete that file: it holds notes on the project as a whole, and neither "
            "images nor objects."
        )
    folders = (project.folder, project.folder / "data", project.own_folder)
    files = (project.path, project.folder / "classifiers" / "classes.json")
    for path in (*folders, *files):
        if path != project.path and _is_link(project.files, path):
            raise ProjectError(
                f"The project {project.path} cannot be written, for {path} is a link: links in a "
                "project are not followed. Put what it leads to in its place."
            )
        if _is_protected(path):
            raise ProjectError(
                f"The project {project.path} cannot be written, for {path} is write-protected: "
                "change its permissions, or work on a copy of the project."
            )
    free = _free_bytes(project.folder)
    if free < _LEAST_FREE_BYTES:
        raise ProjectError(
            f"The disk of the project {project.path} is full ({free >> 10} kB are free): free some "
            "space on it."
        )


def check_writable_image(entry: ImageEntry) -> None:
    """Check that the objects of an image can be written, and that the disk has room for them.

    Raises:
        ImageError: they are write-protected or in no folder, or the disk is too full for them.
    """
    for path in (entry.folder, entry.qpdata, entry.summary):
        if _is_link(entry.files, path):
            raise ImageError(
                f"{_name(entry)}: {path} is a link, and links in a project are not followed: put "
                "what it leads to in its place."
            )
        if _is_protected(path):
            raise ImageError(
                f"{_name(entry)}: {path} is write-protected: change its permissions, or leave the "
                "image out."
            )
    try:
        size = entry.files.state(entry.qpdata).st_size
    except FileNotFoundError:
        size = 0
    except OSError as exc:  # as where the image's folder is a pipe
        raise _make_unreadable_error(entry, exc) from exc
    needed = _LEAST_FREE_BYTES + _COPIES * size
    existing = entry.folder if entry.folder.is_dir() else entry.folder.parent.parent
    free = _free_bytes(existing)
    if free < needed:
        raise ImageError(
            f"{_name(entry)}: saving it needs {needed >> 20} MB on the project's disk, of which "
            f"{free >> 20} MB are free: free some space on it."
        )


def _is_link(files: SafeFolder, path: Path) -> bool:
    """Whether a file or folder is a link, or is reached by one."""
    try:
        files.check(path)
    except OSError as exc:
        return exc.strerror == IS_A_LINK
    return False


def _is_protected(path: Path) -> bool:
    """Whether the system or its mode protects a file or folder against changes."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    is_folder = stat.S_ISDIR(mode)
    if not os.access(path, os.W_OK | os.X_OK if is_folder else os.W_OK):
        return True
    # the flag means something else for folders of Windows
    return not mode & 0o222 and not (os.name == "nt" and is_folder)


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError as exc:
        raise ProjectError(
            f"The project's folder {folder} cannot be looked at ({exc.strerror}): is its drive "
            "still there?"
        ) from exc
