"""The outcome of each slide of a table: ``NAME.status.json`` beside its results, and a summary."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ... import __version__
from ...errors import OutputError
from ...files import compute_sha256, hold_alone, read_file, write_atomically
from ...files.formats import SLIDE_STATUS
from .rows import TableRow

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SlideState: TypeAlias = Literal["waiting", "running", "stopped", "done", "failed"]
"""State of a slide. ``waiting`` and ``stopped`` are never written, only concluded."""

_STATUS_BYTES_MAX = 256 << 20

_SUMMARY_NAME = "summary.csv"


@dataclass(frozen=True)
class EmptyResult:
    """A prompt for which the model found no object.

    Attributes:
        id: id of the result; see :func:`.compute_result_id`.
        prompt_id: id of its prompt.
        reason: why there is no outline.
    """

    id: str
    prompt_id: str
    reason: str


@dataclass(frozen=True)
class SlideStatus:
    """The outcome of one slide, or how far it is.

    Attributes:
        state: state of the work; ``failed`` comes with a reason, one sentence for people.
        started, ended: ISO 8601 times; `ended` is empty while it runs.
        seconds: time from start to end.
        host, pid: computer and number of the process.
        inputs: what decides the results, by name: slide, prompts, model, options.
        prompts: number of usable prompts.
        outlined, skipped: number of prompts with an outline, and of parts of the input that were no
            prompts.
        empty: the prompts without an outline.
        outputs: SHA-256 of the files with its results, by the endings of their names; empty unless
            it is done.
        version: version of this program.
    """

    name: str
    slide: str
    state: SlideState
    reason: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    inputs: Mapping[str, str] = field(default_factory=dict)
    prompts: int = 0
    outlined: int = 0
    skipped: int = 0
    empty: tuple[EmptyResult, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide in the folder of results."""

    folder: Path
    name: str

    def path(self, ending: str) -> Path:
        """The path of one of the result files, which is whole if it is there."""
        return self.folder / f"{self.name}{ending}"

    @property
    def status(self) -> Path:
        """The path of the status file."""
        return self.path(".status.json")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from working on this slide.

        Raises:
            SlideTakenError: another one does.
            OutputError: the lock cannot be made.
        """
        lock = hold_alone(self.path(".lock"), "taken")
        try:
            lock.__enter__()
        except OutputError as exc:
            raise SlideTakenError(self.name) from exc
        except OSError as exc:
            raise OutputError(
                f"{self.folder} cannot be written ({exc.strerror or exc}): choose another folder."
            ) from exc
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def write_status(self, status: SlideStatus) -> None:
        """Write the status of the slide, completely or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps({**SLIDE_STATUS.stated, **asdict(status)}, indent=2, allow_nan=False)
        write_atomically(self.status, f"{text}\n".encode("ascii"))

    def read_status(self) -> SlideStatus | None:
        """Read the status of the slide; None if there is none, or the file is damaged.

        Raises:
            FormatError: a newer version of this program wrote it.
        """
        try:
            content = json.loads(read_file(self.status, bytes_max=_STATUS_BYTES_MAX))
            SLIDE_STATUS.check(self.status, content)
            return _make_adapter().validate_python(content)
        except (OSError, ValueError, RecursionError, AttributeError):  # pydantic's is a ValueError
            return None

    def find_intact(self, status: SlideStatus) -> dict[str, str]:
        """Find the outputs of a status that are there as they were written."""
        return {
            ending: sha256
            for ending, sha256 in status.outputs.items()
            if _has_sha256(self.path(ending), sha256)
        }


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return compute_sha256(path) == sha256
    except OSError:
        return False


@cache
def _make_adapter() -> TypeAdapter[SlideStatus]:
    """Make the check of a status's types; once, as that takes longer than to read one."""
    from pydantic import TypeAdapter  # slow, and `--help` needs none

    return TypeAdapter(SlideStatus)


class SlideTakenError(Exception):
    """Another process is working on a slide."""


def read_states(folder: Path, rows: Sequence[TableRow]) -> list[SlideStatus]:
    """Read the state of each row of a table, as far as is known now.

    Raises:
        FormatError: a newer version of this program wrote it.
    """
    return [_read_state(SlideFiles(folder, row.name), row) for row in rows]


def _read_state(files: SlideFiles, row: TableRow) -> SlideStatus:
    status = files.read_status()
    if status is None:
        return SlideStatus(row.name, row.slide, "waiting", host="", pid=0, version="")
    if status.state != "running":
        return status
    try:
        with files.hold():
            return SlideStatus(**{**vars(status), "state": "stopped"})
    except SlideTakenError:
        return status


def write_summary(folder: Path, rows: Sequence[TableRow], states: Sequence[SlideStatus]) -> Path:
    """Write ``summary.csv``, a row per slide in the order of the table; returns its path.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    counts = ("prompts", "outlined", "empty", "skipped")
    times = ("started", "ended", "seconds", "host", "version", "outputs")
    table.writerow(["line", "name", "slide", "state", "reason", *counts, *times])
    for row, one in zip(rows, states, strict=True):
        numbers = (one.prompts, one.outlined, len(one.empty), one.skipped)
        when = (one.started, one.ended, round(one.seconds, 3))
        origin = (one.host, one.version, " ".join(one.outputs))
        about = (row.line, row.name, row.slide, one.state, one.reason)
        table.writerow([*about, *numbers, *when, *origin])
    path = folder / _SUMMARY_NAME
    write_atomically(path, text.getvalue().encode("utf-8"))
    return path


def now() -> str:
    """Format the current time: ISO 8601 with the zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
