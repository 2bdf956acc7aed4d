"""Answers that are not in QuPath's file yet: after a kill they need not be computed again."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..errors import ImageError, escape
from ..prompts.results import SerializedResult
from ..qupath.files.entries import ImageEntry, Project

_FORMAT = 1


class Journal:
    """The answers for one image, a line each, in ``<own folder>/journal/<entry id>.jsonl``.

    Every line carries a checksum: what a kill, a power cut or a full disk left half written is
    not taken for an answer. The first line names the slide; answers for another one are not read,
    and go when the next answer comes. One process at a time may append.
    """

    def __init__(self, project: Project, entry: ImageEntry, slide_key: str) -> None:
        """Touches nothing.

        Args:
            slide_key: what the answers depend on besides their ids, such as URI, size and time of
                the slide's file: any text.
        """
        self.path = project.own_folder / "journal" / f"{entry.id}.jsonl"
        self._name = escape(entry.name)
        self._header = _line({"journal": _FORMAT, "slide": slide_key})
        self._file: io.FileIO | None = None

    def answers(self) -> dict[str, SerializedResult]:
        """By the ids of the results, in the order in which they came; of two the later one.

        Raises:
            ImageError: the journal is there but cannot be read.
        """
        header, *lines = self._read().splitlines(keepends=True) or [b""]
        if header != self._header:
            return {}
        found = (_parse_line(line) for line in lines)
        answers = (SerializedResult(**content) for content in found if content is not None)
        return {answer.id: answer for answer in answers}

    def append(self, answers: Iterable[SerializedResult]) -> None:
        """Hand answers to the operating system: from then on no kill of this process loses them.

        Raises:
            ImageError: they cannot be written; what was appended before is safe, and appending
                may be tried again.
        """
        lines = b"".join(_line(vars(answer)) for answer in answers)
        if not lines:
            return
        with self._translate_os_errors("written", "free space and permissions there"):
            try:
                _write(self._file or self._open(), lines)
            except OSError:
                self.close()  # the next one opens anew, and cuts off half a line
                raise

    def clear(self) -> None:
        """Forget all answers: they are in QuPath's file now.

        Raises:
            ImageError: the journal cannot be removed.
        """
        self.close()
        with self._translate_os_errors("removed", "allow deleting it"):
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; the next :meth:`append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> bytes:
        with self._translate_os_errors("read", "allow reading it, or delete it"):
            try:
                return self.path.read_bytes()
            except FileNotFoundError:
                return b""

    def _open(self) -> io.FileIO:
        """The file, ending behind its last whole line: the next one must not be glued to half."""
        content = self._read()
        whole = content[: content.rfind(b"\n") + 1]
        ours = whole.startswith(self._header)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(len(whole) if ours else 0)
        if not ours:
            _write(self._file, self._header)
        return self._file

    @contextmanager
    def _translate_os_errors(self, verb: str, cure: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ImageError(
                f"The journal of image {self._name}, {self.path}, cannot be {verb} "
                f"({exc.strerror or exc}): {cure}, then run again."
            ) from exc


def _line(content: dict[str, object]) -> bytes:
    """``["checksum",{...}]`` and a newline, in ASCII."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"%s%s]\n" % (_start(body), body)


def _start(body: bytes) -> bytes:
    return b'["%08x",' % zlib.crc32(body)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if a byte of it is missing or another."""
    length = len(_start(b""))
    body = line[length:-2]
    if line[:length] != _start(body) or line[-2:] != b"]\n":
        return None
    content: dict[str, Any] = json.loads(body)
    return content


def _write(file: io.FileIO, content: bytes) -> None:
    """All of it: a raw file may take less than it is given, when the disk is nearly full."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
