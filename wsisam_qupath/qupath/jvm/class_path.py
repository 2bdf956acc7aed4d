"""Tells Java where QuPath's and JPype's classes are, wherever both are installed.

Java takes a list of paths, and loses classes below folders with letters outside of ASCII, with "!",
or with the sign that separates the paths of the list. The same places as the percent-encoded
addresses in the manifest of a small jar are read without loss, so that is what it gets there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from ...errors import QuPathError
from ...files import CACHE_VARIABLE, cache_folder

_SUPPORT = "org.jpype.jar"
"""JPype's own jar, which JPype looks for beside its package."""

_MANIFEST_LINE_BYTES = 70
"""Longest text in a line of a manifest: a line has at most 72 bytes, with its break and the space
that continues one."""


def is_plain(path: Path) -> bool:
    """Whether Java finds classes below a path of its list."""
    text = str(path)
    return text.isascii() and not any(sign in text for sign in ("!", os.pathsep))


def choose_places(app_dir: Path) -> list[Path]:
    """List folders that Java's own temporary folder may lie in, best first.

    The cache folder, since some systems forbid running programs from their temporary folder; where
    :func:`prepare` needs a plain path, plain ones only.
    """
    others = [Path(tempfile.gettempdir()), Path(os.environ.get("PROGRAMDATA") or os.sep)]
    if is_plain(app_dir) and is_plain(_find_support()):
        return [cache_folder()]
    return [place for place in (cache_folder(), *others) if is_plain(place)]


def prepare(app_dir: Path, folder: str | None) -> Path:
    """Make a folder of jars that Java finds classes in, if it does not find them as they lie.

    Args:
        app_dir: folder of QuPath's jars.
        folder: a new folder, in one of :func:`choose_places`.

    Returns:
        The folder of the jars to start Java with.

    Raises:
        QuPathError: a plain folder is needed, and there is none.
    """
    import jpype._core  # loads a shared library

    support = _find_support()
    if is_plain(app_dir) and is_plain(support):
        return app_dir
    if folder is None:
        raise QuPathError(
            f"Java cannot read {app_dir if is_plain(support) else support}, and no folder with a "
            f"plain name can be written to: name one with the variable {CACHE_VARIABLE}, with "
            "English letters and digits only."
        )
    plain = Path(folder, "classes")
    plain.mkdir()
    _write_jar_of_addresses(plain / "qupath.jar", sorted(app_dir.glob("*.jar")))
    shutil.copyfile(support, Path(folder, _SUPPORT))
    jpype._core.__file__ = str(Path(folder, "jpype", "_core.py"))
    return plain


def _find_support() -> Path:
    package = find_spec("jpype")
    assert package is not None, "paquo brings JPype"
    assert package.origin is not None
    return Path(package.origin).resolve().parent.parent / _SUPPORT


def _write_jar_of_addresses(path: Path, jars: list[Path]) -> None:
    """Write a jar without classes, which says where the others are."""
    addresses = " ".join(jar.absolute().as_uri() for jar in jars)
    line = f"Class-Path: {addresses}"
    parts = [
        line[start : start + _MANIFEST_LINE_BYTES]
        for start in range(0, len(line), _MANIFEST_LINE_BYTES)
    ]
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n" + "\n ".join(parts) + "\n")
