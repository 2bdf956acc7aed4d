"""The journal of an image: results not yet in QuPath's file, kept in case of a kill."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from ..errors import ImageError, escape
from ..files.checked_lines import make_line, parse_line, write_all
from ..files.formats import JOURNAL
from ..prompts.results import SerializedResult
from ..qupath.files.entries import ImageEntry, Project

JOURNAL_FOLDER = "journal"
"""Name of the folder of journals, below this program's own."""

_FIELDS = tuple(one.name for one in fields(SerializedResult))


class Journal:
    """The results of one image, one per line, in ``<own folder>/journal/<entry id>.jsonl``.

    Every line has a checksum, so a line that a kill, a power cut or a full disk left incomplete is
    not read as a result. The first line names the format and the slide; results for another slide
    are not read, and the next result replaces them. Nothing replaces those of a newer version of
    this program. One process at a time may append.
    """

    def __init__(self, project: Project, entry: ImageEntry, slide_key: str) -> None:
        """Only set the path: no file is touched.

        Args:
            slide_key: any text that changes with the slide, such as URI, size and time of its file.
        """
        self.path = project.own_folder / JOURNAL_FOLDER / f"{entry.id}.jsonl"
        self._name = escape(entry.name)
        self._files = project.files
        self._header = make_line({**JOURNAL.stated, "slide": slide_key})
        self._file: io.FileIO | None = None

    def read(self) -> dict[str, SerializedResult]:
        """Read the results by their ids, in the order of arrival; of two with one id, the later.

        Raises:
            ImageError: the journal is there but cannot be read.
            FormatError: a newer version of this program wrote it.
        """
        content = self._read()
        if not self._is_ours(content):
            return {}
        found = (parse_line(line) for line in content.splitlines(keepends=True)[1:])
        results = (_make_result(content) for content in found if content is not None)
        return {result.id: result for result in results}

    def append(self, results: Iterable[SerializedResult]) -> None:
        """Hand results to the operating system: from then on no kill of this process loses them.

        Raises:
            ImageError: they cannot be written. Earlier results are safe, and appending can be
                tried again.
            FormatError: a newer version of this program wrote the journal.
        """
        lines = b"".join(make_line(vars(result)) for result in results)
        if not lines:
            return
        with self._translate_os_errors("written", "check the free space and permissions there"):
            try:
                write_all(self._file or self._open(), lines)
            except OSError:
                self.close()  # the next call opens the file again and cuts off the incomplete line
                raise

    def clear(self) -> None:
        """Delete all results: they are in QuPath's file now.

        Raises:
            ImageError: the journal cannot be removed.
        """
        self.close()
        with self._translate_os_errors("removed", "allow deleting it"):
            self._files.remove(self.path)

    def close(self) -> None:
        """Close the file; the next :meth:`append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> bytes:
        with self._translate_os_errors("read", "allow reading it, or delete it"):
            return self._files.read_if_there(self.path) or b""

    def _is_ours(self, content: bytes) -> bool:
        """Whether the first line names this slide.

        Raises:
            FormatError: it names a newer format.
        """
        header = content[: content.find(b"\n") + 1]
        stated = parse_line(header)
        if stated is not None and JOURNAL.key in stated:
            JOURNAL.check(self.path, stated)
        return header == self._header

    def _open(self) -> io.FileIO:
        """Open the file and cut off an incomplete last line."""
        content = self._read()
        whole = content[: content.rfind(b"\n") + 1]
        ours = self._is_ours(whole)
        self._file = self._files.append(self.path)
        self._file.truncate(len(whole) if ours else 0)
        if not ours:
            write_all(self._file, self._header)
        return self._file

    @contextmanager
    def _translate_os_errors(self, verb: str, hint: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ImageError(
                f"The journal of image {self._name}, {self.path}, cannot be {verb} "
                f"({exc.strerror or exc}): {hint}, then run again."
            ) from exc


def _make_result(content: dict[str, Any]) -> SerializedResult:
    known = {name: content[name] for name in _FIELDS if name in content}
    return SerializedResult(**{**known, "others": tuple(known.get("others", ()))})
