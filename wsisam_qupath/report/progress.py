"""What commands print on stderr: how far the work is, named cases, numbers with noun or unit.

The rule for all work that may take longer than a moment: a bar on a terminal; elsewhere, as in the
log file of a cluster, nothing is silent for longer than ten seconds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.progress import Task as BarTask
from rich.text import Text

from ..errors import escape
from ..options import PROGRESS_STYLE

if TYPE_CHECKING:  # NumPy takes longer to load than a command line may take to answer
    from ..model.adapter import Adapter
    from ..model.bases import Base
    from ..prompts import Skipped

SILENCE_SECONDS_MAX = 9.0
"""Time between two lines unless on a terminal, seconds: within 10 s on a busy machine too."""

_JSON_SECONDS = 1.0
"""Time between two objects for programs."""

_NAMED_MAX = 50
"""Largest number of cases that are named."""

_MEASURED_SHARE = 0.2
"""Time since the first of the work was done, as a share of the time until then, that tells a speed:
several may be done at once."""

T = TypeVar("T")


class MessageConsole(Console):
    """A console for messages on stderr, which knows when it last said something.

    For programs each line is a JSON object: ``{"event": "message", "message": "..."}``.

    Args:
        as_log: whether lines are printed on a terminal too, and no bar.
    """

    def __init__(self, *, as_log: bool = False) -> None:
        # Without emoji: rich would make a dog of ":dog:" in the name of a file.
        super().__init__(
            stderr=True,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            force_terminal=False if as_log else None,
        )
        self.progress_style = PROGRESS_STYLE.get()  # here, since other threads do not see it
        self.spoke_at = time.monotonic()

    def print(self, *objects: Any, **options: Any) -> None:
        """See :meth:`rich.console.Console.print`."""
        self.spoke_at = time.monotonic()
        if self.progress_style != "json":
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.print_event("message", message=captured.get().rstrip("\n"))

    def print_event(self, event: str, **content: object) -> None:
        """Print one JSON object on a line of its own."""
        super().print(json.dumps({"event": event, **content}), markup=False)


def stderr_console(*, as_log: bool = False) -> MessageConsole:
    """Make a console for messages; results go to stdout. See :class:`MessageConsole`."""
    return MessageConsole(as_log=as_log)


class Progress:
    """How far a piece of work is; see :func:`show_progress`. May be updated from any thread."""

    def __init__(self, what: str, total: float | None, done: float, unit: str) -> None:
        self._what, self._total, self._done, self._unit = what, total, done, unit
        self._note = ""
        self._is_estimated = False
        self._done_before = done
        self._started = time.monotonic()
        self._first: tuple[float, float] | None = None

    def advance(self, count: float = 1) -> None:
        """Count more of the work as done."""
        self.update(done=self._done + count)

    def update(
        self,
        *,
        done: float | None = None,
        total: float | None = None,
        what: str | None = None,
        note: str | None = None,
        is_estimated: bool | None = None,
    ) -> None:
        """Update what is known better now; None leaves a value as it is.

        Args:
            is_estimated: whether the total is an estimate, which is then said.
        """
        self._done = self._done if done is None else done
        if self._first is None and self._done > self._done_before:
            self._first = time.monotonic(), self._done
        self._total = self._total if total is None else total
        self._what = self._what if what is None else what
        self._note = self._note if note is None else note
        self._is_estimated = self._is_estimated if is_estimated is None else is_estimated

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, each of which counts as done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    @property
    def what(self) -> str:
        """What is being done, in a few words."""
        return self._what

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None if nobody knows."""
        return min(1.0, self._done / self._total) if self._total else None

    def describe(self) -> str:
        """Describe count, speed and time left: "45 of 120, 4.5/s, 17 s left".

        Without a known total, the time that it has taken.
        """
        seconds = time.monotonic() - self._started
        parts = [self._count()] if self._total or self._done else []
        speed = self._compute_speed()
        if self._total and speed > 0:
            if self._unit != "B":
                parts.append(f"{speed:.1f}/s" if speed >= 0.1 else f"{60 * speed:.1f}/min")
            parts.append(f"{duration(max(0.0, self._total - self._done) / speed)} left")
        else:
            parts.append(f"{duration(seconds)} so far")
        return ", ".join([*parts, *([self._note] if self._note else [])])

    def as_event(self) -> dict[str, object]:
        """Describe the progress for programs, as values of a JSON object."""
        seconds = time.monotonic() - self._started
        speed = self._compute_speed()
        left = (self._total - self._done) / speed if self._total and speed > 0 else None
        return {
            "what": self._what,
            "done": self._done,
            "total": self._total,
            "unit": self._unit or None,
            "seconds": round(seconds, 1),
            "seconds_left": None if left is None else round(max(0.0, left), 1),
        }

    def _compute_speed(self) -> float:
        """Compute how much is done in a second: without what comes before the first, if it may be.

        The first of the work often waits for a model that is loaded.
        """
        now = time.monotonic()
        if self._first is not None:
            at, done = self._first
            if self._done > done and now - at >= _MEASURED_SHARE * (at - self._started):
                return (self._done - done) / max(now - at, 1e-3)
        return (self._done - self._done_before) / max(now - self._started, 1e-3)

    def _count(self) -> str:
        if self._unit == "B":
            done, total = self._done / 1e6, (self._total or 0) / 1e6
            return f"{done:,.0f} of {total:,.0f} MB" if total else f"{done:,.0f} MB"
        if not self._total:
            return f"{self._done:,.0f}"
        return f"{self._done:,.0f} of {'about ' * self._is_estimated}{self._total:,.0f}"


