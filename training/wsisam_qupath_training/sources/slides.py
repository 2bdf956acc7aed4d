"""Slides by name, for annotations that do not lie beside them or name no path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsisam_qupath.errors import SlideError
from wsisam_qupath.project.create.finding import SUFFIXES, natural_key, strip_format


@dataclass(frozen=True)
class SlideFolder:
    """Slides of a folder; see :func:`slides_in`.

    Attributes:
        paths: by lower-case name of the file.
        bare_paths: by lower-case name without the ending. Of several, that of the format that
            stands first in :data:`.SUFFIXES`: a slide before a picture of it.
    """

    folder: Path
    paths: Mapping[str, Path]
    bare_paths: Mapping[str, Path]

    def find(self, name: str) -> Path:
        """The slide of a name with or without its ending; upper and lower case are one.

        Raises:
            SlideError: there is none.
        """
        found = self.paths.get(name.lower()) or self.bare_paths.get(name.lower())
        found = found or self.bare_paths.get(strip_format(name).lower())
        if found is None:
            raise SlideError(
                f"its slide is not in {self.folder}: put it there, or give the folder of the slides"
            )
        return found


def slides_in(folder: Path, *, below: bool = False) -> SlideFolder:
    """What is a slide by its name in a folder, or also in the folders below it.

    Raises:
        SlideError: there is no such folder.
    """
    if not folder.is_dir():
        raise SlideError(f"There is no folder {folder}. Give the folder of the slides.")
    files = [path for path in (folder.rglob("*") if below else folder.iterdir()) if _is_slide(path)]
    # Backwards, so that of two with one name the first stays.
    files.sort(key=lambda path: natural_key(str(path)), reverse=True)
    by_format = sorted(files, key=_rank, reverse=True)
    return SlideFolder(
        folder,
        {path.name.lower(): path.absolute() for path in files},
        {strip_format(path.name).lower(): path.absolute() for path in by_format},
    )


def _is_slide(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def _rank(path: Path) -> int:
    lower = path.name.lower()
    return next(rank for rank, suffix in enumerate(SUFFIXES) if lower.endswith(suffix))
