"""The folder of an export, which appears complete and may replace an earlier export."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import OutputError, PromptError
from ...geojson.manifest import MANIFEST_NAME, read_manifest

_OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that file managers leave in folders."""


def check_out(out: Path) -> None:
    """Check that an export can be written there.

    Args:
        out: absolute path of the folder.

    Raises:
        OutputError: something else is there, or it cannot be written.
    """
    if not out.parent.is_dir():
        raise OutputError(f"There is no folder {out.parent}: create it, or name another one.")
    if os.path.lexists(out) and not out.is_dir():
        raise OutputError(f"{out} is no folder: name one, which need not be there yet.")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {out.parent} is write-protected: choose one that you may write to."
        )
    if out.is_dir():
        _check_only_ours(out)


def _check_only_ours(out: Path) -> None:
    there = {path.name for path in out.iterdir()} - _OF_THE_SYSTEM
    if not there:
        return
    try:
        manifest = read_manifest(out)
    except PromptError as exc:
        raise OutputError(
            f"{out} holds other files ({min(there)}) and is no earlier export: name a folder that "
            "is empty or not there yet."
        ) from exc
    others = there - {MANIFEST_NAME, *(image.file for image in manifest.images)}
    if others:
        raise OutputError(
            f"{out} is an earlier export and would be replaced as a whole, but {min(others)} in it "
            "is not of the export: move that elsewhere, or name another folder."
        )


@contextmanager
def replace_whole(out: Path) -> Iterator[Path]:
    """Write into a hidden folder beside the target, and exchange the two at the end.

    Raises:
        OutputError: it cannot be written; what was there before is still there.
    """
    new, old = (out.with_name(f".{out.name}.{uuid.uuid4().hex}.{what}") for what in ("new", "old"))
    try:
        with _translate_os_errors(out):
            new.mkdir()
        yield new
        check_out(out)  # another program may have written there since
        with _translate_os_errors(out):
            _swap(out, new, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _swap(out: Path, new: Path, old: Path) -> None:
    if not out.is_dir():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise


@contextmanager
def _translate_os_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(
            f"{out} cannot be written ({exc.strerror or exc}). Choose another place for the "
            "export, or check the free space and permissions there."
        ) from exc
