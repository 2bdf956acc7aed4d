"""Where a slide is: paths, and the `file:` URIs that QuPath's projects hold. No I/O."""

from __future__ import annotations

import re
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from ..errors import SlideError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""Beginning of an address, with at least two letters: `C:/x.svs` is a path."""

_DRIVE = re.compile(r"[A-Za-z]:")


def path_from_location(text: str, *, windows: bool) -> PurePath:
    """Convert a location to a path: a `file:` URI, or a path as it stands.

    Understood are the forms of Java, hence of QuPath (``file:/C:/x.svs``,
    ``file:////server/share/x.svs``), and those of RFC 8089 (``file:///C:/x.svs``,
    ``file://server/share/x.svs``), percent-encoded or not.

    Args:
        text: the location, a path or URI.
        windows: whether the path is for Windows, else for POSIX.

    Raises:
        SlideError: the location is no file of this computer.
    """
    if "\0" in text or not text.strip():
        raise SlideError("The location of the slide is empty or holds a NUL. Pass a path.")
    if text[:5].lower() != "file:":
        if _REMOTE.match(text):
            raise SlideError(f"{text} is not on this computer. Download it and pass its path.")
        return PureWindowsPath(text) if windows else PurePosixPath(text)
    host, path = _split(text)
    return _windows_path(host, path, text) if windows else _posix_path(host, path, text)


def _split(uri: str) -> tuple[str, str]:
    """Split a `file:` URI into host (empty for this computer) and decoded path."""
    rest = uri[5:]
    if "?" in rest or "#" in rest:
        raise SlideError(f"{uri} names more than a file. Write ? as %3F and # as %23.")
    host = ""
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        rest = slash + tail
    try:
        path = unquote(rest, errors="strict")
    except UnicodeDecodeError as exc:
        raise SlideError(f"{uri} is not percent-encoded UTF-8. Pass a plain path.") from exc
    if "\0" in path or not path.startswith("/"):
        raise SlideError(f"{uri} has no absolute path. Pass a plain path.")
    return ("" if host.lower() == "localhost" else unquote(host)), path


def _windows_path(host: str, path: str, uri: str) -> PureWindowsPath:
    if _DRIVE.fullmatch(host):  # file://C:/x.svs, which many programs write
        return PureWindowsPath(host + path)
    if host:
        return PureWindowsPath(f"//{host}{path}")
    if _DRIVE.match(path[1:]):
        return PureWindowsPath(path[1:])
    if path.startswith("//"):
        return PureWindowsPath(path)
    raise SlideError(f"{uri} is a path of another system. Pass the path on this computer.")


def _posix_path(host: str, path: str, uri: str) -> PurePosixPath:
    if _DRIVE.fullmatch(host) or _DRIVE.match(path[1:]):
        raise SlideError(f"{uri} is a path of a Windows computer. Pass the path on this computer.")
    if host:
        raise SlideError(
            f"{uri} is on the Windows share \\\\{host}. Mount the share and pass the path that it "
            "then has on this computer."
        )
    return PurePosixPath(path)
