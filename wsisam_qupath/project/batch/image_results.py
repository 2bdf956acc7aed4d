"""The results of one image, as they go into QuPath, the history and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ...geojson import Feature
from ...geojson.properties import read_class_name
from ...geojson.provenance import DRAWN_KEY, PROMPT_KEY
from ...inference.chosen import ChosenModel
from ...inference.executors import Deliver, MakeWork, Work
from ...prompts import Plane, Prompt
from ...prompts.planner import Planner
from ...prompts.prompt import group_by_plane
from ...prompts.results import SerializedResult
from ...qupath.values import Change, Placed
from ...report.outcome import KeptResult, Plan, PromptRow, PromptState
from ...slide import Slide
from ..history import Written
from .selection import Selection, Task


@dataclass(frozen=True)
class ImageResults:
    """Results for the tasks of one image, from its journal or new.

    Attributes:
        by_id: results by their ids; :meth:`add` adds to it.
        spare: results in the journal that no task asks for in this run.
    """

    selection: Selection
    by_id: dict[str, SerializedResult]
    spare: tuple[SerializedResult, ...]

    @classmethod
    def recall(
        cls,
        selection: Selection,
        journaled: Mapping[str, SerializedResult],
        written_ids: Collection[object],
    ) -> ImageResults:
        """Take results of an earlier run that were not written into the image.

        Args:
            journaled: results from the journal, by their ids.
            written_ids: ids of the results that the image holds.
        """
        asked = {task.result_id: task for task in selection.tasks}
        return cls(
            selection,
            {key: one for key, one in journaled.items() if key in asked and _fits(one, asked[key])},
            tuple(
                one for key, one in journaled.items() if key not in asked and key not in written_ids
            ),
        )

    def add(self, results: Sequence[SerializedResult]) -> None:
        """Add new results."""
        self.by_id.update({result.id: result for result in results})

    @property
    def has_tasks(self) -> bool:
        """Whether any prompt is to get a result in this run."""
        return bool(self.selection.tasks)

    def count_tasks(self) -> int:
        """Count the prompts that are to get a result."""
        return len(self.selection.tasks)

    def count_done(self) -> int:
        """Count the prompts that have a result by now."""
        return len(self.by_id)

    def plan_work(self, planner: Planner, deliver: Deliver) -> dict[Plane, MakeWork]:
        """Plan the work on each plane with open prompts, as a function of its slide."""

        def make(prompts: Sequence[Prompt], slide: Slide) -> Work:
            return Work(slide, tuple(prompts), planner, deliver)

        by_plane = self._group_open_prompts()
        return {plane: partial(make, prompts) for plane, prompts in by_plane.items()}

    def _group_open_prompts(self) -> dict[Plane, list[Prompt]]:
        """Group the prompts without a result by their plane."""
        return group_by_plane(self._list_open_prompts())

    def make_plan(self, planner: Planner, model: ChosenModel) -> Plan:
        """Count the prompts without a result and the patches that they need."""
        encodes = sum(
            sum(model.plan_patches(planner, prompts).values())
            for prompts in self._group_open_prompts().values()
        )
        kinds = Counter(prompt.kind for prompt in self._list_open_prompts())
        return Plan(kinds, encodes, self.selection.outlines_left, self.selection.tasks_beyond_limit)

    def _list_open_prompts(self) -> list[Prompt]:
        return [task.prompt for task in self.selection.tasks if task.result_id not in self.by_id]

    def list_outlined(self) -> list[tuple[Task, Feature]]:
        """List the results that have an outline, with their tasks."""
        answered = ((task, self.by_id.get(task.result_id)) for task in self.selection.tasks)
        return [(task, one.feature) for task, one in answered if one is not None and one.feature]

    def make_change(self, n_objects: int) -> Change:
        """Make the change of the image; where the model sees nothing, earlier results stay."""
        outlined = self.list_outlined()
        removed = dict.fromkeys(one for task, _ in outlined for one in task.replaces)
        placed = tuple(Placed(feature, task.parent_id) for task, feature in outlined)
        return Change(n_objects, tuple(removed), placed)

    def list_kept_results(self) -> list[KeptResult]:
        """List what :meth:`make_change` would do, for QuPath to do it later."""
        return [KeptResult(f, task.parent_id, task.replaces) for task, f in self.list_outlined()]

    def list_written(self) -> list[Written]:
        """List the results with an outline as the history records them."""
        return [describe_written(feature) for _, feature in self.list_outlined()]

    def list_empty(self) -> dict[str, str]:
        """Give the reasons of results without an outline, by their ids."""
        return {one.id: one.reason for one in self.by_id.values() if one.feature is None}

    def list_ended(self) -> dict[str, str]:
        """List searches that have ended: among prompts there are none."""
        return {}

    def list_rows(self) -> tuple[PromptRow, ...]:
        """List one row per prompt, with its outcome."""
        rows = list(self.selection.rows)
        for task in self.selection.tasks:
            if (one := self.by_id.get(task.result_id)) is not None:
                state: PromptState = "empty" if one.feature is None else "outlined"
                rows.append(PromptRow(task.prompt.id, state, one.reason, task.prompt, one.feature))
        return tuple(rows)


def describe_written(feature: Feature) -> Written:
    """Describe a result as the history records it."""
    properties = feature["properties"]
    return Written(
        feature["id"],
        properties["metadata"][PROMPT_KEY],
        properties["metadata"][DRAWN_KEY],
        read_class_name(feature),
        properties["objectType"],
    )


def _fits(result: SerializedResult, task: Task) -> bool:
    """Whether a result from the journal has the class that its prompt has now."""
    return result.feature is None or read_class_name(result.feature) == task.prompt.class_name
