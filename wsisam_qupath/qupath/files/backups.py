"""Dated backups of an image's data and summary, and files written through to the disk.

A backup is ``data-20261121-145501Z.wsisam-backup.qpdata`` (UTC) with a ``.summary.json`` of the
same name, in the image's folder. Files with other names belong to others.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ...errors import ImageError, escape
from ...files import compute_sha256
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
    if not entry.qpdata.exists():
        return None
    if older and _holds(older[-1], entry):
        return older[-1]
    copy_synced(entry, entry.qpdata, make_unfinished_path(entry))
    backup = entry.folder / _next_name(older)
    summary = read_content(entry.summary)
    if summary is not None:
        write_synced(find_summary(backup), summary)
    return make_unfinished_path(entry).replace(backup)


def prune(entry: ImageEntry) -> None:
    """Remove all backups but the newest ones; those that cannot be removed stay."""
    with suppress(OSError):
        for backup in list_backups(entry)[:-BACKUPS_KEPT]:
            drop(backup)


def drop(backup: Path) -> None:
    """Remove a backup, if that is possible."""
    with suppress(OSError):
        backup.unlink()
        find_summary(backup).unlink(missing_ok=True)


def find_summary(backup: Path) -> Path:
    """Give the path of a backup's summary, which is missing if the image had none."""
    return backup.with_name(f"{backup.name.removesuffix(_DATA)}{_SUMMARY}")


def make_unfinished_path(entry: ImageEntry) -> Path:
    """Give the path of a backup while it is written."""
    return make_path_beside(entry.qpdata, "copy")


def list_orphans(entry: ImageEntry) -> list[Path]:
    """List summaries whose backup is missing, since it was never finished or is half removed."""
    return [path for path in _files(entry) if _is_orphan(path)]


def make_path_beside(path: Path, what: str) -> Path:
    """Give the path of a file of this program that belongs to one of QuPath's."""
    return path.with_name(f"{path.name}.wsisam-{what}")


def read_content(path: Path) -> bytes | None:
    """Read a file; None if it does not exist."""
    return path.read_bytes() if path.exists() else None


def copy_synced(entry: ImageEntry, source: Path, target: Path) -> None:
    """Copy a file of an image through to the disk, and compare the copy.

    Raises:
        OSError: it cannot be copied.
        ImageError: the copy is another one.
    """
    shutil.copyfile(source, target)
    sync_file(target)
    if compute_sha256(target) != compute_sha256(source):
        raise ImageError(
            f"A copy of {source} of image {escape(entry.name)} does not come out right: close "
            "the project in QuPath, check the disk, and run again; nothing was written."
        )


def write_synced(path: Path, content: bytes) -> None:
    """Write a file through to the disk, so that it survives a power cut."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Flush a file that another program wrote to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that renamed files survive a power cut, where the platform allows it."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems refuse it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    return (
        backup.stat().st_size == entry.qpdata.stat().st_size
        and read_content(find_summary(backup)) == read_content(entry.summary)
        and compute_sha256(backup) == compute_sha256(entry.qpdata)
    )


def _is_orphan(path: Path) -> bool:
    if not path.name.endswith(_SUMMARY):
        return False
    data = path.with_name(f"{path.name.removesuffix(_SUMMARY)}{_DATA}")
    return _order(data.name) is not None and not data.exists()


def _files(entry: ImageEntry) -> list[Path]:
    if not entry.folder.is_dir():
        return []
    return [path for path in entry.folder.iterdir() if path.is_file()]
