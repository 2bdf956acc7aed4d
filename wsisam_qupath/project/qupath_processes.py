"""Finds running QuPaths, which would overwrite an open project on their next save."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

_LAUNCHER = re.compile(r"QuPath([ -].*)?")
"""Names of QuPath's launcher: ``QuPath``, ``QuPath-0.6.0``, ``QuPath-v0.6.0-arm64``, ``QuPath-0.6.0
(console)``."""

_JAVA = ("java", "javaw")
_MAIN_CLASSES = ("qupath.QuPath", "qupath.lib.gui.QuPathApp", "qupath.lib.gui.QuPathGUI")

_WITHOUT_WINDOW = {"script", "convert-ome", "generate-completion", "help"}
_WITHOUT_WINDOW |= {"-h", "--help", "-V", "--version"}


@dataclass(frozen=True)
class Running:
    """A running QuPath with a window.

    Attributes:
        pid: number of its process.
        has_project: whether it was started with the project, or has a file of it open. If False, a
            person may still have opened the project in its window.
    """

    pid: int
    has_project: bool


def find_running_qupath(project: Path) -> Running | None:
    """Find a QuPath with a window on this computer, preferably one with the project open.

    Not seen are those on other computers, those with a command line that the system hides, and this
    process with those that started it and that it started. Never raises.

    Args:
        project: its ``.qpproj`` file.
    """
    import psutil  # `--help` need not load it

    found = None
    try:
        for process, arguments in _windows():
            if _has_project(process, arguments, project):
                return Running(process.pid, True)
            found = found or Running(process.pid, False)
    except (psutil.Error, OSError):
        return found
    return found


def find_window_arguments(name: str, command: Sequence[str]) -> tuple[str, ...] | None:
    """Give the arguments of a QuPath with a window; None for every other process.

    Args:
        name: name of the process.
        command: its command line.
    """
    if not command:
        return None
    arguments = _qupath_arguments(name, command)
    if arguments is None or _WITHOUT_WINDOW.intersection(arguments):
        return None
    return tuple(arguments)


def _qupath_arguments(name: str, command: Sequence[str]) -> Sequence[str] | None:
    for program in (name, command[0]):
        stem = PureWindowsPath(program).name.removesuffix(".exe")  # also splits at slashes
        if _LAUNCHER.fullmatch(stem):
            return command[1:]
        if stem.lower() in _JAVA:
            mains = [number for number, word in enumerate(command) if word in _MAIN_CLASSES]
            return command[mains[0] + 1 :] if mains else None
    return None


def _windows() -> Iterator[tuple[Process, tuple[str, ...]]]:
    """List the processes of QuPath with a window, and their arguments."""
    import psutil

    own = psutil.Process()
    family = {p.pid for p in (own, *own.parents(), *own.children(recursive=True))}
    for process in psutil.process_iter():
        try:
            name = process.name()
            if process.pid in family or not name.lower().startswith(("qupath", *_JAVA)):
                continue
            arguments = find_window_arguments(name, process.cmdline())
        except (psutil.Error, OSError):
            continue
        if arguments is not None:
            yield process, arguments


def _has_project(process: Process, arguments: Sequence[str], project: Path) -> bool:
    import psutil

    try:
        folder = Path(process.cwd())
    except (psutil.Error, OSError):
        folder = Path()
    words = (word.partition("=")[2] if word.startswith("-") else word for word in arguments)
    if any(_is_project(folder / word, project) for word in words if word):
        return True
    try:
        opened = [PurePath(file.path) for file in process.open_files()]
    except (psutil.Error, OSError):
        return False
    return any(path.is_relative_to(project.parent.resolve()) for path in opened)


def _is_project(path: Path, project: Path) -> bool:
    try:
        return path.samefile(project)
    except (OSError, ValueError):
        return False
