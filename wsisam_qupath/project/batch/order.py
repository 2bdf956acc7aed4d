"""The order in which a batch takes images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...qupath.files.entries import ImageEntry, Project
from ..history import HISTORY_FOLDER
from ..journal import JOURNAL_FOLDER


def order_images(project: Project, entries: Iterable[ImageEntry]) -> list[ImageEntry]:
    """Move images that seem to be done, by this program's files, to the end.

    So a run that goes on where it was stopped need not look at thousands of images before it
    outlines anything. Done is what has a history, and no journal of results that wait.
    """
    done = _list_ids(project, HISTORY_FOLDER) - _list_ids(project, JOURNAL_FOLDER)
    return sorted(entries, key=lambda entry: entry.id in done)


def _list_ids(project: Project, folder: str) -> frozenset[str]:
    """List the ids of images with a file in a folder of this program; none if it cannot be read."""
    with suppress(OSError):
        names = project.files.file_names(project.own_folder / folder)
        return frozenset(Path(name).stem for name in names)
    return frozenset()
