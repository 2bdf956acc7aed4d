"""Notes where this program is, so that the scripts in QuPath can start its server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ...files import write_atomically
from ...files.formats import PROGRAM_NOTE

NOTE = Path("~/.wsisam-qupath/program.json")
"""Path of the note, where the scripts look for it."""


def find_command() -> list[str]:
    """Find the command that starts this program, without arguments."""
    return [sys.executable, "-m", __package__.partition(".")[0]]


def is_noted() -> bool:
    """Whether the note names this program.

    Raises:
        FormatError: a newer version wrote the note.
    """
    path = NOTE.expanduser()
    try:
        found = json.loads(path.read_text("utf-8"))
        PROGRAM_NOTE.check(path, found)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    return bool(found.get("command") == find_command())


def note() -> Path:
    """Write the note; it replaces that of another installation.

    Raises:
        OutputError: it cannot be written.
    """
    path = NOTE.expanduser()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps({**PROGRAM_NOTE.stated, "command": find_command()}, indent=2) + "\n"
    write_atomically(path, content.encode("ascii"), private=True)
    return path
