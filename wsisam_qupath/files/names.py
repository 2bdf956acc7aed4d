"""Names of files, images and classes: the same letters, however a system composes them."""

from __future__ import annotations

import unicodedata


def compose(name: str) -> str:
    """Compose each letter of a name with its marks to one character; macOS writes ä as two."""
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """Make the key of a name: equal for names that people take for the same.

    Upper and lower case are one, and so are letters with marks whether composed or not.
    """
    return compose(name).casefold()
