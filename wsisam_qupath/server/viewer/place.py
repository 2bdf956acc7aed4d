"""What a page shows: one slide, or the slides of a folder and of the folders in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import SlideError
from ...slide.names import is_image_name, natural_key

_MOST_SLIDES = 2_000
"""Most slides in the list: nobody would read a longer one."""

_DICOM = ".dcm"


@dataclass(frozen=True)
class ShownPlace:
    """The folder of the slides that a page shows.

    Attributes:
        folder: absolute path without links.
        slide_name: name of the only slide that is shown; None for all in the folder.
    """

    folder: Path
    slide_name: str | None = None

    def list_slides(self) -> list[str]:
        """List the paths of slides from the folder, with ``/``, in natural order."""
        if self.slide_name is not None:
            return [self.slide_name]
        found = [path.relative_to(self.folder).as_posix() for path in _walk(self.folder)]
        return sorted(found, key=natural_key)

    def locate(self, name: str) -> str:
        """Find the location of a slide; whether it may be read is another question."""
        return f"{self.folder}{os.sep}{name}"


def find_place(wanted: Path) -> ShownPlace:
    """Find the slide or the folder that is to be shown.

    Raises:
        SlideError: nothing is there, a folder without slides, or a name that a browser cannot say.
    """
    path = Path(os.path.realpath(wanted.expanduser()))
    if path.is_dir():
        place = ShownPlace(path)
        if not place.list_slides():
            raise SlideError(
                f"There are no slides in {wanted}. Name a slide, or the folder that slides lie in."
            )
        return place
    if not path.exists():
        raise SlideError(f"There is no slide {wanted}. Check the name and the folder.")
    if not _is_utf8(path.name):
        raise SlideError(
            f"The name of {wanted} is not in UTF-8, so that no browser can ask for it. Rename it."
        )
    return ShownPlace(path.parent, path.name)


def _is_utf8(name: str) -> bool:
    """Whether a browser can name a file; Linux lets names have any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: Path) -> Iterator[Path]:
    """Walk through the slides in a folder, of a DICOM series the first file.

    What is hidden is left out, and what a browser cannot name.
    """
    count = 0
    for inside, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and _is_utf8(one))
        has_dicom = False
        images = [one for one in files if is_image_name(one) and _is_utf8(one)]
        for name in sorted(images, key=natural_key):
            is_dicom = name.lower().endswith(_DICOM)
            if is_dicom and has_dicom:
                continue
            has_dicom = has_dicom or is_dicom
            yield Path(inside, name)
            count += 1
            if count == _MOST_SLIDES:
                return
