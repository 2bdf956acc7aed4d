"""Files with tokens: one token that all clients share, or a name and a token per line.

A file of names is looked at with each request, so that a line that is removed from it, or added,
counts at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ..errors import OptionError
from ..files import read_file

_BYTES_MAX = 64 << 10
_TOKEN = re.compile(r"[!-~]{16,}")
_NAME_LENGTH_MAX = 64


def read_token_text(file: Path) -> str:
    """Read a file of tokens; empty if there is none.

    Raises:
        OptionError: it cannot be read, or is no text.
    """
    try:
        return read_file(file, bytes_max=_BYTES_MAX).decode("utf-8-sig").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(
            "token_file", f"{file} cannot be read as a token ({exc}). Choose another file."
        ) from exc


def is_token(text: str) -> bool:
    """Whether a text is one token: at least 16 letters, digits and signs."""
    return _TOKEN.fullmatch(text) is not None


def holds_names(text: str) -> bool:
    """Whether a file of tokens has names in it, not one token for all."""
    return any(len(line.split()) > 1 or line.startswith("#") for line in text.splitlines())


def parse_names(text: str) -> tuple[Mapping[str, str], list[int]]:
    """Read the lines of a file of names, ``name token``; lines that begin with ``#`` are notes.

    Returns:
        Names by their tokens, and the numbers of lines that are none. A name or token that is
        given twice is none the second time.
    """
    names: dict[str, str] = {}
    wrong: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if _is_entry(words) and words[1] not in names and words[0] not in names.values():
            names[words[1]] = words[0]
        else:
            wrong.append(number)
    return names, wrong


def read_names(file: Path) -> Mapping[str, str]:
    """Read names by their tokens from a file as it is now; none while it cannot be read."""
    try:
        state = file.stat()
    except OSError:
        return {}
    return _read_names(file, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=1)
def _read_names(file: Path, _version: tuple[int, int, int]) -> Mapping[str, str]:
    try:
        return parse_names(read_token_text(file))[0]
    except OptionError:
        return {}


def _is_entry(words: list[str]) -> bool:
    return (
        len(words) == 2
        and words[0].isprintable()
        and len(words[0]) <= _NAME_LENGTH_MAX
        and is_token(words[1])
    )
