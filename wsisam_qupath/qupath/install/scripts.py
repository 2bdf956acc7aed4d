"""The Groovy scripts that come with this package, and the folder in which QuPath shows them."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ...errors import OutputError, QuPathError
from ...files import write_atomically

MENU = "WSI-SAM"
"""The folder below QuPath's ``scripts``, hence the submenu of Automate > User scripts."""

INTERACTIVE = "wsi_sam.groovy"
"""The script that puts its commands into QuPath's menu."""

_RECORD = ".wsisam-qupath.sha256"
"""What we put there, as ``sha256sum`` writes it. QuPath's menu shows no such file."""

CopyState: TypeAlias = Literal["missing", "current", "outdated", "edited"]
"""``outdated``: as an earlier version put it there. ``edited``: somebody changed it since, or put
it there; it is theirs."""


@dataclass(frozen=True)
class ScriptCopy:
    """A script where QuPath finds it, or would.

    Attributes:
        path: of the copy.
        state: of the copy, against the script that comes with this package.
    """

    path: Path
    state: CopyState


def script_folder() -> Path:
    """Where the scripts are that come with this package.

    Raises:
        QuPathError: they are missing from the installation.
    """
    package = Path(str(importlib.resources.files(__package__.partition(".")[0])))
    # Beside the package in a source tree, inside of it where it was installed.
    for folder in (package / "groovy", package.parent / "groovy"):
        if any(folder.glob("*.groovy")):
            return folder
    raise QuPathError(
        "The Groovy scripts are missing from this installation: run `pip install "
        "--force-reinstall --no-deps wsisam-qupath`."
    )


def read_shipped_scripts() -> dict[str, bytes]:
    """The content of each script by its file name.

    Raises:
        QuPathError: they are missing from the installation.
    """
    return {path.name: path.read_bytes() for path in sorted(script_folder().glob("*.groovy"))}


def menu_folder(user_folder: Path) -> Path:
    """Where QuPath looks for our scripts."""
    return user_folder / "scripts" / MENU


def look(folder: Path, shipped: Mapping[str, bytes]) -> tuple[ScriptCopy, ...]:
    """The state of each script's copy in a folder; nothing is changed.

    Raises:
        OutputError: a copy cannot be read.
    """
    recorded = _read_record(folder)
    return tuple(
        ScriptCopy(folder / name, _state(folder / name, content, recorded.get(name)))
        for name, content in shipped.items()
    )


def put(folder: Path, shipped: Mapping[str, bytes]) -> tuple[ScriptCopy, ...]:
    """Copy what is missing or outdated; what somebody edited is left alone.

    Args:
        folder: created if need be.
        shipped: the scripts by file name.

    Returns:
        What was found before.

    Raises:
        OutputError: the folder cannot be written.
    """
    found = look(folder, shipped)
    _create(folder)
    for copy in found:
        if copy.state in ("missing", "outdated"):
            write_atomically(copy.path, shipped[copy.path.name])
    ours = {copy.path.name: shipped[copy.path.name] for copy in found if copy.state != "edited"}
    _write_record(folder, ours)
    return found


def _state(path: Path, shipped: bytes, recorded: str | None) -> CopyState:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be read ({exc.strerror}): allow it, or move it away."
        ) from exc
    if content == shipped:
        return "current"
    return "outdated" if _sha256(content) == recorded else "edited"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder} cannot be created ({exc.strerror}): allow it, or choose another user "
            "folder for QuPath."
        ) from exc


def _read_record(folder: Path) -> dict[str, str]:
    """SHA-256 by name. Without a record each copy that differs is somebody's work."""
    try:
        lines = (folder / _RECORD).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_record(folder: Path, ours: Mapping[str, bytes]) -> None:
    recorded = _read_record(folder)
    new = {**recorded, **{name: _sha256(content) for name, content in ours.items()}}
    if new != recorded:
        lines = (f"{digest}  {name}\n" for name, digest in sorted(new.items()))
        write_atomically(folder / _RECORD, "".join(lines).encode())
