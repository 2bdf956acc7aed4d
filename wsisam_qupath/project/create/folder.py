"""The folder of a new project, which appears complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import OutputError
from ...files import hold_alone
from .unfinished import PROJECT_FILE, Plan, Unfinished, write_project

_NOTHING_PLANNED = Plan()


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
def build_beside(
    folder: Path, plan: Plan = _NOTHING_PLANNED, *, resume: bool = True
) -> Iterator[Unfinished]:
    """Build the project in a hidden folder beside the target and rename it at the end.

    After a stop of any kind the hidden folder is kept if slides are recorded as being in it, and
    the next try for the same plan goes on there.

    Args:
        plan: what the project is made of.
        resume: whether what an earlier try left is used.

    Raises:
        OutputError: it cannot be written, or another program is making the same project.
    """
    hidden = folder.with_name(f".{folder.name}.unfinished")
    busy = f"Another program is making {folder} right now: wait for it, or name another folder."
    with ExitStack() as held:
        try:
            held.enter_context(hold_alone(Path(f"{hidden}.lock"), busy))
            unfinished = Unfinished(hidden, plan, resume=resume)
        except OSError as exc:
            raise _make_unwritable_error(folder, exc) from exc
        try:
            yield unfinished
            _give_name(hidden, folder)
            unfinished.remove_record()
        except BaseException:
            if unfinished.is_empty:
                unfinished.remove()
            raise


def _give_name(unfinished: Path, folder: Path) -> None:
    """Write the project's final location into its file, and move it there."""
    file = unfinished / PROJECT_FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    content["uri"] = _java_uri(folder / PROJECT_FILE)
    write_project(file, content)
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
