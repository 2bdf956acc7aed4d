"""The history of an image: which results were written, to recognize them without their ids.

QuPath makes a new object, without id and metadata, when a person turns a detection into an
annotation; only its outline then tells that this program made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import count
from pathlib import Path

from ..errors import ImageError, escape
from ..files.formats import HISTORY
from ..qupath.files.entries import ImageEntry, Project

MOST_RECORDS = 200_000
"""Most records of each kind and image; the oldest go first. 200,000 results are 40 MB, read in a
second."""

HISTORY_FOLDER = "history"
"""Name of the folder of histories, below this program's own."""

_LEDGER = "ledger"
"""What version 0.1 called histories: name of their folder, and key of their format."""


@dataclass(frozen=True)
class Written:
    """One result, as it was written into the image.

    Attributes:
        id: id of the result.
        prompt_id: id of the annotation that asked for it.
        drawn: signature of its outline, by which it is recognized.
        class_name: name of its class at that time; None without one.
        object_type: ``detection`` or ``annotation``.
    """

    id: str
    prompt_id: str
    drawn: str
    class_name: str | None
    object_type: str


@dataclass(frozen=True)
class Record:
    """The content of an image's history.

    Attributes:
        written: results, the oldest first.
        empty: reasons by the ids of results without an outline, for which the model saw nothing.
        slide_key: key of the slide that ``empty`` refers to.
        damaged: path of the file if it is damaged; the rest is then empty.
    """

    written: tuple[Written, ...] = ()
    empty: Mapping[str, str] = field(default_factory=dict)
    slide_key: str = ""
    damaged: Path | None = None


class History:
    """The history of one image, ``<own folder>/history/<entry id>.json``.

    Where there is none, that of version 0.1 is read.
    """

    def __init__(self, project: Project, entry: ImageEntry) -> None:
        """Only set the path: no file is touched."""
        self.path = project.own_folder / HISTORY_FOLDER / f"{entry.id}.json"
        self._earlier_path = project.own_folder / _LEDGER / self.path.name
        self._name = escape(entry.name)
        self._files = project.files

    def read(self) -> Record:
        """Read the history; an empty record if there is none.

        Raises:
            ImageError: the history is there but cannot be read.
            FormatError: a newer version of this program wrote it.
        """
        path = self.path
        try:
            content = self._files.read_if_there(path)
            if content is None:
                path = self._earlier_path
                content = self._files.read_if_there(path)
        except OSError as exc:
            raise ImageError(
                f"The history of image {self._name}, {path}, cannot be read "
                f"({exc.strerror or exc}): check its permissions, then run again."
            ) from exc
        if content is None:
            return Record()
        try:
            return _record_of(path, content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return Record(damaged=path)

    def add(
        self, written: Iterable[Written], empty: Mapping[str, str], slide_key: str = ""
    ) -> Path | None:
        """Add results to the history, all of them or none.

        What was empty on another slide is forgotten, and what was empty and is written now.

        Args:
            empty: reasons by the ids of the results.
            slide_key: key of the slide that was read; see :class:`.journal.Journal`.

        Returns:
            The new name of a damaged history; None if it was not damaged.

        Raises:
            ImageError: it cannot be written; what was known before still is.
            FormatError: a newer version of this program wrote it.
        """
        known = self.read()
        try:
            self._files.make_folder(self.path.parent)
            aside = self._put_aside(known.damaged) if known.damaged else None
            content = _dump(_merge(known, written, empty, slide_key))
            self._files.write_atomically(self.path, content)
        except OSError as exc:
            raise ImageError(
                f"The history of image {self._name}, {self.path}, cannot be written "
                f"({exc.strerror or exc}): check the free space and permissions there, then run "
                "again."
            ) from exc
        return aside

    def _put_aside(self, damaged: Path) -> Path:
        names = (damaged.with_suffix(f".damaged-{number}.json") for number in count(1))
        aside = next(path for path in names if not self._files.is_there(path))
        self._files.replace(damaged, aside)
        return aside


def _merge(
    known: Record, written: Iterable[Written], empty: Mapping[str, str], slide_key: str
) -> Record:
    new = tuple(written)
    newest_first = dict.fromkeys(reversed((*known.written, *new)))
    all_written = tuple(newest_first)[MOST_RECORDS - 1 :: -1]
    new_ids = {result.id for result in new}
    older = known.empty if known.slide_key == slide_key else {}
    still = [(key, reason) for key, reason in older.items() if key not in {*empty, *new_ids}]
    return Record(all_written, dict([*still, *empty.items()][-MOST_RECORDS:]), slide_key)


def _dump(record: Record) -> bytes:
    content = {
        **HISTORY.stated,
        "slide": record.slide_key,
        "written": [vars(result) for result in record.written],
        "empty": dict(record.empty),
    }
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def _record_of(path: Path, content: bytes) -> Record:
    stated = json.loads(content)
    HISTORY.check_number(path, stated[HISTORY.key if HISTORY.key in stated else _LEDGER])
    written = tuple(map(_read_written, stated["written"]))
    empty = {_text(key): _text(reason) for key, reason in stated["empty"].items()}
    return Record(written, empty, _text(stated["slide"]))


def _read_written(stated: Mapping[str, str]) -> Written:
    result = Written(**{one.name: stated[one.name] for one in fields(Written)})
    for name, value in vars(result).items():
        if value is not None or name != "class_name":
            _text(value)
    return result


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
