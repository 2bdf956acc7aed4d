"""Which annotations of an image are prompts, and which of those still need an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..authorship import Drawings, is_untouched, prompt_id_of
from ..geojson import Feature, read_marks
from ..geojson.properties import path_class_of
from ..geometry import Box
from ..grouping import Area, Clicks, HrBoxOf, Mark, PointsAs, derived_id, group_marks
from ..project.ledger import Record
from ..prompts import PathClass, Prompt, PromptSet, within_slide
from ..qupath.values import ImageContents
from .outcome import PromptRow
from .request import KINDS, Only

AnswerIdOf: TypeAlias = Callable[[Prompt], str]
"""The id that the answer to a prompt will have."""


@dataclass(frozen=True)
class Rules:
    """Which annotations a user wants answered; see :class:`.BatchRequest`."""

    classes: frozenset[str] = frozenset()
    only: Only | None = None
    points_as: PointsAs = "together"
    class_name: str | None = None
    keep: bool = False
    redo: bool = False


@dataclass(frozen=True)
class Task:
    """A prompt that needs an answer.

    Attributes:
        answer_id: of the answer to come.
        parent_id: the annotation that the result goes below.
        replaces: ids of earlier results that go when there is a new one.
    """

    prompt: Prompt
    answer_id: str
    parent_id: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What is to be done in an image, and what is not.

    Attributes:
        rows: prompts that were answered before, that a person took over, or that were skipped.
        outlines_left: areas that are somebody's work, since nobody asked to refine them.
    """

    tasks: tuple[Task, ...] = ()
    rows: tuple[PromptRow, ...] = ()
    outlines_left: int = 0


def select(
    contents: ImageContents,
    record: Record,
    rules: Rules,
    *,
    l0_box: Box,
    hr_l0_box_of: HrBoxOf,
    answer_id_of: AnswerIdOf,
) -> Selection:
    """Sort the annotations of an image into prompts to answer, answered ones, and the rest.

    Args:
        record: what we ever wrote into the image, and which answers were empty.
        l0_box: what the slide covers.
        hr_l0_box_of: see :func:`.group_marks`.
    """
    history = _History.of(contents, record)
    drawn = [feature for feature in contents.annotations if not history.is_result(feature)]
    marks, skipped = read_marks(feature for feature in drawn if _may_be_prompt(feature))
    wanted = [mark for mark in marks if _is_wanted(mark, rules)]
    grouped = group_marks(wanted, points_as=rules.points_as, hr_l0_box_of=hr_l0_box_of)
    prompts = [p for p in grouped.prompts if _is_asked_for(p, rules)]
    # Where only some annotations are prompts, negative points may well belong to the others.
    strays = () if rules.only or rules.classes else grouped.skipped
    found = within_slide(PromptSet(tuple(prompts), (*skipped, *strays)), l0_box)
    parents = _parents(wanted)
    tasks: list[Task] = []
    rows = [PromptRow(one.id, "skipped", one.reason) for one in found.skipped]
    for unclassed in found.prompts:
        prompt = _with_class(unclassed, rules.class_name)
        answer_id = answer_id_of(prompt)
        row = history.row(prompt, answer_id, rules)
        if row is not None:
            rows.append(row)
            continue
        replaces = () if rules.keep else history.untouched_ids(prompt.id)
        tasks.append(Task(prompt, answer_id, parents[prompt.id], replaces))
    outlines_left = sum(isinstance(mark, Area) and mark.l0_outline is not None for mark in marks)
    outlines_used = sum(isinstance(mark, Area) and mark.l0_outline is not None for mark in wanted)
    return Selection(tuple(tasks), tuple(rows), outlines_left - outlines_used)


