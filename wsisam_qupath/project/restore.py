"""Runs ``restore``: puts back, or lists, the objects that commands of this program replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ImageError, OptionError, ProjectError, WsiSamError, escape
from ..qupath.files.backups import Backup, find_present, list_backups
from ..qupath.files.entries import ImageEntry, Project
from ..qupath.files.integrity import read_stated_count
from ..qupath.files.reading import read_project
from ..report.progress import count_noun, show_progress, stderr_console
from .access import check_closed, choose_images
from .commit import RESTORE, recover, restore
from .lock import project_lock
from .unfinished_restore import UnfinishedRestore

_PIPE_COLUMNS = 240
"""Width of the list if that of the screen is unknown, so that each row is one line."""

Wanted: TypeAlias = Literal["previous", "original"] | int
"""Which state of an image: the one before its last command, the first one, or a number."""


def run_restore(path: Path, images: Sequence[str], wanted: Wanted = "previous") -> bool:
    """Restore a state of each image; the objects that it replaces can be restored in their turn.

    Args:
        path: the project's file or folder.
        images: names, patterns or ids; empty means all.
        wanted: "previous" goes one step further back each time.

    Returns:
        Whether every image that has such a state got it.

    Raises:
        WsiSamError: nothing could start.
    """
    console = stderr_console()
    project = read_project(path)
    entries = choose_images(project, images)
    if isinstance(wanted, int) and len(entries) > 1:
        raise OptionError(
            "to", f"each image has a state {wanted} of its own: name the one image that is meant."
        )
    say = partial(console.print, markup=False, soft_wrap=True)
    check_closed(project, say)
    restored = failed = kept = 0
    with (
        project_lock(project, what=RESTORE),
        show_progress(console, "Restoring images", len(entries)) as progress,
    ):
        unfinished = UnfinishedRestore(project, images) if wanted == "previous" else None
        for entry in progress.track(entries):
            try:
                recover(entry)
                if unfinished is not None and unfinished.has_done(entry):
                    kept += 1
                    continue
                done = _restore_image(entry, wanted, unfinished)
            except (WsiSamError, OSError) as exc:
                failed += 1
                say(f"{escape(entry.name)}: failed. {exc}")
                continue
            if done:
                restored += 1
                say(f"{escape(entry.name)}: {done}")
        if unfinished is not None:
            unfinished.finish()
    if kept:
        say(
            f"{count_noun(kept, 'image')} had been restored by a run that was stopped. To go one "
            "command further back in all of them, run this again."
        )
    others = len(entries) - restored - failed - kept
    say(f"{count_noun(restored, 'image')} restored, {failed} failed{_tell_others(others)}.")
    return not failed


def _tell_others(count: int) -> str:
    if not count:
        return ""
    verbs = "has no such state, or holds" if count == 1 else "have no such state, or hold"
    return f"; {count_noun(count, 'other')} {verbs} it now"


def print_states(path: Path, images: Sequence[str]) -> None:
    """Print all states that can be restored, and what replaced them.

    Raises:
        WsiSamError: the project or an image cannot be read.
    """
    project = read_project(path)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Image", overflow="fold")
    table.add_column("State", no_wrap=True)
    table.add_column("Replaced by", no_wrap=True)
    table.add_column("When", no_wrap=True)
    table.add_column("Objects then", justify="right", min_width=7)
    table.add_column("Objects now", justify="right", min_width=7)
    entries = choose_images(project, images)
    with show_progress(stderr_console(), "Listing states", len(entries)) as progress:
        for entry in progress.track(entries):
            for row in _list_rows(project, entry):
                table.add_row(*map(Text, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    if table.row_count:
        console.print(table)
    else:
        console.print("No command of this program has changed these images.", soft_wrap=True)


def _list_rows(project: Project, entry: ImageEntry) -> list[tuple[str, ...]]:
    try:
        backups = list_backups(entry)
        present = find_present(entry, backups)
    except OSError as exc:
        raise ProjectError(
            f"{project.path}: backups of image {escape(entry.name)} cannot be read "
            f"({exc.strerror or exc}): check the permissions of {entry.folder}."
        ) from exc
    now = _count(entry, entry.summary, "")
    rows: list[tuple[str, ...]] = []
    for one in backups:
        notes = ["original"] if one is backups[0] else []
        notes += ["as now"] if one is present else []
        state = f"{one.number} ({', '.join(notes)})" if notes else str(one.number)
        when = f"{one.time.astimezone():%Y-%m-%d %H:%M}"
        then = _count(entry, one.summary, "")
        rows.append((escape(entry.name, 120), state, one.command, when, then, now))
    return rows


def _count(entry: ImageEntry, summary: Path, noun: str = " object") -> str:
    """Count the objects that a summary states, the root not among them."""
    stated = read_stated_count(entry, summary)
    count = "?" if stated is None else str(stated - 1)
    return f"{count}{noun}{'s' * bool(noun and count != '1')}"


def _restore_image(entry: ImageEntry, wanted: Wanted, unfinished: UnfinishedRestore | None) -> str:
    """Restore a state of a recovered image; return which, or nothing if there is none."""
    backup = _choose(entry, list_backups(entry), wanted)
    if backup is None:
        return ""
    then, now = _count(entry, backup.summary), _count(entry, entry.summary)
    if unfinished is not None:
        unfinished.add(entry, backup.number)
    replaced = restore(entry, backup.number)
    kept = f"; what was there ({now}) is state {replaced.number}" if replaced else ""
    return f"restored state {backup.number}, from before {backup.command} ({then}){kept}."


def _choose(entry: ImageEntry, backups: Sequence[Backup], wanted: Wanted) -> Backup | None:
    """Choose a backup that is not what the image holds already."""
    present = find_present(entry, backups)
    if wanted == "previous":
        return _find_previous(entry, backups, present)
    if wanted == "original":
        found = backups[0] if backups else None
    else:
        found = next((one for one in backups if one.number == wanted), None)
        if found is None:
            raise ImageError(f"It has no state {wanted}.")
    is_there = found is not None and find_present(entry, [found]) is not None
    return None if is_there else found


def _find_previous(
    entry: ImageEntry, backups: Sequence[Backup], present: Backup | None
) -> Backup | None:
    """Find what the image held before, without what a restoration has taken back since."""
    earlier = [one for one in backups if present is None or one.number < present.number]
    return next(
        (
            one
            for one in reversed(earlier)
            if one.command != RESTORE and find_present(entry, [one]) is None
        ),
        None,
    )
