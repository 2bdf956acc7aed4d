"""Runs ``restore``: puts back the objects that a batch replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..errors import WsiSamError, escape
from ..qupath.files.backups import list_backups
from ..qupath.files.entries import ImageEntry
from ..qupath.files.reading import read_project
from ..report.progress import count_noun, stderr_console
from .access import check_closed, choose_images, lock_for_writing
from .commit import recover, restore


def run_restore(path: Path, images: Sequence[str]) -> bool:
    """Restore the newest backup of each image; the objects it replaces become a new backup.

    So a second run undoes the first.

    Args:
        path: the project's file or folder.
        images: names, patterns or ids; empty means all.

    Returns:
        Whether every image that has a backup got it.

    Raises:
        WsiSamError: nothing could start.
    """
    console = stderr_console()
    project = read_project(path)
    entries = choose_images(project, images)
    say = partial(console.print, markup=False)
    check_closed(project, say)
    restored = failed = 0
    with lock_for_writing(project, what="restore"):
        for entry in entries:
            try:
                backup = _restore_image(entry)
            except WsiSamError as exc:
                failed += 1
                say(f"{escape(entry.name)}: failed. {exc}")
                continue
            if backup is not None:
                restored += 1
                say(f"{escape(entry.name)}: restored from {backup.name}.")
    say(f"{count_noun(restored, 'image')} restored, {failed} failed; the others have no backup.")
    return not failed


def _restore_image(entry: ImageEntry) -> Path | None:
    recover(entry)
    kept = list_backups(entry)
    if not kept:
        return None
    restore(entry, kept[-1])
    return kept[-1]
