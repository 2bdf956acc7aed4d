"""Installs this package's Groovy scripts in the folder where QuPath looks for scripts."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ...errors import REINSTALL, OutputError, QuPathError
from ...files import make_folder, write_atomically
from ...files.formats import SCRIPT_RECORD

MENU = "WSI-SAM"
"""Folder in QuPath's ``scripts``, and so a submenu of Automate > User scripts."""

INTERACTIVE = "wsi_sam.groovy"
"""The script that puts its commands into QuPath's menu."""

DEFAULT_SERIES = "0.6"
"""Series of QuPath that is assumed where no QuPath states its version."""

_RECORD = ".wsisam-qupath.sha256"
"""File of checksums of the installed scripts, as by ``sha256sum``; QuPath's menu hides it. Its
first line states its format; version 0.1 wrote none."""

_RECORD_FORMAT = re.compile(r"# format (\d+)")

CopyState: TypeAlias = Literal["missing", "current", "outdated", "edited"]
"""``outdated``: installed by an earlier version. ``edited``: changed or added by the user."""


_FOLDER_FIX = "allow it, or choose another user folder for QuPath"


@dataclass(frozen=True)
class ScriptCopy:
    """A script's copy, existing or not, in the folder where QuPath finds it.

    Attributes:
        path: path of the copy.
        state: state of the copy, compared with the script of this package.
    """

    path: Path
    state: CopyState


def find_script_folder() -> Path:
    """Find the folder of the scripts that come with this package.

    Raises:
        QuPathError: they are missing from the installation.
    """
    package = Path(str(importlib.resources.files(__package__.partition(".")[0])))
    # Beside the package in a source tree, inside of it once it is installed.
    for folder in (package / "groovy", package.parent / "groovy"):
        if any(folder.glob("*.groovy")):
            return folder
    raise QuPathError(f"The Groovy scripts are missing from this installation. {REINSTALL}")


def read_shipped_scripts() -> dict[str, bytes]:
    """Read the content of each script by its name: its path below their folder, with slashes.

    Raises:
        QuPathError: they are missing from the installation.
    """
    folder = find_script_folder()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.groovy"))
    }


def find_series(version: str) -> str:
    """Give ``0.6`` for ``0.6.0-rc1``: each series has its own preferences and user folder."""
    stated = re.match(r"\d+\.\d+", version)
    return stated[0] if stated else DEFAULT_SERIES


def suggest_user_folder(version: str) -> Path:
    """Give the folder, existing or not, that QuPath suggests when it asks for a user folder."""
    return Path.home() / "QuPath" / f"v{find_series(version)}"


def explain_how_to_choose(user_folder: Path) -> str:
    """Tell in a sentence how to make QuPath use a user folder."""
    return (
        f"Choose {user_folder} in QuPath under Edit > Preferences > Extensions > QuPath user "
        "directory, and start QuPath again."
    )


def menu_folder(user_folder: Path) -> Path:
    """Give the folder in which QuPath looks for our scripts."""
    return user_folder / "scripts" / MENU


def look(folder: Path, shipped: Mapping[str, bytes]) -> tuple[ScriptCopy, ...]:
    """Compare the copies in a folder with the scripts of this package.

    Raises:
        OutputError: a copy cannot be read.
        FormatError: a newer version of this program installed them.
    """
    recorded = _read_record(folder)
    return tuple(
        ScriptCopy(folder / name, _state(folder / name, content, recorded.get(name)))
        for name, content in shipped.items()
    )


def put(folder: Path, shipped: Mapping[str, bytes]) -> tuple[ScriptCopy, ...]:
    """Copy missing and outdated scripts into a folder; edited copies stay as they are.

    A script that came with an earlier version and no longer comes is removed unless it was edited.

    Args:
        folder: folder to copy into; created if needed.
        shipped: contents of the scripts by name.

    Returns:
        The copies as they were before.

    Raises:
        OutputError: the folder cannot be written.
        FormatError: a newer version of this program installed them.
    """
    found = look(folder, shipped)
    make_folder(folder, _FOLDER_FIX)
    for copy, content in zip(found, shipped.values(), strict=True):
        if copy.state in ("missing", "outdated"):
            make_folder(copy.path.parent, _FOLDER_FIX)
            write_atomically(copy.path, content)
    for name, digest in _read_record(folder).items():
        if name not in shipped and _state(folder / name, b"", digest) == "outdated":
            (folder / name).unlink()
    named = zip(found, shipped.items(), strict=True)
    _write_record(folder, dict(one for copy, one in named if copy.state != "edited"))
    return found


def _state(path: Path, shipped: bytes, recorded: str | None) -> CopyState:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be read ({exc.strerror}): check its permissions, or move it away."
        ) from exc
    if content == shipped:
        return "current"
    return "outdated" if _sha256(content) == recorded else "edited"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_record(folder: Path) -> dict[str, str]:
    """Read the SHA-256 of each installed script by name; without it, copies count as edited."""
    path = folder / _RECORD
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    if lines and (stated := _RECORD_FORMAT.fullmatch(lines[0])):
        SCRIPT_RECORD.check_number(path, int(stated[1]))
        lines = lines[1:]
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_record(folder: Path, ours: Mapping[str, bytes]) -> None:
    recorded = _read_record(folder)
    new = {**recorded, **{name: _sha256(content) for name, content in ours.items()}}
    if new != recorded:
        lines = [f"{digest}  {name}\n" for name, digest in sorted(new.items())]
        heading = f"# format {SCRIPT_RECORD.number}\n"
        write_atomically(folder / _RECORD, "".join([heading, *lines]).encode())
