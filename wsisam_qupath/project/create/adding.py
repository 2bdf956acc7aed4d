"""Adds slides to a new project one by one: one on which QuPath hangs or crashes costs itself alone.

QuPath's process is ended where it has no answer in time. What it had not saved is added again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ...errors import QuPathError
from ...qupath.jvm.creation import AddedImage, NewImage, add_image, save_images
from ...qupath.jvm.process import QuPathProcess

_SLIDE_SECONDS_MAX = 30.0
"""What QuPath may take to open a slide. It takes below a second, from a slow network drive ten."""

_START_SECONDS_MAX = 180.0
"""What Java may take to start, on a busy machine."""

_UNSAVED_MAX = 16
"""Slides between two saves of the project."""


class Adder:
    """Adds slides; see :class:`.QuPathProcess`.

    Args:
        project: ``project.qpproj``, in an empty folder.
        image_type: one of :data:`...qupath.jvm.creation.IMAGE_TYPES`.
    """

    def __init__(self, qupath: QuPathProcess, project: Path, image_type: str) -> None:
        self._qupath, self._project, self._image_type = qupath, project, image_type
        self._unsaved: list[NewImage] = []

    def start(self) -> None:
        """Start QuPath and make the project.

        Raises:
            QuPathError: either fails.
        """
        self._save()

    def add(self, image: NewImage) -> AddedImage:
        """Add a slide; the reason is in the answer where that fails.

        Raises:
            QuPathError: QuPath fails also at what it did before.
        """
        try:
            added = self._run(image)
        except QuPathError as exc:
            self._restore()
            return AddedImage(
                reason=f"QuPath fails at {image.slide.name}: {exc} If the slide is sound, convert "
                "it to OME-TIFF."
            )
        if added.ids:
            self._unsaved.append(image)
        if len(self._unsaved) >= _UNSAVED_MAX:
            self._save()
        return added

    def finish(self) -> None:
        """Save what was added last.

        Raises:
            QuPathError: that fails.
        """
        self._save()

    def _run(self, image: NewImage) -> AddedImage:
        # Objects take time too: a million of them half a minute.
        seconds = _SLIDE_SECONDS_MAX + len(image.features) / 10_000
        return self._qupath.run_within(seconds, add_image, self._project, image, self._image_type)

    def _save(self) -> None:
        self._qupath.run_within(_START_SECONDS_MAX, save_images, self._project)
        self._unsaved.clear()

    def _restore(self) -> None:
        """Bring back what a process had added and not saved when it ended."""
        self._remove_leftovers()
        lost = list(self._unsaved)
        self._save()
        for image in lost:
            self._run(image)
        self._save()

    def _remove_leftovers(self) -> None:
        """Folders of images that the project does not know: their numbers are given again."""
        content = json.loads(self._project.read_text(encoding="utf-8"))
        known = {str(image.get("entryID")) for image in content.get("images", [])}
        folder = self._project.parent / "data"
        for one in folder.iterdir() if folder.is_dir() else ():
            if one.is_dir() and one.name not in known:
                shutil.rmtree(one, ignore_errors=True)
