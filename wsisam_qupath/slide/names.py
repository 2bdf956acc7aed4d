"""Names of slides and images: which files are meant, and when two names are the same."""

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
"""What is a slide or an image by its name, in whatever case: slides before pictures of them."""


def is_image_name(name: str) -> bool:
    """Whether a file is a slide or an image by its name; hidden ones, such as macOS's, are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def strip_format(name: str) -> str:
    """The name of a slide's file without what tells its format; others stay as they are."""
    lower = name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return name[: -len(suffix)]
    return name


def rank(name: str) -> int:
    """Place of a name's format in :data:`SUFFIXES`."""
    lower = name.lower()
    return next((n for n, suffix in enumerate(SUFFIXES) if lower.endswith(suffix)), len(SUFFIXES))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorts numbers within text by their value."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(p), "") if n % 2 else (0, p.lower()) for n, p in enumerate(parts)]


def split_location(location: str) -> tuple[str, ...]:
    """The names in a path of any system, without "." and ".."; the last is that of the file."""
    return tuple(part for part in re.split(r"[\\/]+", location) if part not in ("", ".", ".."))


def find_best_match(location: str, paths: Iterable[Path]) -> Path | None:
    """The file that a path from another computer means, by its name and the folders before it.

    Args:
        location: relative or absolute, of Windows or POSIX, percent-encoded or not.
        paths: what there is.

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
    """The path, or the one that differs from it in case or the way that letters are composed.

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
