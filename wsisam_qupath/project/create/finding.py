"""Finds slides by folder, pattern or file name."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import SlideError
from ...slide.names import find_existing, is_image_name, natural_key


def find_slides(wanted: Sequence[str]) -> tuple[Path, ...]:
    """Find slides: absolute paths, each once, in natural order (slide 2 before slide 10).

    Hidden ones are left out, and so is, in a folder, what is no slide by its name.

    Args:
        wanted: folders, file names, and patterns, in which ``**`` is any folder.

    Raises:
        SlideError: one of them means no file.
    """
    found: dict[str, Path] = {}
    for one in wanted:
        for path in _find_meant(one):
            absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
            found.setdefault(os.path.realpath(path), absolute)
    return tuple(sorted(found.values(), key=lambda path: natural_key(str(path))))


def _find_meant(wanted: str) -> Sequence[Path]:
    path = Path(wanted).expanduser()
    path = find_existing(path) or path
    # Not Path's own, which raise where a name is too long.
    if os.path.isdir(path):  # noqa: PTH112
        files = [one for one in _files(path.iterdir()) if is_image_name(one.name)]
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
