"""What commands print on stderr: a progress bar, named cases, numbers with noun or unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ..errors import escape
from ..model.adapter import Adapter
from ..model.bases import Base
from ..prompts import Skipped

TASK = TaskID(0)
"""Id of the only task of a progress bar."""

_NAMED_MAX = 50
"""Largest number of cases that are named."""


def stderr_console() -> Console:
    """Make a console for messages; results go to stdout."""
    # Without emoji: rich would make a dog of ":dog:" in the name of a file.
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


@contextmanager
def progress_bar(console: Console, what: str, total: int) -> Iterator[Progress]:
    """Show a progress bar with the task :data:`TASK` on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown as progress:
        progress.add_task(what, total=total)
        yield progress


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
        clicked: prompts with points.
    """
    if not clicked or adapter is not None or "points" in base.trained_prompts:
        return None
    return (
        f"{count_noun(clicked, 'prompt')} with points, which {base.name} was never trained on: "
        "expect poor outlines there. Draw rectangles, or use an adapter or base that knows points."
    )
