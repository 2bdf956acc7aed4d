"""Results that ``segment --table`` left in a folder, for the prompts of a project's images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ImageError, OptionError, PromptError
from ...files import read_json
from ...geojson import Feature
from ...geojson.manifest import file_names
from ...geojson.provenance import PROMPT_KEY
from ...options import GEOJSON_ENDINGS, ObjectType
from ...prompts.results import SerializedResult
from ...qupath.files.entries import ImageEntry
from ..slide_table.status import SlideFiles, SlideStatus
from .selection import Task, has_look


class StoredResults:
    """The results for the images of a project, in the files of a table's slides.

    Args:
        folder: folder of the files; see :class:`.SlideFiles`.
        images: all images of the project, in its order: they are named as in the table that
            ``batch`` writes.

    Raises:
        OptionError: there is no such folder.
    """

    def __init__(self, folder: Path, images: Iterable[ImageEntry], object_type: ObjectType) -> None:
        if not folder.is_dir():
            raise OptionError("from_folder", f"there is no folder {folder}.")
        self._folder, self._object_type = folder, object_type
        self._names = file_names([(image.id, image.name) for image in images])

    def find(self, entry: ImageEntry, tasks: Sequence[Task]) -> list[SerializedResult]:
        """Find the results for prompts of an image, as they are drawn now.

        Returns:
            None for a prompt that was drawn or changed since, nor where the slide was not among
            those of the table.

        Raises:
            ImageError: the slide is not done, its results were changed, or they are of another
                model or other options.
        """
        if not tasks:
            return []
        files = SlideFiles(self._folder, self._names[entry.id].removesuffix(".geojson"))
        status = files.read_status()
        if status is None:
            return []
        stored = {**_read_outlines(files, status), **_list_empty(status)}
        asked = {task.result_id: task for task in tasks}
        found = [
            one
            for result_id, one in stored.items()
            if result_id in asked and self._fits(one, asked[result_id])
        ]
        if stored and not found:
            raise ImageError(
                f"{files.status}: there is no result for any prompt of {entry.name} as it is drawn "
                "now, with this model and these options. Give the model and the options that the "
                "results were made with, or make the table again."
            )
        return found

    def _fits(self, result: SerializedResult, task: Task) -> bool:
        """Whether a result has the class and the type that a new one would have."""
        feature = result.feature
        return feature is None or has_look(feature, task.prompt, self._object_type)


def _read_outlines(files: SlideFiles, status: SlideStatus) -> Mapping[str, SerializedResult]:
    """Read the outlines of a slide that is done, by their ids.

    Raises:
        ImageError: it is not done, or the file is not the one that was written then.
    """
    if status.state == "failed":
        raise ImageError(f"{files.status}: the slide failed there. {status.reason}")
    if status.state != "done":
        raise ImageError(f"{files.status}: the slide is not done. Run its job again.")
    path = _find_geojson(files, status)
    try:
        document: Any = read_json(path, fix="Run the job of the slide again.")
    except PromptError as exc:
        raise ImageError(str(exc)) from exc
    results = (_make_result(feature) for feature in document["features"])
    return {one.id: one for one in results}


def _find_geojson(files: SlideFiles, status: SlideStatus) -> Path:
    """Find the outlines of a slide that is done, plain or compressed.

    Raises:
        ImageError: they are gone or were changed, or are in another format.
    """
    written = [ending for ending in GEOJSON_ENDINGS if ending in status.outputs]
    if not written:
        raise ImageError(
            f"{files.status}: the outlines are not in GeoJSON, and only that is taken into a "
            "project. Run the job of the slide again with the format geojson."
        )
    intact = files.find_intact(status)
    found = next((ending for ending in written if ending in intact), None)
    if found is None:
        raise ImageError(
            f"{files.path(written[0])} is gone, or was changed after it was written: run the job "
            "of the slide again."
        )
    return files.path(found)


def _make_result(feature: Feature) -> SerializedResult:
    prompt_id = feature["properties"]["metadata"][PROMPT_KEY]
    return SerializedResult(feature["id"], prompt_id, feature)


def _list_empty(status: SlideStatus) -> Mapping[str, SerializedResult]:
    return {
        one.id: SerializedResult(one.id, one.prompt_id, None, one.reason) for one in status.empty
    }
