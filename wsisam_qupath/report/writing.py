"""Write a report file: one row per prompt, and one per image without prompts.

``.html`` is for skimming (see :mod:`.page`), ``.csv`` for spreadsheets, ``.json`` for
programs::

    {"format": "wsisam-qupath batch report",
     "version": 1,
     "about":  {the fields of ReportHeader, "started" as ISO 8601},
     "counts": {"images": {state: n}, "prompts": {state: n}},
     "images": [{"id", "name", "state", "reason", "slide", "mpp", "seconds", "backup"}],
     "rows":   [{the COLUMNS of report_rows}]}

What does not apply is null. ``mpp`` is [x, y], µm per level-0 px. An outline in a row with the
``image_state`` "failed" is not in the project. ``version`` rises when a key goes or changes its
meaning; keys may be added without.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import OptionError, OutputError, escape
from ..files import check_writable, open_file, write_atomically
from ..prompts.results import Scalar
from ..qupath.files.entries import Project
from .outcome import ImageOutcome
from .page import GENERATOR, Pages
from .tables import COLUMNS, ReportHeader, Row, make_rows
from .thumbnails import OpenSlideOf, open_again

__all__ = ["ReportHeader", "check_report_path", "write_report"]

_FORMAT = "wsisam-qupath batch report"
_VERSION = 1


_FORMULA = re.compile(r"(^|;)(\s*[=+\-@＝＋－＠])")
"""Beginnings of text that a spreadsheet would run: at the start of a cell, and after a semicolon,
which divides cells where commas are decimal."""


def check_report_path(path: Path, *, project: Project | None = None) -> None:
    """Check before the work starts that a report can be written to a file.

    Args:
        project: the project of the batch; some of its files are JSON too.

    Raises:
        OptionError: the suffix is none of .json, .csv and .html, or the report would lie in one of
            its folders.
        OutputError: no such folder, no permission, or something else is there.
    """
    if path.suffix.lower() not in (".json", ".csv", ".html"):
        raise OptionError(
            "report",
            f"{path} is not a report: end the name in .html to look at it, in .csv for a "
            "spreadsheet, or in .json for programs.",
        )
    place = Path(os.path.realpath(path))
    if project is not None and any(
        place.is_relative_to(os.path.realpath(folder))
        for folder in (project.folder / "data", project.folder / "classifiers", project.own_folder)
    ):
        raise OptionError(
            "report", f"{path} would lie among the project's own files: choose another folder."
        )
    check_writable(path)


def write_report(
    path: Path,
    outcomes: Sequence[ImageOutcome],
    about: ReportHeader,
    open_slide_of: OpenSlideOf = open_again,
    on_drawn: Callable[[], object] = lambda: None,
) -> None:
    """Write a report in the format of its suffix, completely or not at all.

    A large .html report has more pages, ``report-2.html`` and so on, which come first: what links
    to them is written last.

    Args:
        outcomes: outcomes of the images, in the order of the project.
        open_slide_of: opens slides for the pictures of .html, one at a time.
        on_drawn: called after each picture.

    Raises:
        OptionError, OutputError: see :func:`check_report_path`.
    """
    check_report_path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        _write(path, _json(outcomes, about))
    elif suffix == ".csv":
        _write(path, _csv(make_rows(outcomes)))
    else:
        _write_pages(path, Pages(outcomes, about, open_slide_of, on_drawn))


def _write(path: Path, text: str) -> None:
    # Names and paths may hold half of a surrogate pair, which UTF-8 has no bytes for.
    write_atomically(path, text.encode("utf-8", "replace"))


def _write_pages(path: Path, pages: Pages) -> None:
    paths = [path, *(_further_page(path, number) for number in range(2, len(pages) + 1))]
    for further in paths[1:]:
        if further.exists() and not _is_ours(further):
            raise OutputError(
                f"{further} would be replaced, but is no page of a report: choose another name."
            )
    names = [one.name for one in paths]
    for number, one in reversed(list(enumerate(paths, start=1))):
        _write(one, pages.render(number, names))
    # Those of a larger report of before would seem to belong to this one.
    for number in count(len(pages) + 1):
        left = _further_page(path, number)
        if not (left.exists() and _is_ours(left)):
            return
        left.unlink()


def _further_page(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _is_ours(page: Path) -> bool:
    try:
        with open_file(page) as file:
            return GENERATOR.encode() in file.read(4096)
    except OSError:
        return False


def _json(outcomes: Sequence[ImageOutcome], about: ReportHeader) -> str:
    report = {
        "format": _FORMAT,
        "version": _VERSION,
        "about": {
            **vars(about),
            "options": dict(about.options),
            "started": about.started.isoformat(),
        },
        "counts": {
            "images": Counter(image.state for image in outcomes),
            "prompts": Counter(row.state for image in outcomes for row in image.rows),
        },
        "images": [_image(image) for image in outcomes],
        "rows": make_rows(outcomes),
    }
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _image(image: ImageOutcome) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "state": image.state,
        "reason": image.reason or None,
        "slide": None if image.slide is None else str(image.slide),
        "mpp": None if image.mpp is None else [image.mpp.x, image.mpp.y],
        "seconds": round(image.seconds, 3),
        "backup": None if image.backup is None else str(image.backup),
    }


def _csv(rows: Sequence[Row]) -> str:
    """Write CSV by RFC 4180, which Excel, R and pandas read."""
    text = io.StringIO(newline="")
    # Excel takes a file without this mark for one in the code page of the computer.
    text.write("\N{BYTE ORDER MARK}")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue()


def _cell(value: Scalar) -> Scalar:
    """Format a cell: text on one line, with an apostrophe before what a spreadsheet would run."""
    return _FORMULA.sub(r"\1'\2", escape(value)) if isinstance(value, str) else value
