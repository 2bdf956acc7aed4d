"""GeoJSON output of a batch: one file per image, beside or instead of the project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import OutputError, PromptError
from ...files import is_list, make_folder, read_json
from ...geojson import write_features
from ...geojson.authorship import is_ours
from ...geojson.manifest import file_names
from ...qupath.files.entries import ImageEntry
from ...report.outcome import PromptRow


class GeoJsonFolder:
    """Folder with one GeoJSON file of outlines per image.

    Args:
        images: all images of the project, so that file names do not depend on the user's choice.

    Raises:
        OutputError: the folder cannot be made, or has files of these names that no batch wrote.
    """

    def __init__(self, folder: Path, images: Iterable[ImageEntry]) -> None:
        self._folder = folder
        self._names = file_names([(image.id, image.name) for image in images])
        make_folder(folder)
        for name in self._names.values():
            _check_ours(folder / name)

    def write(self, entry: ImageEntry, rows: Sequence[PromptRow]) -> None:
        """Write all outlines of an image, new ones and those of earlier runs.

        Raises:
            OutputError: the file cannot be written.
        """
        features = [row.feature for row in rows if row.feature is not None]
        write_features(self._folder / self._names[entry.id], features)


def _check_ours(path: Path) -> None:
    """Refuse to replace a user's own annotations: their files bear the slides' names as well.

    Raises:
        OutputError: the file holds a user's annotations.
    """
    if not path.exists():
        return
    try:
        document = read_json(path, fix="")
    except PromptError:
        document = None
    features: Any = document.get("features") if isinstance(document, dict) else None
    if not is_list(features) or not all(map(_is_ours, features)):
        raise OutputError(
            f"{path} would be replaced, but is not from this program: choose another folder."
        )


def _is_ours(feature: object) -> bool:
    return isinstance(feature, dict) and is_ours(feature)