@dataclass(frozen=True)
class _History:
    """Earlier results in an image, by the prompts that they answer.

    Attributes:
        results_of: ours, as the image holds them now.
        taken_over: prompts whose result became an object of a person's.
    """

    results_of: dict[str, list[Feature]]
    taken_over: frozenset[str]
    drawings: Drawings
    empty: dict[str, str]

    @classmethod
    def of(cls, contents: ImageContents, record: Record) -> _History:
        drawings = Drawings((one.drawn, one.prompt_id) for one in record.written)
        results_of: defaultdict[str, list[Feature]] = defaultdict(list)
        taken_over: set[str] = set()
        for feature in (*contents.results, *contents.annotations):
            prompt_id = prompt_id_of(feature)
            if prompt_id is not None:
                results_of[prompt_id].append(feature)
                if not is_untouched(feature):
                    taken_over.add(prompt_id)
        for feature in contents.annotations:
            if prompt_id_of(feature) is None:
                prompt_id = drawings.prompt_id_of(feature)
                if prompt_id is not None:
                    taken_over.add(prompt_id)
        return cls(dict(results_of), frozenset(taken_over), drawings, dict(record.empty))

    def is_result(self, feature: Feature) -> bool:
        """Whether an annotation is, or was, a result of ours."""
        return prompt_id_of(feature) is not None or self.drawings.prompt_id_of(feature) is not None

    def row(self, prompt: Prompt, answer_id: str, rules: Rules) -> PromptRow | None:
        """Why a prompt needs no answer; None if it does."""
        existing = {str(f.get("id")): f for f in self.results_of.get(prompt.id, ())}
        if prompt.id in self.taken_over and not rules.keep:
            reason = "a person edited its result or made it an annotation"
            return PromptRow(prompt.id, "reviewed", reason, prompt)
        # Beside itself, an answer would have the same id.
        if answer_id in existing and (rules.keep or not rules.redo):
            return PromptRow(prompt.id, "answered", prompt=prompt, feature=existing[answer_id])
        if answer_id in self.empty and not rules.redo:
            return PromptRow(prompt.id, "empty", self.empty[answer_id], prompt)
        return None

    def untouched_ids(self, prompt_id: str) -> tuple[str, ...]:
        return tuple(str(f["id"]) for f in self.results_of.get(prompt_id, ()) if "id" in f)


def _may_be_prompt(feature: Feature) -> bool:
    """Whether it is an area or points: lines and areas whose class ends in ``*`` are other work."""
    properties, geometry = feature.get("properties") or {}, feature.get("geometry") or {}
    if geometry.get("type") in ("Point", "MultiPoint"):
        return True  # of an ignored class, they are clicks outside of objects
    path_class = path_class_of(properties.get("classification"))
    is_ignored = path_class is not None and path_class.is_ignored
    return geometry.get("type") in ("Polygon", "MultiPolygon") and not is_ignored


def _is_wanted(mark: Mark, rules: Rules) -> bool:
    """Whether a mark may be a prompt, or a click on one."""
    name = mark.path_class.name if mark.path_class else None
    if isinstance(mark, Clicks):
        # Clicks without a class may belong to any area.
        return mark.are_negative or not rules.classes or name is None or name in rules.classes
    if rules.classes and name not in rules.classes:
        return False
    if mark.l0_outline is not None:
        return rules.only == "outlines" or (rules.only is None and bool(rules.classes))
    return rules.only in (None, "rectangles")


def _is_asked_for(prompt: Prompt, rules: Rules) -> bool:
    if rules.only is not None and prompt.kind not in KINDS[rules.only]:
        return False
    return not rules.classes or (
        prompt.path_class is not None and prompt.path_class.name in rules.classes
    )


def _parents(marks: Iterable[Mark]) -> dict[str, str]:
    """The annotation of each possible prompt: its own, or that of the points it is one of."""
    parents = {mark.id: mark.id for mark in marks}
    for mark in marks:
        if isinstance(mark, Clicks):
            parents |= {derived_id(mark.id, n): mark.id for n in range(len(mark.l0_points))}
    return parents


def _with_class(prompt: Prompt, class_name: str | None) -> Prompt:
    return replace(prompt, path_class=PathClass(class_name)) if class_name else prompt
