"""What a command has found so far: kept beside its output as it comes, so that it can go on."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OutputError
from ..files import hold_alone
from ..files.checked_lines import make_line, parse_line, write_all
from ..files.formats import UNFINISHED_OUTLINES
from ..files.ordinary import open_checked
from ..geojson import Feature
from ..prompts import Prompt, Skipped
from ..prompts.results import SerializedResult


class _Place(NamedTuple):
    """The place of a result in the file; without an outline, the reason."""

    offset: int
    reason: str


class Part:
    """Results in ``OUTPUT.part``, one per line, each with a checksum; in memory only their places.

    Attributes:
        kept: how many results of an earlier run are used again.
        why_new: why results of an earlier run are not used; empty if there were none, or if they
            are used.
    """

    def __init__(self, file: io.FileIO, about: Mapping[str, str], path: Path | None = None) -> None:
        """Use :func:`open_part` instead."""
        self._file, self._path = file, path
        self._places: dict[str, _Place] = {}
        self.why_new = self._read_earlier(about)
        self.kept = len(self._places)

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._places

    @property
    def is_empty(self) -> bool:
        """Whether no result is kept."""
        return not self._places

    def append(self, result: SerializedResult) -> None:
        """Hand a result to the operating system: from then on no kill of this process loses it.

        Raises:
            OutputError: the disk is full, or gone.
        """
        offset = self._file.seek(0, io.SEEK_END)
        try:
            write_all(self._file, make_line(vars(result)))
        except OSError as exc:
            where = "The temporary folder" if self._path is None else str(self._path)
            raise OutputError(
                f"{where} cannot be written ({exc.strerror or exc}). Free space there, and give "
                "the same command again: what was done is kept."
            ) from exc
        self._places[result.prompt_id] = _Place(offset, result.reason)

    def clear(self) -> None:
        """Forget the results of an earlier run, without a message."""
        self._file.seek(0)
        self._file.truncate(len(self._file.readline()))
        self._places.clear()
        self.kept, self.why_new = 0, ""

    def features(self, prompts: Sequence[Prompt]) -> Iterator[Feature]:
        """Read the outlines back, in the order of their prompts."""
        for prompt in prompts:
            place = self._places.get(prompt.id)
            if place is not None and not place.reason:
                content = self._read(place.offset)
                yield content["feature"]
                yield from content.get("others", ())

    def count(self, beginning: str) -> int:
        """Count the results of prompts with ids that begin with a prefix."""
        return sum(prompt_id.startswith(beginning) for prompt_id in self._places)

    def list_features(self) -> list[Feature]:
        """Read all outlines back, in the order in which they came."""
        places = [place for place in self._places.values() if not place.reason]
        return [self._read(place.offset)["feature"] for place in places]

    def empty(self, prompts: Sequence[Prompt]) -> tuple[Skipped, ...]:
        """List the prompts for which the model found no object."""
        found = ((prompt.id, self._places.get(prompt.id)) for prompt in prompts)
        return tuple(Skipped(name, place.reason) for name, place in found if place and place.reason)

    def _read(self, offset: int) -> dict[str, Any]:
        self._file.seek(offset)
        content = parse_line(io.BufferedReader(_Borrowed(self._file)).readline())
        assert content is not None  # it was read or written before
        return content

    def _read_earlier(self, about: Mapping[str, str]) -> str:
        """Take over the results of an earlier run, or clear the file; returns why it was cleared.

        Raises:
            OutputError: the file is not of this program.
            FormatError: a newer version of this program wrote it.
        """
        lines = io.BufferedReader(_Borrowed(self._file))
        first = lines.readline()
        header = parse_line(first) or {}
        if header:
            UNFINISHED_OUTLINES.check(self._path, header)
        elif first[:2] not in (b"", b'["'):  # a header that a kill cut off begins like this
            raise OutputError(f"{self._path} is not from this program: rename or delete it.")
        others = [name for name, value in about.items() if header.get(name) != value]
        if others:
            self._file.seek(0)
            self._file.truncate()
            write_all(self._file, make_line({**UNFINISHED_OUTLINES.stated, **about}))
            return f"of another {' and '.join(others)}" if header else ""
        end = len(first)
        for line in lines:
            content = parse_line(line)
            if content is None:  # a kill or a full disk cut it off
                break
            self._places[content["prompt_id"]] = _Place(end, content["reason"])
            end += len(line)
        self._file.truncate(end)
        return ""


class _Borrowed(io.RawIOBase):
    """A file that stays open when the buffered reader around it is closed."""

    def __init__(self, file: io.FileIO) -> None:
        self._borrowed = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._borrowed.readinto(buffer)


@contextmanager
def open_part(output: Path | None, about: Mapping[str, str], *, resume: bool) -> Iterator[Part]:
    """Open the part file of an output; without an error or a result it is removed at the end.

    Args:
        output: file that the command writes; None if it has none: then the results lie in a
            temporary file.
        about: what decides the results, by name; results of anything else are not used.
        resume: whether results of an earlier run are used.

    Raises:
        OutputError: it cannot be written, is not of this program, or another process has it.
    """
    if output is None:
        with tempfile.TemporaryFile(buffering=0) as file:
            assert isinstance(file, io.FileIO)
            yield Part(file, about)
        return
    path = output.with_name(f"{output.name}.part")
    busy = f"Another program is writing {output} right now: wait for it, or name another file."
    with ExitStack() as held:
        try:
            held.enter_context(hold_alone(path.with_name(f"{path.name}.lock"), busy))
            handle = open_checked(path, os.O_RDWR | os.O_CREAT)
            file = held.enter_context(io.FileIO(handle, "r+"))
            part = Part(file, about, path)
            if not resume:
                part.clear()
        except OSError as exc:
            raise OutputError(
                f"{path} cannot be written ({exc.strerror or exc}). Choose another place for the "
                "output, or free space and permissions there."
            ) from exc
        is_done = False
        try:
            yield part
            is_done = True
        finally:
            if is_done or part.is_empty:
                file.close()
                path.unlink(missing_ok=True)
