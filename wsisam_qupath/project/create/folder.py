"""The folder of a new project, which appears complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import OutputError
from ...files import hold_alone, write_atomically

PROJECT_FILE = "project.qpproj"
"""QuPath's name of it."""


def find_project_folder(project: Path) -> Path:
    """Give the absolute folder of a project that is named by its folder or its file.

    Raises:
        OutputError: the file has another name than QuPath gives it.
    """
    path = Path(os.path.abspath(project.expanduser()))  # noqa: PTH100 - resolve() follows links
    if path.suffix.lower() != ".qpproj":
        return path
    if path.name != PROJECT_FILE:
        raise OutputError(
            f"A new project is a folder with {PROJECT_FILE} in it: name the folder, such as "
            f"{path.with_suffix('')}."
        )
    return path.parent


def check_free(folder: Path) -> None:
    """Check that a project can be created there; nothing is ever replaced.

    Raises:
        OutputError: something is there, or the folder that it is to lie in is not.
    """
    if not folder.parent.is_dir():
        raise OutputError(f"There is no folder {folder.parent}: create it, or name another one.")
    if folder.is_dir():
        there = next(folder.iterdir(), None)
        if there is not None:
            what = "a project" if (folder / PROJECT_FILE).exists() else there.name
            raise OutputError(
                f"There is {what} in {folder}, and nothing is ever replaced: name a folder that is "
                "empty or not there yet."
            )
    elif os.path.lexists(folder):
        raise OutputError(f"{folder} is no folder: name one that is not there yet.")
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {folder.parent} is write-protected: choose one that you may write to."
        )


@contextmanager
def build_beside(folder: Path) -> Iterator[Path]:
    """Build the project in a hidden folder beside the target and rename it at the end.

    After an error nothing is left; after a ``kill -9`` the hidden folder is, until the next try.

    Raises:
        OutputError: it cannot be written, or another program is making the same project.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    busy = f"Another program is making {folder} right now: wait for it, or name another folder."
    with ExitStack() as held:
        try:
            held.enter_context(hold_alone(Path(f"{unfinished}.lock"), busy))
        except OSError as exc:
            raise _make_unwritable_error(folder, exc) from exc
        held.callback(shutil.rmtree, unfinished, ignore_errors=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
        except OSError as exc:
            raise _make_unwritable_error(folder, exc) from exc
        yield unfinished
        _give_name(unfinished, folder)


def _give_name(unfinished: Path, folder: Path) -> None:
    """Write the project's final location into its file, and move it there."""
    file = unfinished / PROJECT_FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    content["uri"] = _java_uri(folder / PROJECT_FILE)
    write_atomically(file, json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8"))
    # QuPath's copy from between two saves names the hidden folder.
    file.with_name(f"{PROJECT_FILE}.backup").unlink(missing_ok=True)
    try:
        if folder.is_dir():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as exc:
        raise _make_unwritable_error(folder, exc) from exc


def _java_uri(path: Path) -> str:
    """Write a URI as Java does: one slash before a local path, four before a network path."""
    uri = path.as_uri()
    if uri.startswith("file:///"):
        return f"file:/{uri.removeprefix('file:///')}"
    return f"file:////{uri.removeprefix('file://')}"


def _make_unwritable_error(folder: Path, exc: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot be made ({exc.strerror or exc}). Choose another place for the project, "
        "or check the free space and permissions there."
    )
