"""Checks before a command writes into a project: its images, and whether QuPath has it open."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..errors import OptionError, ProjectError
from ..files.names import compose
from ..qupath.files.entries import ImageEntry, Project
from .qupath_processes import find_running_qupath

_WILDCARD = re.compile(r"[*?[]")


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
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    for entry in project.images:
        by_name[compose(entry.name)].add(entry.id)
    ids = {entry.id for entry in project.images}
    chosen: set[str] = set()
    for one in wanted:
        found = _find_ids(by_name, compose(one)) | ({one} & ids)
        if not found:
            raise OptionError(
                "images",
                f"{one} is no image of {project.path}: give a name, a pattern such as '*.svs', or "
                "QuPath's id of an image.",
            )
        chosen |= found
    return [entry for entry in project.images if entry.id in chosen]


def _find_ids(by_name: Mapping[str, set[str]], wanted: str) -> set[str]:
    """Find the ids of the images with a name, or with one of a pattern.

    Only a pattern is compared with each name: a name is one of thousands of a list.
    """
    found = set(by_name.get(wanted, ()))
    if _WILDCARD.search(wanted):
        matches = re.compile(fnmatch.translate(wanted)).match
        found.update(*(ids for name, ids in by_name.items() if matches(name)))
    return found


def check_closed(project: Project, warn: Callable[[str], None]) -> None:
    """Refuse a project that QuPath has open: QuPath would overwrite the results on its next save.

    Args:
        warn: is called with a message if a running QuPath may have the project open.

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
