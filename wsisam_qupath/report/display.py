"""Progress of a batch, and the table at its end, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import escape
from .outcome import ImageOutcome, PromptState
from .progress import count_noun, duration, show_progress

_ROWS_MAX = 40
"""With more images than this, the last table lists only those that failed."""

_REASONS_MAX = 10
"""Largest number of skipped prompts that are named per image."""

_STYLES = {"done": "green", "nothing to do": "", "failed": "bold red"}


class Display:
    """Shows the progress of a batch; unless on a terminal also one line per image.

    Args:
        images: number of images.
    """

    def __init__(self, console: Console, images: int) -> None:
        self._console, self._images = console, images
        self._images_read = self._images_ended = self._found = self._answered = 0
        self._showing = ExitStack()

    def __enter__(self) -> Display:
        self._progress = self._showing.enter_context(
            show_progress(self._console, "Outlining prompts")
        )
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._showing.close()

    def on_prompts_found(self, tasks: int) -> None:
        """See :class:`.BatchObserver`."""
        self._images_read += 1
        self._found += tasks
        self._show()

    def on_prompts_done(self, count: int) -> None:
        """See :class:`.BatchObserver`."""
        self._answered += count
        self._show()

    def on_notice(self, words: str) -> None:
        """See :class:`.BatchObserver`."""
        self._say(escape(words, 600))

    def on_image_end(self, outcome: ImageOutcome) -> None:
        """See :class:`.BatchObserver`."""
        self._images_ended += 1
        self._images_read = max(self._images_read, self._images_ended)
        name = escape(outcome.name, 80)
        if outcome.state == "failed":
            self._say(f"{name}: failed. {escape(summarize_outcome(outcome), 600)}")
        elif not self._console.is_terminal:
            self._say(f"[{self._images_ended}/{self._images}] {name}: {summarize_outcome(outcome)}")
        name_skipped(self._say, outcome)
        self._show()

    def _say(self, line: str) -> None:
        self._console.print(Text(line))

    def _show(self) -> None:
        self._progress.update(
            done=self._answered,
            total=self._estimate_total(),
            note=f"image {self._images_ended} of {self._images}",
            is_estimated=self._images_read < self._images,
        )

    def _estimate_total(self) -> int:
        """Estimate the number of all prompts from the images read so far."""
        if not self._images_read:
            return self._found
        return round(self._found * self._images / self._images_read)


def name_skipped(say: Callable[[str], None], outcome: ImageOutcome) -> None:
    """Name the prompts that were skipped; of very many only the first."""
    name = escape(outcome.name, 80)
    cases = [row for row in outcome.rows if row.state == "skipped"]
    for row in cases[:_REASONS_MAX]:
        say(f"{name}: skipped {escape(row.prompt_id, 80)}: {escape(row.reason, 200)}.")
    if len(cases) > _REASONS_MAX:
        say(f"{name}: skipped {len(cases) - _REASONS_MAX} more; the report names them.")


def summarize_outcome(outcome: ImageOutcome) -> str:
    """Summarize the counts of an image in a few words."""
    if outcome.state == "failed":
        return outcome.reason.removeprefix(f"{escape(outcome.name)}: ")
    words: dict[PromptState, str] = {
        "outlined": "outlined",
        "empty": "empty",
        "answered": "answered before",
        "reviewed": "left to their reviewer",
        "skipped": "skipped",
    }
    counts = [f"{n} {word}" for state, word in words.items() if (n := outcome.count(state))]
    left = outcome.plan.outlines_left
    if left:
        counts.append(f"{count_noun(left, 'other area')} left alone")
    if outcome.plan.beyond_limit:
        counts.append(f"{outcome.plan.beyond_limit} beyond the limit")
    return ", ".join(counts) or "no prompts"


def outdated_notice(outcomes: Sequence[ImageOutcome]) -> str:
    """Say how many results are outdated; empty if none is."""
    count = sum(one.count_outdated() for one in outcomes)
    if not count:
        return ""
    results = "1 result is" if count == 1 else f"{count} results are"
    older = "of an older version of this program or of another precision"
    return f"{results} {older}, which answered otherwise."


def print_outcomes(console: Console, outcomes: Sequence[ImageOutcome], seconds: float) -> None:
    """Print the last table: images with their counts (of many, those that failed), and sums."""
    shown = outcomes
    if len(outcomes) > _ROWS_MAX:
        shown = [one for one in outcomes if one.state == "failed"]
    if shown:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("State", no_wrap=True)
        table.add_column("Image", overflow="fold", max_width=40)
        table.add_column("What", overflow="fold")
        for one in shown:
            name, what = escape(one.name, 120), escape(summarize_outcome(one), 900)
            table.add_row(Text(one.state, _STYLES[one.state]), Text(name), Text(what))
        console.print(table)
    console.print(Text(_sums(outcomes, seconds)))


def _sums(outcomes: Sequence[ImageOutcome], seconds: float) -> str:
    states = [one.state for one in outcomes]
    outlined = count_noun(sum(one.count("outlined") for one in outcomes), "outline")
    return (
        f"{count_noun(len(outcomes), 'image')}: {states.count('done')} done, "
        f"{states.count('nothing to do')} with nothing to do, {states.count('failed')} failed. "
        f"{outlined} in {duration(seconds)}."
    )
