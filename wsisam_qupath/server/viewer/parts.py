"""The files of the page: plain HTML, CSS and modules, as they lie in the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PAGE = "index.html"

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

_OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
"""Hash of the one rule that OpenSeadragon 6.1 adds to a page: no outline around it on touch
screens."""

_FOLDER = files(__package__) / "page"


def find_part(name: str) -> tuple[bytes, str] | None:
    """Find a file of the page and its media type; None if the page has no such file."""
    content_type = _TYPES.get(name.rpartition(".")[2])
    if name not in _list_names() or content_type is None:
        return None
    return _read(name), content_type


def page_policy() -> str:
    """Make the page's Content-Security-Policy: its own files, and the tiles that it loads."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{_OPENSEADRAGON_STYLE}'; "
        "connect-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


@cache
def _list_names() -> frozenset[str]:
    return frozenset(one.name for one in _FOLDER.iterdir() if one.is_file())


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
