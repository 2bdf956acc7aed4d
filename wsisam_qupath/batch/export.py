"""Outlines of a batch as GeoJSON, a file an image, beside or instead of the project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import OutputError
from ..geojson import write_features
from ..manifest import file_names
from ..project.entries import ImageEntry
from .outcome import PromptRow


class GeoJsonFolder:
    """Where the outlines of each image go.

    Args:
        images: all of the project, so that a name does not depend on which of them are done.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, images: Iterable[ImageEntry]) -> None:
        self._folder = folder
        self._names = file_names([(image.id, image.name) for image in images])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"{folder} cannot be created ({exc.strerror}): name another folder with --export."
            ) from exc

    def write(self, entry: ImageEntry, rows: Sequence[PromptRow]) -> None:
        """All outlines of an image, new ones and those of earlier runs.

        Raises:
            OutputError: the file cannot be written.
        """
        features = [row.feature for row in rows if row.feature is not None]
        write_features(self._folder / self._names[entry.id], features)
