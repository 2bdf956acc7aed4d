"""Dated backups of an image's data and summary, and files written through to the disk.

A backup is ``data-20261121-145501Z.wsisam-backup.qpdata`` (UTC) with a ``.summary.json`` of the
same name, in the image's folder. Files with other names belong to others.
"""

from __future__ import annotations

import re
from collections.abc import Container
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ...errors import ImageError, escape
from ...files import sha256_of_open
from .entries import ImageEntry

BACKUPS_KEPT = 3

_NAME = re.compile(r"data-(\d{8}-\d{6})Z(?:-(\d+))?\.wsisam-backup\.qpdata")
_DATA, _SUMMARY = ".qpdata", ".summary.json"


def list_backups(entry: ImageEntry) -> list[Path]:
    """List all backups of an image, oldest first.

    Raises:
        OSError: the image's folder cannot be read.
    """
    found = ((_order(path.name), path) for path in _files(entry) if _order(path.name))
    return [path for _, path in sorted(found)]


def back_up(entry: ImageEntry, older: list[Path]) -> Path | None:
    """Make a verified copy of an image's data and summary; None if it has no data.

    The newest of the older ones if that is the same: so killed runs, however many, push no other
    state out.

    Args:
        older: from :func:`backups`.

    Raises:
        OSError, ImageError: it cannot be made; half of one is under :func:`make_unfinished_path`.
    """
    if not entry.files.is_there(entry.qpdata):
        return None
    if older and _holds(older[-1], entry):
        return older[-1]
    copy_synced(entry, entry.qpdata, make_unfinished_path(entry))
    backup = entry.folder / _next_name(older)
    summary = entry.files.read_if_there(entry.summary)
    if summary is not None:
        entry.files.write_synced(find_summary(backup), summary)
    entry.files.replace(make_unfinished_path(entry), backup)
    return backup


def prune(entry: ImageEntry) -> None:
    """Remove all backups but the newest ones; those that cannot be removed stay."""
    with suppress(OSError):
        for backup in list_backups(entry)[:-BACKUPS_KEPT]:
            drop(entry, backup)


def drop(entry: ImageEntry, backup: Path) -> None:
    """Remove a backup of an image, if that is possible."""
    with suppress(OSError):
        entry.files.remove(backup)
        entry.files.remove(find_summary(backup))


def find_summary(backup: Path) -> Path:
    """Give the path of a backup's summary, which is missing if the image had none."""
    return backup.with_name(f"{backup.name.removesuffix(_DATA)}{_SUMMARY}")


def make_unfinished_path(entry: ImageEntry) -> Path:
    """Give the path of a backup while it is written."""
    return make_path_beside(entry.qpdata, "copy")


def list_orphans(entry: ImageEntry) -> list[Path]:
    """Summaries of backups that were never finished, or half removed."""
    files = _files(entry)
    names = {path.name for path in files}
    return [path for path in files if _is_orphan(path, names)]


def make_path_beside(path: Path, what: str) -> Path:
    """Give the path of a file of this program that belongs to one of QuPath's."""
    return path.with_name(f"{path.name}.wsisam-{what}")


def copy_synced(entry: ImageEntry, source: Path, target: Path) -> None:
    """Copy a file of an image through to the disk, and compare the copy.

    Raises:
        OSError: it cannot be copied.
        ImageError: the copy is another one.
    """
    entry.files.copy_synced(source, target)
    if compute_checksum(entry, target) != compute_checksum(entry, source):
        raise ImageError(
            f"A copy of {source} of image {escape(entry.name)} does not come out right: close "
            "the project in QuPath, check the disk, and run again; nothing was written."
        )


def compute_checksum(entry: ImageEntry, path: Path) -> str:
    """SHA-256 of a file of an image."""
    with entry.files.open(path) as file:
        return sha256_of_open(file)


def _next_name(older: list[Path]) -> str:
    """Name the next backup, later than all others even if the clock was set back."""
    now = (datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S"), 1)
    newest = _order(older[-1].name) if older else None
    date, number = max(now, (newest[0], newest[1] + 1)) if newest else now
    return f"data-{date}Z{'' if number == 1 else f'-{number}'}.wsisam-backup{_DATA}"


def _order(name: str) -> tuple[str, int] | None:
    """Sort key of backups; None for a file that is not one of them."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2] or 1)) if match else None


def _holds(backup: Path, entry: ImageEntry) -> bool:
    files = entry.files
    return (
        files.state(backup).st_size == files.state(entry.qpdata).st_size
        and files.read_if_there(find_summary(backup)) == files.read_if_there(entry.summary)
        and compute_checksum(entry, backup) == compute_checksum(entry, entry.qpdata)
    )


def _is_orphan(path: Path, names: Container[str]) -> bool:
    if not path.name.endswith(_SUMMARY):
        return False
    data_name = f"{path.name.removesuffix(_SUMMARY)}{_DATA}"
    return _order(data_name) is not None and data_name not in names


def _files(entry: ImageEntry) -> list[Path]:
    return [entry.folder / name for name in entry.files.file_names(entry.folder)]
