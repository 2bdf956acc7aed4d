"""What every command does before it writes into a project: choose images, and keep others out."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import OptionError, ProjectError
from ..qupath.files.entries import ImageEntry, Project
from ..qupath.files.integrity import check_writable_project
from .lock import project_lock
from .qupath_processes import find_running_qupath


def choose_images(project: Project, wanted: Sequence[str]) -> list[ImageEntry]:
    """The images that names, patterns or ids mean, in the project's order.

    Args:
        wanted: nothing is all.

    Raises:
        ProjectError: the project holds none.
        OptionError: one of them means no image.
    """
    if not project.images:
        raise ProjectError(f"{project.path} holds no images: add some in QuPath.")
    if not wanted:
        return list(project.images)
    chosen: set[str] = set()
    for one in wanted:
        found = {entry.id for entry in project.images if _is_meant(entry, one)}
        if not found:
            raise OptionError(
                "images",
                f"{one} is no image of {project.path}: give a name, a pattern such as '*.svs', or "
                "QuPath's id of an image.",
            )
        chosen |= found
    return [entry for entry in project.images if entry.id in chosen]


def _is_meant(entry: ImageEntry, wanted: str) -> bool:
    return wanted in (entry.id, entry.name) or fnmatch.fnmatchcase(entry.name, wanted)


def check_closed(project: Project, warn: Callable[[str], None]) -> None:
    """QuPath has no lock: what it has open, it overwrites on its next save.

    Args:
        warn: is told where some QuPath runs, which may have the project open or not.

    Raises:
        ProjectError: a QuPath was started with this project.
    """
    running = find_running_qupath(project.path)
    if running is None:
        return
    if running.has_project:
        raise ProjectError(
            f"QuPath (process {running.pid}) has {project.path} open, and would overwrite what is "
            "written. Close the project there, and run this again."
        )
    warn(
        f"QuPath is running (process {running.pid}). If it has this project open, close the "
        "project there now: on its next save it would overwrite what is written."
    )


@contextmanager
def lock_for_writing(project: Project, *, what: str) -> Iterator[None]:
    """While the project is written: it can be, and no other command of ours does.

    Raises:
        ProjectError: it cannot be written, or another command is at it.
    """
    check_writable_project(project)
    with project_lock(project, what=what):
        yield
