"""Where QuPath looks for its user's own scripts: what its preferences say, read without Java.

QuPath keeps them through ``java.util.prefs``, in the node ``io.github.qupath/0.6``: an XML file on
Linux, a property list on macOS, the registry on Windows.
"""

from __future__ import annotations

import base64
import platform
import re
import sys
from pathlib import Path
from typing import Any

DEFAULT_SERIES = "0.6"
"""What is meant where no QuPath says its version."""

_NODE = "io.github.qupath"
_KEY = "userPath"

_JAVA_BASE64 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "!\"#$%&'(),-.:;<>@[]^`_{|}~abcdefghijklmnopqrstuvwxyz0123456789+?",
)
"""From the alphabet of base64 to the one that Java takes for names of folders."""


def find_series(version: str) -> str:
    """``0.6`` of ``0.6.0-rc1``: each series has preferences and a user folder of its own."""
    stated = re.match(r"\d+\.\d+", version)
    return stated[0] if stated else DEFAULT_SERIES


def find_user_folder(version: str, home: Path | None = None) -> Path | None:
    """The user folder that somebody chose in QuPath.

    Args:
        version: QuPath's.
        home: the user's home folder; not needed on Windows.

    Returns:
        A folder that is there; None where none was chosen, or where it is gone, which QuPath
        takes for none.
    """
    stated = _read_stated_user_folder(find_series(version), home or Path.home())
    if not stated:
        return None
    folder = Path(stated)
    return folder if folder.is_dir() else None


def suggest_user_folder(version: str, home: Path | None = None) -> Path:
    """What QuPath suggests when it first asks for a user folder; there or not."""
    return (home or Path.home()) / "QuPath" / f"v{find_series(version)}"


def explain_how_to_choose(user_folder: Path) -> str:
    """What a user does for QuPath to look into a folder, a sentence."""
    return (
        f"Choose {user_folder} in QuPath under Edit > Preferences > Extensions > QuPath user "
        "directory, and start QuPath again."
    )


def _read_stated_user_folder(series: str, home: Path) -> str | None:
    if sys.platform == "win32":
        return _from_registry(series)
    if platform.system() == "Darwin":
        path = home / "Library" / "Preferences" / "com.apple.java.util.prefs.plist"
        return read_from_property_list(_content(path), series)
    nodes = (folder_of_node(name) for name in (_NODE, series))
    return read_from_xml(_content(home.joinpath(".java", ".userPrefs", *nodes, "prefs.xml")))


def _content(path: Path) -> bytes:
    """Empty where there is no file that may be read: Java, too, goes on without it."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def folder_of_node(name: str) -> str:
    """The folder in which Java keeps a node of preferences on Linux.

    A name with a dot or an underscore, or beyond ASCII, becomes base64 of its UTF-16, in an
    alphabet of Java's own.
    """
    if all(" " <= char <= "~" and char not in "/._" for char in name):
        return name
    return "_" + base64.b64encode(name.encode("utf-16-be")).decode("ascii").translate(_JAVA_BASE64)


def read_from_xml(content: bytes) -> str | None:
    """The user folder that a ``prefs.xml`` of Java on Linux states; None where it states none."""
    from xml.etree import ElementTree  # needed once

    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return None
    stated = {entry.get("key"): entry.get("value") for entry in root.iter("entry")}
    return stated.get(_KEY)


def read_from_property_list(content: bytes, series: str) -> str | None:
    """The user folder that Java's property list on macOS states; None where it states none.

    Nodes of one or two names share one file, as dictionaries whose keys end in ``/``.
    """
    import plistlib  # needed once
    from xml.parsers.expat import ExpatError

    try:
        node: Any = plistlib.loads(content)
    except (ValueError, ExpatError):
        return None
    for key in ("/", f"{_NODE}/", f"{series}/", _KEY):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None


def from_registry_text(text: str) -> str:
    r"""What Java wrote into Windows' registry as ``/C:///Users///u00dc``: ``C:\Users\Ü``.

    A slash goes before capitals and before the number of what is not ASCII; a backslash is two
    slashes, and a slash is a backslash.
    """
    pieces = re.findall(r"/u[0-9A-Fa-f]{4}|/[A-Z/]|.", text, re.DOTALL)
    plain = "".join(_from_registry_piece(piece) for piece in pieces)
    # Beyond the first 65,536 characters Java counts two for each.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _from_registry_piece(piece: str) -> str:
    if piece == "\\":
        return "/"
    if len(piece) == 1:
        return piece
    if piece[1] == "u":
        return chr(int(piece[2:], 16))
    return "\\" if piece == "//" else piece[1]


if sys.platform == "win32":

    def _from_registry(series: str) -> str | None:
        import winreg  # of Windows alone

        place = rf"Software\JavaSoft\Prefs\{_NODE}\{series}"
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, place) as node:
                value, _kind = winreg.QueryValueEx(node, "user/Path")
        except OSError:
            return None
        return from_registry_text(value) if isinstance(value, str) else None
