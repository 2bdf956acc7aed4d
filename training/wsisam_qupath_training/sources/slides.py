"""Find slides by name, for annotations that do not lie beside them or name no path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsisam_qupath.errors import SlideError
from wsisam_qupath.files.names import name_key
from wsisam_qupath.slide.names import (
    find_best_match,
    is_image_name,
    natural_key,
    rank,
    strip_format,
)


@dataclass(frozen=True)
class SlideFolder:
    """The slides of a folder; see :func:`slides_in`.

    Attributes:
        paths: slides by the key of the file's name; see :func:`.name_key`.
        bare_paths: slides by the key of the name without the ending. Of several, the one with the
            format that stands first in :data:`.SUFFIXES`: a slide before a picture of it.
        all_paths: every slide, also those with the same name.
    """

    folder: Path
    paths: Mapping[str, Path]
    bare_paths: Mapping[str, Path]
    all_paths: tuple[Path, ...]

    def find(self, name: str) -> Path:
        """Find the slide of a name with or without its ending; see :func:`.name_key`.

        Raises:
            SlideError: there is none.
        """
        key = name_key(name)
        found = self.paths.get(key) or self.bare_paths.get(key)
        found = found or self.bare_paths.get(name_key(strip_format(name)))
        if found is None:
            raise SlideError(
                f"its slide is not in {self.folder}: put it there, or give the folder of the slides"
            )
        return found

    def find_location(self, location: str) -> Path:
        """Find the slide of a path from any computer; see :func:`.find_best_match`.

        Raises:
            SlideError: there is none, or there are several.
        """
        found = find_best_match(location, self.all_paths)
        if found is None:
            raise SlideError(f"it is not in {self.folder}")
        return found


def slides_in(folder: Path, *, below: bool = False, ending: str | None = None) -> SlideFolder:
    """List what is a slide by its name in a folder, or also in its subfolders.

    Args:
        ending: ending of the names of files that are no slides, such as label masks.

    Raises:
        SlideError: there is no such folder.
    """
    if not folder.is_dir():
        raise SlideError(f"There is no folder {folder}. Give the folder of the slides.")
    files = [
        path
        for path in (folder.rglob("*") if below else folder.iterdir())
        if is_image_name(path.name)
        and path.is_file()
        and not (ending and name_key(path.name).endswith(name_key(ending)))
    ]
    # Backwards, so that of two with one name the first stays.
    files.sort(key=lambda path: natural_key(str(path)), reverse=True)
    by_format = sorted(files, key=lambda path: rank(path.name), reverse=True)
    return SlideFolder(
        folder,
        {name_key(path.name): path.absolute() for path in files},
        {name_key(strip_format(path.name)): path.absolute() for path in by_format},
        tuple(path.absolute() for path in files),
    )


def named_files(folder: Path, ending: str) -> list[Path]:
    """List the files with a name ending, in any case, in natural order.

    Hidden ones are left out: macOS puts one beside each file.
    """
    key = name_key(ending)
    files = (path for path in folder.iterdir() if name_key(path.name).endswith(key))
    return sorted(
        (path for path in files if not path.name.startswith(".") and path.is_file()),
        key=lambda path: natural_key(path.name),
    )
