"""Writes the prompts of a project as a table of slides, for computers without QuPath."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import OutputError
from ...files import check_writable
from ...geojson import Feature, write_features
from ...geojson.manifest import file_names
from ...qupath.files.entries import ImageEntry
from ...slide import Slide
from ...slide.calibration import override
from ..slide_table.rows import TableRow, write_rows
from .selection import Selection


class TableWriter:
    """A table with a row per image that has prompts, and a folder with their GeoJSON beside it.

    Args:
        path: path of the table, CSV; the folder has its name and ``-prompts``.
        images: all images of the project, in its order.

    Raises:
        OutputError: they cannot be written there.
    """

    def __init__(self, path: Path, images: Sequence[ImageEntry]) -> None:
        self._path = path.absolute()
        check_writable(self._path)
        self._folder = self._path.with_name(f"{self._path.stem}-prompts")
        self._order = {image.id: number for number, image in enumerate(images)}
        self._names = file_names([(image.id, image.name) for image in images])
        self._rows: dict[str, TableRow] = {}

    def add(
        self, entry: ImageEntry, slide: Slide, selection: Selection, annotations: Iterable[Feature]
    ) -> str:
        """Write the prompts of an image that need a result.

        Args:
            annotations: all annotations of the image.

        Returns:
            Why they were left out; empty where they were not, or there were none.

        Raises:
            OutputError: they cannot be written.
        """
        if not selection.tasks:
            return ""
        if slide.reader == "QuPath":
            return "only QuPath can read it as it is shown, so it is not in the table"
        sources = {one for task in selection.tasks for one in task.prompt.sources}
        features = [one for one in annotations if one.get("id") in sources]
        prompts = self._folder / self._names[entry.id]
        self._make_folder()
        write_features(prompts, features)
        name = self._names[entry.id].removesuffix(".geojson")
        reference = slide.reference  # opens it again with the pixel size that the project states
        mpp = None if reference.mpp is None else override(reference.mpp)
        self._rows[entry.id] = TableRow(0, reference.location, prompts, name, mpp)
        return ""

    def close(self) -> int:
        """Write the table; return how many rows it has.

        Raises:
            OutputError: it cannot be written.
        """
        write_rows(self._path, (self._rows[one] for one in sorted(self._rows, key=self._place)))
        return len(self._rows)

    def _place(self, entry_id: str) -> int:
        return self._order[entry_id]

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"{self._folder} cannot be created ({exc.strerror}): choose another place."
            ) from exc