@contextmanager
def show_progress(
    console: Console, what: str, total: float | None = None, *, done: float = 0, unit: str = ""
) -> Iterator[Progress]:
    """Show the progress of the body: the one place that decides how.

    On a terminal a bar, which goes with its end; for programs a JSON object every second; else a
    line whenever nothing was said for ten seconds. Nothing with ``--quiet``.

    Args:
        what: what is being done, a few words: "Outlining".
        total: how much there is to do; None if nobody knows, or not yet.
        done: how much an earlier run did.
        unit: "B" for bytes; empty for a count of whole things.
    """
    progress = Progress(what, total, done, unit)
    style = console.progress_style if isinstance(console, MessageConsole) else "auto"
    if style == "quiet":
        yield progress
    elif style == "auto" and console.is_terminal:
        with _show_bar(console, progress):
            yield progress
    else:
        with _tell_regularly(console, progress, _tell_as_json if style == "json" else _tell):
            yield progress


@contextmanager
def _show_bar(console: Console, progress: Progress) -> Iterator[None]:
    columns = (_What(progress), BarColumn(), _Told(progress))
    with Bar(*columns, console=console, transient=True) as bar:
        bar.add_task("", total=None)
        yield


class _What(TextColumn):
    """The column that says what is done; it also moves the bar."""

    def __init__(self, progress: Progress) -> None:
        super().__init__("")
        self._progress = progress

    def render(self, task: BarTask) -> Text:
        """See :class:`rich.progress.ProgressColumn`."""
        share = self._progress.share
        task.total, task.completed = (None, 0) if share is None else (1.0, share)
        return Text(escape(self._progress.what, 60))


class _Told(ProgressColumn):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: BarTask) -> Text:  # noqa: ARG002
        return Text(escape(self._progress.describe(), 120))


@contextmanager
def _tell_regularly(
    console: Console,
    progress: Progress,
    tell: Callable[[Console, Progress, threading.Event], None],
) -> Iterator[None]:
    """Print the progress from a thread of its own: the work may stand still for long."""
    is_over = threading.Event()
    args = (console, progress, is_over)
    thread = threading.Thread(target=tell, args=args, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _tell(console: Console, progress: Progress, is_over: threading.Event) -> None:
    spoke_at = time.monotonic()
    while True:
        if isinstance(console, MessageConsole):  # what was said before this work began counts too
            spoke_at = console.spoke_at
        if is_over.wait(max(0.0, spoke_at + SILENCE_SECONDS_MAX - time.monotonic())):
            return
        if isinstance(console, MessageConsole) and console.spoke_at > spoke_at:
            continue
        spoke_at = time.monotonic()
        console.print(f"{progress.what}: {progress.describe()}.", markup=False)


def _tell_as_json(console: Console, progress: Progress, is_over: threading.Event) -> None:
    assert isinstance(console, MessageConsole)
    while True:
        console.print_event("progress", **progress.as_event())
        if is_over.wait(_JSON_SECONDS):
            break
    console.print_event("progress", **progress.as_event())


def name_cases(console: Console, what: str, cases: Sequence[Skipped]) -> None:
    """Print one line per case, with name and reason; of very many only the first."""
    for case in cases[:_NAMED_MAX]:
        name = escape(case.id, 120)
        line = f"{what} {name}: {escape(case.reason).removeprefix(f'{name}: ')}"
        console.print(f"{line.removesuffix('.')}.", markup=False)
    if len(cases) > _NAMED_MAX:
        console.print(f"{what} {len(cases) - _NAMED_MAX} more.")


def name_some(names: Sequence[str]) -> str:
    """List the names, or the first three and the number of the others."""
    shown = ", ".join(escape(name, 80) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def count_noun(number: int, noun: str) -> str:
    """Format a number with its noun: "1 slide", "2 slides"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format seconds for people: "1.2 s", "3 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def points_warning(clicked: int, base: Base, adapter: Adapter | None) -> str | None:
    """Make the warning for prompts with points on a base that was not trained on any; else None.

    Args:
        clicked: number of prompts with points.
    """
    if not clicked or adapter is not None or "points" in base.trained_prompts:
        return None
    return (
        f"{count_noun(clicked, 'prompt')} with points, which {base.name} was never trained on: "
        "expect poor outlines there. Draw rectangles, or use an adapter or base that knows points."
    )
