"""One image while a batch has it in hand: what was asked of it, and what is answered so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...geojson import Feature
from ...geojson.properties import read_path_class
from ...geojson.provenance import DRAWN_KEY, PROMPT_KEY
from ...prompts import Prompt
from ...prompts.planner import Planner
from ...prompts.results import SerializedResult
from ...qupath.files.entries import ImageEntry
from ...qupath.files.integrity import FileVersions
from ...qupath.values import Change, ImageContents, Placed
from ...report.outcome import ImageOutcome, ImageState, KeptResult, Plan, PromptRow, PromptState
from ...slide import Slide
from ..history import Written
from ..journal import Journal
from .selection import Selection, Task


@dataclass
class ImageProgress:
    """An image in hand.

    Attributes:
        versions: of when it was read.
        stated_count, n_objects: how many objects ``summary.json`` and ``data.qpdata`` hold.
        slide_key: names the content of the slide in journals and ledgers.
        answers: by their ids.
        spare: answers from the journal that nobody asked for this time.
        jobs: that are not answered yet.
        beyond_limit: prompts that wait for another run.
        ended: whether it has its outcome.
    """

    entry: ImageEntry
    started: float = field(default_factory=time.perf_counter)
    versions: FileVersions | None = None
    stated_count: int | None = None
    n_objects: int = 1
    selection: Selection = field(default_factory=Selection)
    slide: Slide | None = None
    slide_key: str = ""
    journal: Journal | None = None
    answers: dict[str, SerializedResult] = field(default_factory=dict)
    spare: tuple[SerializedResult, ...] = ()
    jobs: set[Future[Sequence[SerializedResult]]] = field(default_factory=set)
    beyond_limit: int = 0
    plan: Plan = field(default_factory=Plan)
    ended: bool = False

    def limit(self, most: int) -> None:
        """Leave the prompts beyond the user's limit to another run."""
        found = self.selection.tasks
        self.selection = replace(self.selection, tasks=found[:most])
        self.beyond_limit = len(found) - len(self.selection.tasks)

    def recall(self, journaled: dict[str, SerializedResult], contents: ImageContents) -> None:
        """Take over what was answered and not written.

        Args:
            journaled: answers from the journal.
        """
        asked = {task.result_id: task for task in self.selection.tasks}
        there = {feature.get("id") for feature in (*contents.results, *contents.annotations)}
        self.answers = {
            key: answer
            for key, answer in journaled.items()
            if key in asked and _fits(answer, asked[key])
        }
        self.spare = tuple(journaled[key] for key in journaled if key not in {*asked, *there})

    def make_plan(self, planner: Planner) -> None:
        """Count what is left to answer."""
        prompts = self.prompts_left()
        pairs = {(p.plane.z, p.plane.t, planner.pair(p)) for p in prompts}
        kinds = Counter(prompt.kind for prompt in prompts)
        self.plan = Plan(kinds, len(pairs), self.selection.outlines_left, self.beyond_limit)

    def prompts_left(self) -> list[Prompt]:
        return [t.prompt for t in self.selection.tasks if t.result_id not in self.answers]

    def make_placed_objects(self) -> list[Placed]:
        """The new objects."""
        return [Placed(feature, task.parent_id) for task, feature in self._list_outlined()]

    def change(self) -> Change:
        """New objects in the place of older ones; where the model now sees nothing, those stay."""
        gone = [one for task, _ in self._list_outlined() for one in task.replaces]
        return Change(self.n_objects, tuple(dict.fromkeys(gone)), tuple(self.make_placed_objects()))

    def list_kept_results(self) -> list[KeptResult]:
        """The same for somebody else to do."""
        return [KeptResult(f, task.parent_id, task.replaces) for task, f in self._list_outlined()]

    def empty(self) -> dict[str, str]:
        """Why, by the ids of answers without an outline."""
        return {a.id: a.reason for a in self.answers.values() if a.feature is None}

    def _list_outlined(self) -> list[tuple[Task, Feature]]:
        answered = ((task, self.answers.get(task.result_id)) for task in self.selection.tasks)
        return [
            (task, a.feature) for task, a in answered if a is not None and a.feature is not None
        ]

    def rows(self) -> tuple[PromptRow, ...]:
        """What became of each prompt."""
        rows = list(self.selection.rows)
        for task in self.selection.tasks:
            answer = self.answers.get(task.result_id)
            if answer is None:
                continue
            state: PromptState = "empty" if answer.feature is None else "outlined"
            rows.append(
                PromptRow(task.prompt.id, state, answer.reason, task.prompt, answer.feature)
            )
        return tuple(rows)

    def outcome(self, state: ImageState, backup: Path | None = None) -> ImageOutcome:
        """How it ended, if it did not fail."""
        return ImageOutcome(
            self.entry.id,
            self.entry.name,
            state,
            rows=self.rows(),
            slide=self.entry.slide,
            mpp=self.slide.mpp if self.slide else None,
            seconds=time.perf_counter() - self.started,
            backup=backup,
            plan=self.plan,
        )


def describe_written(make_placed_objects: Placed) -> Written:
    """What a ledger keeps of a new object."""
    properties = make_placed_objects.feature["properties"]
    path_class = read_path_class(properties.get("classification"))
    return Written(
        make_placed_objects.feature["id"],
        properties["metadata"][PROMPT_KEY],
        properties["metadata"][DRAWN_KEY],
        path_class.name if path_class else None,
        properties["objectType"],
    )


def _fits(answer: SerializedResult, task: Task) -> bool:
    """Whether an answer from the journal has the class that the prompt has now."""
    if answer.feature is None:
        return True
    drawn_class = read_path_class(answer.feature["properties"].get("classification"))
    path_class = task.prompt.path_class
    return (drawn_class.name if drawn_class else None) == (path_class.name if path_class else None)
