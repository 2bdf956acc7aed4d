"""The transaction that changes an image: after any failure it is entirely old or entirely new.

QuPath's process stages a whole new ``data.qpdata`` beside the one in use. Then, in this order::

    data-NUMBER-COMMAND-TIME.wsisam-backup2.*   verified copies of the data and its summary
    summary.json.wsisam-new                     the new summary: to rename it later takes no space
    data.qpdata.wsisam-commit                   the marker: what the image is about to become
    data.qpdata.wsisam-new -> data.qpdata   THE step; before it all is old, after it all is new
    summary.json.wsisam-new -> summary.json
    (the marker goes, then old backups, but never the first)

:func:`recover` finds out by checksum on which side of the step a kill fell, and finishes or undoes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import FormatError, ImageError, ProjectError, escape
from ..files.formats import COMMIT_MARKER
from ..qupath.files.backups import (
    Backup,
    back_up,
    compute_checksum,
    copy_synced,
    drop,
    find_present,
    list_backups,
    list_orphans,
    make_path_beside,
    make_unfinished_path,
    number_backups,
    prune,
)
from ..qupath.files.entries import ImageEntry, Project
from ..qupath.files.integrity import FileVersions, read_data_version, read_versions
from ..qupath.values import Staged

Recovery: TypeAlias = Literal["nothing", "finished", "undone"]

RESTORE = "restore"
"""Name of the command in backups that a restoration makes."""


@dataclass(frozen=True)
class _Marker:
    """Content of the marker file: what the image is about to become.

    Attributes:
        sha256, size_bytes: checksum and size of ``data.qpdata``; None if there is to be none.
        summary: text of ``summary.json``; None if there is to be none.
        backup: name of the copy of the earlier content; for people, nothing reads it.
    """

    sha256: str | None
    size_bytes: int | None
    summary: str | None
    backup: str | None


def make_staging_path(entry: ImageEntry) -> Path:
    """Give the path for staging the new ``data.qpdata`` of an image: on the same file system."""
    return make_path_beside(entry.qpdata, "new")


def commit(
    project: Project,
    entry: ImageEntry,
    staged: Staged,
    versions: FileVersions,
    *,
    command: str = "batch",
) -> Path | None:
    """Replace the objects of an image by the staged file and keep the old ones as a backup.

    Call :func:`recover` before staging, and hold the project's lock. A program that ignores the
    lock, such as QuPath, could still save between the last check of the versions and the step:
    some microseconds.

    Args:
        staged: file at :func:`make_staging_path`; it is gone afterwards in any case.
        versions: states of the image's files from when it was read.
        command: command that changes the image, for the list of its backups.

    Returns:
        Path of the backup, which is an older one if that is identical; None for an image without
        data.

    Raises:
        ImageError: the image was not changed; or it was, as the message says, and the next
            :func:`recover` finishes the change.
        ProjectError: the project is gone.
        FormatError: a newer version of this program made one of its backups.
    """
    assert staged.path == make_staging_path(entry), staged.path

    def refuse_if_changed() -> None:
        if read_versions(project, entry, with_project=versions.project is not None) != versions:
            raise _make_changed_error(entry)

    def summary() -> str:
        # QuPath states the time of the data's file, which renaming keeps.
        written_ms = entry.files.state(staged.path).st_mtime_ns // 1_000_000
        content = {"timestamp": written_ms, **staged.summary}
        return json.dumps(content, separators=(",", ":"))

    backup = _exchange(entry, staged.path, command, summary, refuse_if_changed)
    prune(entry)
    return backup.path if backup else None


def restore(entry: ImageEntry, number: int | None) -> Backup | None:
    """Restore a backup and its summary; the objects that it replaces become a new backup.

    Args:
        number: number of the backup; None takes an image back to having no data.

    Returns:
        The backup of what was there before, which is an older one if that is identical.

    Raises:
        ImageError, FormatError: as with :func:`commit`.
    """
    recover(entry)
    before = read_data_version(entry)
    with _translate_os_errors(entry, "cannot be written", "then run again"):
        kept = {one.number: one for one in number_backups(entry, list_backups(entry))}
    if number is not None and number not in kept:
        raise ImageError(f"Image {escape(entry.name)} has no backup {number}: list its backups.")
    wanted = None if number is None else kept[number]

    def refuse_if_changed() -> None:
        if read_data_version(entry) != before:
            raise _make_changed_error(entry)

    def summary() -> str | None:
        old = None if wanted is None else entry.files.read_if_there(wanted.summary)
        return None if old is None else old.decode("utf-8", "surrogateescape")

    source = wanted.path if wanted else None
    replaced = _exchange(entry, source, RESTORE, summary, refuse_if_changed)
    prune(entry, spare=wanted)
    return replaced


def recover(entry: ImageEntry) -> Recovery:
    """Finish or undo the change that a killed run left unfinished; quick if there is none.

    It decides by checksum alone: data other than what the marker announced stays as it is,
    whether it is the old data or was saved by QuPath since.

    Raises:
        ImageError: files of the image cannot be read, written or removed.
        FormatError: a newer version of this program left the change.
    """
    with _translate_os_errors(entry, "has an unfinished earlier change", "then run again"):
        if not entry.files.is_there(_make_marker_path(entry)):
            return "undone" if _tidy(entry) else "nothing"
        marker = _read_marker(entry)
        if marker is not None and _has_taken_place(entry, marker):
            _finish(entry, marker)
            return "finished"
        _tidy(entry)
        return "undone"


def _exchange(
    entry: ImageEntry,
    new: Path | None,
    command: str,
    summary: Callable[[], str | None],
    refuse_if_changed: Callable[[], None],
) -> Backup | None:
    """Run the transaction; return the backup.

    Args:
        new: staged file, or one to be staged; None if the image is to have no data.
        command: command that changes the image. :data:`RESTORE` keeps no second copy of what is
            kept.
        summary: makes the text of ``summary.json`` after staging; None for no such file.
        refuse_if_changed: raises ImageError if another program changed the image.
    """
    older: list[Backup] = []
    backup: Backup | None = None
    try:
        with _translate_os_errors(
            entry, "cannot be written", "then run again; nothing of it was changed"
        ):
            refuse_if_changed()
            if new is not None and new != make_staging_path(entry):
                copy_synced(entry, new, make_staging_path(entry))
            older = number_backups(entry, list_backups(entry))
            backup = find_present(entry, older) if command == RESTORE else None
            backup = backup or back_up(entry, older, command)
            marker = _announce(entry, new is not None, summary(), backup)
            refuse_if_changed()
            if new is None:
                entry.files.remove(entry.qpdata)
            else:
                entry.files.replace(make_staging_path(entry), entry.qpdata)
    except (ProjectError, FormatError):
        if not _settle(entry, None if backup in older else backup):
            raise
        return backup
    with _translate_os_errors(
        entry, "has its new objects, but the old summary.json", "then run again to finish it"
    ):
        _finish(entry, marker)
    return backup


def _settle(entry: ImageEntry, made: Backup | None) -> bool:
    """Clean up after an error; tell whether the step took place in spite of it.

    On a network drive a file may be renamed although the answer is an error.

    Args:
        made: the new backup, if there is one.
    """
    with suppress(
        ImageError, FormatError
    ):  # the error that led here says more; the next run tries again
        if recover(entry) == "finished":
            return True
        if made is not None:
            drop(entry, made)
    return False


def _announce(
    entry: ImageEntry, has_data: bool, summary: str | None, backup: Backup | None
) -> _Marker:
    """Write everything that the step needs to the disk, the marker last."""
    sha256, size_bytes = None, None
    if has_data:
        staged = make_staging_path(entry)
        entry.files.sync(staged)
        sha256, size_bytes = compute_checksum(entry, staged), entry.files.state(staged).st_size
    if summary is not None:
        _stage_summary(entry, summary)
    marker = _Marker(sha256, size_bytes, summary, backup.path.name if backup else None)
    unfinished = _make_unfinished_marker_path(entry)
    content = {**COMMIT_MARKER.stated, **vars(marker)}
    entry.files.write_synced(unfinished, json.dumps(content, indent=1).encode("ascii"))
    entry.files.replace(unfinished, _make_marker_path(entry))
    entry.files.sync_folder(entry.folder)
    return marker


def _finish(entry: ImageEntry, marker: _Marker) -> None:
    """Clean up after the step has taken place."""
    entry.files.sync_folder(entry.folder)
    if marker.summary is None:
        entry.files.remove(entry.summary)
    else:
        entry.files.replace(_stage_summary(entry, marker.summary), entry.summary)
    entry.files.sync_folder(entry.folder)
    _tidy(entry)


def _stage_summary(entry: ImageEntry, summary: str) -> Path:
    path, content = (
        make_path_beside(entry.summary, "new"),
        summary.encode("utf-8", "surrogateescape"),
    )
    if not entry.files.is_there(path) or entry.files.read(path) != content:
        entry.files.write_synced(path, content)
    return path


def _read_marker(entry: ImageEntry) -> _Marker | None:
    """Read the marker; None if it is damaged, which no kill can do once the step took place.

    Raises:
        FormatError: a newer version of this program wrote it.
    """
    path = _make_marker_path(entry)
    try:
        content = json.loads(entry.files.read(path))
        COMMIT_MARKER.check(path, content)
        marker = _Marker(**{one.name: content[one.name] for one in fields(_Marker)})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    kinds = {"size_bytes": int}
    right = all(
        value is None or isinstance(value, kinds.get(name, str))
        for name, value in vars(marker).items()
    )
    return marker if right else None


def _has_taken_place(entry: ImageEntry, marker: _Marker) -> bool:
    is_there = entry.files.is_there(entry.qpdata)
    if marker.sha256 is None or not is_there:
        return marker.sha256 is None and not is_there
    same_size = entry.files.state(entry.qpdata).st_size == marker.size_bytes
    return same_size and compute_checksum(entry, entry.qpdata) == marker.sha256


def _tidy(entry: ImageEntry) -> bool:
    """Remove the files of an unfinished change, the marker last; tell whether there were any."""
    staged = make_staging_path(entry)
    ours = (
        staged,
        staged.with_name(f"{staged.name}.backup"),  # QuPath's, while it writes the staged file
        make_unfinished_path(entry),
        *list_orphans(entry),
        make_path_beside(entry.summary, "new"),
        _make_unfinished_marker_path(entry),
        _make_marker_path(entry),
    )
    found = [path for path in ours if entry.files.is_there(path)]
    for path in found:
        entry.files.remove(path)
    return bool(found)


def _make_marker_path(entry: ImageEntry) -> Path:
    return make_path_beside(entry.qpdata, "commit")


def _make_unfinished_marker_path(entry: ImageEntry) -> Path:
    return make_path_beside(entry.qpdata, "commit-new")


def _make_changed_error(entry: ImageEntry) -> ImageError:
    return ImageError(
        f"Image {escape(entry.name)} changed on disk while it was processed: close the project in "
        "QuPath and run again; nothing was written."
    )


@contextmanager
def _translate_os_errors(entry: ImageEntry, what: str, then: str) -> Iterator[None]:
    """Turn the operating system's errors into messages for the user."""
    try:
        yield
    except OSError as exc:
        raise ImageError(
            f"Image {escape(entry.name)} {what} ({exc.strerror or exc}): check free "
            f"space and permissions in {entry.folder}, {then}."
        ) from exc
