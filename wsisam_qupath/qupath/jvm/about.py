"""Versions and a trial opening for ``doctor``. These functions run in QuPath's process."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ...errors import ProjectError
from .java import java_class, translate_java_errors


@dataclass(frozen=True)
class QuPathInfo:
    """Versions of QuPath, Java and paquo."""

    qupath_version: str
    java_version: str
    paquo_version: str


def describe() -> QuPathInfo:
    """Read the versions of what is running in this process."""
    return QuPathInfo(
        str(java_class("qupath.lib.common.GeneralTools").getVersion()),
        str(java_class("java.lang.System").getProperty("java.version")),
        importlib.metadata.version("paquo"),
    )


def check_opens(project: Path) -> int:
    """Check that QuPath itself can read a project.

    QuPath makes a folder ``classifiers`` in a project that has none.

    Returns:
        How many images it has.

    Raises:
        ProjectError: QuPath cannot read it.
    """
    pixels_as = java_class("java.awt.image.BufferedImage").class_
    file = java_class("java.io.File")(str(project))
    hint = "put back a copy of it from a backup"
    with translate_java_errors(f"Opening {project}", hint, ProjectError):
        opened = java_class("qupath.lib.projects.ProjectIO").loadProject(file, pixels_as)
        return int(opened.getImageList().size())
