"""Databases of SlideRunner (SQLite), such as ``CATCH.sqlite``, as COCO documents."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import PromptError
from ..files import open_file

_MAGIC = b"SQLite format 3\0"
_POLYGON = 3
"""SlideRunner's number of annotations that are polygons; the others are points, boxes and
circles."""

_FIX = "Download it again from its source, or name CATCH.json."


def is_slide_runner(path: Path) -> bool:
    """Whether a file is an SQLite database; which program wrote it shows when it is read."""
    try:
        with open_file(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):
        return False


def read_slide_runner(path: Path) -> dict[str, Any]:
    """Read slides, classes and annotations; deleted ones are left out. Nothing is written.

    Returns:
        A COCO document, as CATCH's own converter makes it but for the areas. An annotation has the
        first of its labels; one that is no polygon has no outline.

    Raises:
        PromptError: it cannot be read, or is no database of SlideRunner.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return _read(database)
    except sqlite3.Error as exc:
        raise PromptError(f"{path} is no database of SlideRunner ({exc}). {_FIX}") from exc


def _read(database: sqlite3.Connection) -> dict[str, Any]:
    columns = {row[1] for row in database.execute("PRAGMA table_info(Annotations)")}
    kept = "WHERE deleted IS NOT 1" if "deleted" in columns else ""
    rows = database.execute(f"SELECT uid, slide, type FROM Annotations {kept} ORDER BY uid")
    annotations = [
        {"id": uid, "image_id": slide, "category_id": None, "segmentation": [], "type": kind}
        for uid, slide, kind in rows
    ]
    labels = _first_by_annotation(
        database.execute("SELECT annoId, class FROM Annotations_label ORDER BY uid")
    )
    outlines: defaultdict[Any, list[Any]] = defaultdict(list)
    for annotation, x, y in database.execute(
        "SELECT annoId, coordinateX, coordinateY FROM Annotations_coordinates ORDER BY annoId, "
        "orderIdx, uid"
    ):
        outlines[annotation] += (x, y)
    for row in annotations:
        row["category_id"] = labels.get(row["id"])
        if row.pop("type") == _POLYGON:
            row["segmentation"] = outlines[row["id"]]
    return {
        "images": _name_columns(
            database.execute("SELECT uid, filename FROM Slides ORDER BY uid"), "file_name"
        ),
        "categories": _name_columns(
            database.execute("SELECT uid, name FROM Classes ORDER BY uid"), "name"
        ),
        "annotations": annotations,
    }


def _first_by_annotation(rows: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for annotation, label in rows:
        found.setdefault(annotation, label)
    return found


def _name_columns(rows: Iterable[tuple[Any, Any]], name: str) -> list[dict[str, Any]]:
    return [{"id": uid, name: value} for uid, value in rows]
