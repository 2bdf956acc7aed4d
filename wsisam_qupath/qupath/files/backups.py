"""Backups of an image's data and summary: what the image held before each command changed it.

A backup is ``data-0002-batch-20261121-145501Z.wsisam-backup2.qpdata``: its number, the command that
then replaced these objects, the time of that (UTC), and the format of the name. Its summary is a
``.summary.json`` of the same name; both lie in the image's folder. Files with other names belong to
others.

The first one, which is the state before this program ever changed the image, is never removed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from ...errors import ImageError, escape
from ...files import sha256_of_open
from ...files.formats import BACKUP
from .entries import ImageEntry

LAST_KEPT = 3
"""Number of newest backups after the first that are kept whatever their size."""

MORE_KEPT = 9
"""Number of backups after the first that are kept if they take at most :data:`MORE_KEPT_BYTES`."""

MORE_KEPT_BYTES = 500_000_000

_UNKNOWN_COMMAND = "unknown"
_TIME = "%Y%m%d-%H%M%S"
_DATED = re.compile(r"data-(?P<time>\d{8}-\d{6})Z(?:-(?P<order>\d+))?\.wsisam-backup\.qpdata")
"""Names in format 1, of versions 0.1 and 0.2."""

_NUMBERED = re.compile(
    r"data-(?P<number>\d+)-(?P<command>[a-z-]+)-(?P<time>\d{8}-\d{6})Z\.wsisam-backup2\.qpdata"
)
_ANY = re.compile(r"data-.*\.wsisam-backup(?P<format>\d+)\.qpdata")
_DATA, _SUMMARY = ".qpdata", ".summary.json"


@dataclass(frozen=True)
class Backup:
    """The objects of an image at an earlier time.

    Attributes:
        path: path of the data.
        number: number of the command that replaced these objects, counted from the first.
        command: command that replaced these objects; "unknown" if an early version did not say it.
        time: when the command replaced them, UTC.
    """

    path: Path
    number: int
    command: str
    time: datetime

    @property
    def summary(self) -> Path:
        """Path of its summary, which is missing if the image had none."""
        return _summary_of(self.path)


def list_backups(entry: ImageEntry) -> list[Backup]:
    """List all backups of an image, oldest first.

    Those of early versions have no number in their names, and get the next ones.

    Raises:
        OSError: the image's folder cannot be read.
        FormatError: a newer version of this program made one of them.
    """
    numbered: list[Backup] = []
    dated: list[tuple[datetime, int, Path]] = []
    for path in _list_files(entry):
        if match := _match(_NUMBERED, path.name):
            command = match["command"].replace("-", " ")
            numbered.append(Backup(path, int(match["number"]), command, _read_time(match["time"])))
        elif match := _match(_DATED, path.name):
            dated.append((_read_time(match["time"]), int(match["order"] or 1), path))
        elif match := _ANY.fullmatch(path.name):
            BACKUP.check_number(path, int(match["format"]))
    found = sorted(numbered, key=lambda one: one.number)
    for time, _, path in sorted(dated):
        number = found[-1].number + 1 if found else 1
        found.append(Backup(path, number, _UNKNOWN_COMMAND, time))
    return found


def number_backups(entry: ImageEntry, backups: Sequence[Backup]) -> list[Backup]:
    """Give backups of early versions names with their numbers, which then stay the same.

    Raises:
        OSError: they cannot be renamed.
    """
    return [_number(entry, one) if _match(_DATED, one.path.name) else one for one in backups]


def _number(entry: ImageEntry, dated: Backup) -> Backup:
    numbered = replace(dated, path=_make_path(entry, dated.number, dated.command, dated.time))
    summary = entry.files.read_if_there(dated.summary)
    if summary is not None:  # a copy, so that each of the names has one at every moment
        entry.files.write_synced(numbered.summary, summary)
    entry.files.replace(dated.path, numbered.path)
    entry.files.remove(dated.summary)
    return numbered


def back_up(entry: ImageEntry, older: Sequence[Backup], command: str) -> Backup | None:
    """Make a verified copy of an image's data and summary; None if it has no data.

    The newest of the older ones if that is the same: so killed runs, however many, push no other
    state out.

    Args:
        older: earlier backups, from :func:`list_backups`.
        command: command that is about to replace the data.

    Raises:
        OSError, ImageError: it cannot be made; half of one is under :func:`make_unfinished_path`.
    """
    if not entry.files.is_there(entry.qpdata):
        return None
    newest = older[-1] if older else None
    if newest and newest.command in (command, _UNKNOWN_COMMAND) and _holds_present(entry, newest):
        return newest
    copy_synced(entry, entry.qpdata, make_unfinished_path(entry))
    number = newest.number + 1 if newest else 1
    now = datetime.now(timezone.utc).replace(microsecond=0)  # as in the name
    backup = Backup(_make_path(entry, number, command, now), number, command, now)
    summary = entry.files.read_if_there(entry.summary)
    if summary is not None:
        entry.files.write_synced(backup.summary, summary)
    entry.files.replace(make_unfinished_path(entry), backup.path)
    return backup


def prune(entry: ImageEntry, *, spare: Backup | None = None) -> None:
    """Remove old backups, never the first; those that cannot be removed stay.

    Args:
        spare: a backup that stays in any case.
    """
    with suppress(OSError):
        size_bytes = 0
        for order, backup in enumerate(reversed(list_backups(entry)[1:])):
            size_bytes += entry.files.state(backup.path).st_size
            fits = order < MORE_KEPT and size_bytes <= MORE_KEPT_BYTES
            if order >= LAST_KEPT and not fits and backup != spare:
                drop(entry, backup)


def drop(entry: ImageEntry, backup: Backup) -> None:
    """Remove a backup of an image, if that is possible."""
    with suppress(OSError):
        entry.files.remove(backup.path)
        entry.files.remove(backup.summary)


def find_present(entry: ImageEntry, backups: Sequence[Backup]) -> Backup | None:
    """Find the newest backup that is what the image holds now; None if none is.

    Raises:
        OSError: a file cannot be read.
    """
    return next((one for one in reversed(backups) if _holds_present(entry, one)), None)


def make_unfinished_path(entry: ImageEntry) -> Path:
    """Give the path of a backup while it is written."""
    return make_path_beside(entry.qpdata, "copy")


def list_orphans(entry: ImageEntry) -> list[Path]:
    """List summaries of backups that were never finished, or half removed."""
    files = _list_files(entry)
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
    """Compute the SHA-256 of a file of an image."""
    with entry.files.open(path) as file:
        return sha256_of_open(file)


def _make_path(entry: ImageEntry, number: int, command: str, time: datetime) -> Path:
    slug = command.replace(" ", "-")
    name = f"data-{number:04}-{slug}-{time:{_TIME}}Z.wsisam-backup{BACKUP.number}{_DATA}"
    return entry.folder / name


def _match(pattern: re.Pattern[str], name: str) -> re.Match[str] | None:
    """Match a file's name; None also if its time is not a time."""
    if match := pattern.fullmatch(name):
        with suppress(ValueError):
            _read_time(match["time"])
            return match
    return None


def _read_time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)


def _is_orphan(path: Path, names: Container[str]) -> bool:
    if not path.name.endswith(_SUMMARY):
        return False
    data_name = f"{path.name.removesuffix(_SUMMARY)}{_DATA}"
    is_ours = _match(_NUMBERED, data_name) or _match(_DATED, data_name)
    return bool(is_ours) and data_name not in names


def _holds_present(entry: ImageEntry, backup: Backup) -> bool:
    files = entry.files
    return (
        files.is_there(entry.qpdata)
        and files.state(backup.path).st_size == files.state(entry.qpdata).st_size
        and files.read_if_there(backup.summary) == files.read_if_there(entry.summary)
        and compute_checksum(entry, backup.path) == compute_checksum(entry, entry.qpdata)
    )


def _summary_of(data: Path) -> Path:
    return data.with_name(f"{data.name.removesuffix(_DATA)}{_SUMMARY}")


def _list_files(entry: ImageEntry) -> list[Path]:
    return [entry.folder / name for name in entry.files.file_names(entry.folder)]
