"""Names of slides and images: which files are meant, and which names are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from ..files.names import name_key

SUFFIXES = (
    ".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf2", ".ome.tf8",
    ".svs", ".ndpi", ".mrxs", ".scn", ".tif", ".tiff", ".btf", ".tf8", ".bif", ".vms", ".vmu",
    ".svslide", ".dcm", ".qptiff", ".czi", ".vsi", ".lif", ".nd2", ".zvi", ".oir", ".oib", ".ims",
    ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".bmp", ".gif", ".webp",
)  # fmt: skip
"""Suffixes of slides and images, in whatever case: slides come before pictures of them."""


def is_image_name(name: str) -> bool:
    """Whether a file is a slide or an image by its name; hidden ones, such as macOS's, are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def strip_format(name: str) -> str:
    """Strip the ending that tells a slide's format from a name; other names stay as they are."""
    lower = name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return name[: -len(suffix)]
    return name


def rank(name: str) -> int:
    """Rank a name by the place of its format in :data:`SUFFIXES`."""
    lower = name.lower()
    return next((n for n, suffix in enumerate(SUFFIXES) if lower.endswith(suffix)), len(SUFFIXES))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Make a key that sorts numbers within text by their value."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(p), "") if n % 2 else (0, p.lower()) for n, p in enumerate(parts)]


def split_location(location: str) -> tuple[str, ...]:
    """Split a path of any system into names, without "." and ".."; the last is the file's."""
    return tuple(part for part in re.split(r"[\\/]+", location) if part not in ("", ".", ".."))


def find_best_match(location: str, paths: Iterable[Path]) -> Path | None:
    """Find the file that a path from another computer means, by its name and its folders.

    Args:
        location: relative or absolute, of Windows or POSIX, percent-encoded or not.
        paths: existing files to choose from.

    Returns:
        The one with the most last names in common with the location, at least the file's own
        name; None where there is none, or where two agree equally.
    """
    found: list[tuple[int, Path]] = []
    spellings = {split_location(location), split_location(unquote(location))}
    for path in paths:
        shared = max(_shared_parts(spelling, path.parts) for spelling in spellings)
        if shared:
            found.append((shared, path))
    most = max((shared for shared, _ in found), default=0)
    best = [path for shared, path in found if shared == most]
    return best[0] if len(best) == 1 else None


def _shared_parts(one: Sequence[str], other: Sequence[str]) -> int:
    shared = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if name_key(left) != name_key(right):
            break
        shared += 1
    return shared


def find_existing(path: Path) -> Path | None:
    """Find a path, or the one that differs only in case or the composition of letters.

    Returns:
        None where nothing is there, or several such.
    """
    try:
        if path.exists():
            return path
        parent = path.parent
        folder = parent if parent == path or parent.is_dir() else find_existing(parent)
        if folder is None or folder == path:
            return None
        key = name_key(path.name)
        alike = [one for one in folder.iterdir() if name_key(one.name) == key]
    except (OSError, ValueError):  # a name that no file can have, or a folder that is closed
        return None
    return alike[0] if len(alike) == 1 else None
