"""Notes where this program is, so that the scripts in QuPath can start its server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ...files import write_atomically

NOTE = Path("~/.wsisam-qupath/program.json")
"""Where the scripts look."""


def find_command() -> list[str]:
    """The command that starts this program, without arguments."""
    return [sys.executable, "-m", __package__.partition(".")[0]]


def is_noted() -> bool:
    """Whether the note names this program."""
    try:
        found = json.loads(NOTE.expanduser().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("command") == find_command()


def note() -> Path:
    """Write the note, in place of that of another installation.

    Raises:
        OutputError: it cannot be written.
    """
    path = NOTE.expanduser()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps({"command": find_command()}, indent=2) + "\n"
    write_atomically(path, content.encode("ascii"), private=True)
    return path
