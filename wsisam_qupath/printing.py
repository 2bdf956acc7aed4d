"""Words for people, on a terminal."""

from __future__ import annotations

LONGEST = 1000
"""Longer words than these are cut: a whole file may stand in the place of a name."""


def printable(text: str, longest: int = LONGEST) -> str:
    """The text on one line, without what a terminal obeys instead of showing it.

    Ids, classes and names of files come from others, and may hold anything.
    """
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
