"""Checks before a command writes into a project: its images, and whether QuPath has it open."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from ..errors import OptionError, ProjectError
from ..files.names import compose
from ..qupath.files.entries import ImageEntry, Project
from .qupath_processes import find_running_qupath


def choose_images(project: Project, wanted: Sequence[str]) -> list[ImageEntry]:
    """Choose images by name, pattern or id; return them in the project's order.

    Args:
        wanted: names, patterns or ids; empty means all.

    Raises:
        ProjectError: the project has no images.
        OptionError: one of them matches no image.
    """
    if not project.images:
        raise ProjectError(f"{project.path} has no images: add some in QuPath.")
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
    name, pattern = compose(entry.name), compose(wanted)
    return wanted == entry.id or name == pattern or fnmatch.fnmatchcase(name, pattern)


def check_closed(project: Project, warn: Callable[[str], None]) -> None:
    """Refuse a project that QuPath has open: QuPath would overwrite the results on its next save.

    Args:
        warn: gets a message if a QuPath runs that may have the project open.

    Raises:
        ProjectError: a QuPath was started with this project.
    """
    running = find_running_qupath(project.path)
    if running is None:
        return
    if running.has_project:
        raise ProjectError(
            f"QuPath (process {running.pid}) has {project.path} open and would overwrite the "
            "results. Close the project there, then run this again."
        )
    warn(
        f"QuPath is running (process {running.pid}). If it has this project open, close the "
        "project there now: its next save would overwrite the results."
    )
