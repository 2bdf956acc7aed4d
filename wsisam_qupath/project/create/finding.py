"""Finds slides by folder, pattern or file name, and names them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import SlideError

SUFFIXES = (
    ".ome.tif", ".ome.tiff", ".ome.btf",
    ".svs", ".ndpi", ".mrxs", ".scn", ".tif", ".tiff", ".btf", ".bif", ".vms", ".vmu", ".svslide",
    ".qptiff", ".czi", ".vsi", ".lif", ".nd2", ".zvi", ".oir", ".oib", ".ims",
    ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif",
)  # fmt: skip
"""What is looked for in a folder. A pattern or a name may mean any file."""


def find_slides(wanted: Sequence[str]) -> tuple[Path, ...]:
    """Find slides: absolute paths, each once, in natural order (slide 2 before slide 10).

    Hidden ones are left out, and so is, in a folder, what is no slide by its name.

    Args:
        wanted: folders, names of files, and patterns, where ``**`` is any folder.

    Raises:
        SlideError: one of them means no file.
    """
    found: dict[str, Path] = {}
    for one in wanted:
        for path in _find_meant(one):
            absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
            found.setdefault(os.path.realpath(path), absolute)
    return tuple(sorted(found.values(), key=lambda path: natural_key(str(path))))


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sort key that compares numbers within text by their value."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(p), "") if n % 2 else (0, p.lower()) for n, p in enumerate(parts)]


def strip_format(name: str) -> str:
    """Remove the format's suffix from the name of a slide's file; keep other names."""
    lower = name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return name[: -len(suffix)]
    return name


def _find_meant(wanted: str) -> Sequence[Path]:
    path = Path(wanted).expanduser()
    # Not Path's own, which raise where a name is too long.
    if os.path.isdir(path):  # noqa: PTH112
        files = [one for one in _files(path.iterdir()) if one.name.lower().endswith(SUFFIXES)]
        if not files:
            raise SlideError(
                f"There are no slides in {path}. Name the folder that they lie in, or a pattern "
                f'such as "{path / "**" / "*.svs"}".'
            )
        return files
    if os.path.exists(path):  # noqa: PTH110
        return [path]
    files = list(_files(Path(one) for one in glob.glob(str(path), recursive=True)))  # noqa: PTH207
    if not files:
        raise SlideError(f"There is no slide {wanted}. Check the name and the folder.")
    return files


def _files(paths: Iterator[Path]) -> Iterator[Path]:
    return (path for path in paths if path.is_file() and not path.name.startswith("."))
