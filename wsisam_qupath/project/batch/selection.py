"""Selects the annotations of an image that are prompts, and the prompts that need a result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...files.names import compose
from ...geojson import Feature, read_marks
from ...geojson.authorship import (
    Drawings,
    is_of_newer_version,
    is_untouched,
    read_prompt_id,
    read_question,
    read_rank,
)
from ...geojson.properties import read_class_name, read_object_type
from ...geojson.provenance import describe_question
from ...geojson.shapes import is_scribble
from ...geometry import Box
from ...options import ObjectType, PointsAs
from ...prompts import PathClass, Prompt, PromptSet, clip_to_slide
from ...prompts.background import Background
from ...prompts.grouping import Area, Clicks, HrBoxOf, Mark, derive_id, group_marks
from ...qupath.values import ImageContents
from ...report.outcome import PromptRow
from ..history import Record
from .request import KINDS, Only, Redo

ResultIdsOf: TypeAlias = Callable[[Prompt], tuple[str, ...]]
"""Gives the id that the result of a prompt will have, then those that outdated results have."""


_REVIEWED = "a user edited its result or made it an annotation"


@dataclass(frozen=True)
class PromptFilter:
    """The user's choice of annotations that are prompts; see :class:`.BatchRequest`.

    Attributes:
        outlines: ids of areas that are prompts even if outlines are not asked for.
        follow: whether a result belongs to the drawing that it answered: an unchanged drawing is
            answered, and a changed one is answered beside a result that a user took over.
        stays: whether a result that answers its drawing as it is now may stay, where it is
            followed; without it each may.
    """

    classes: frozenset[str] = frozenset()
    only: Only | None = None
    points_as: PointsAs = "together"
    class_name: str | None = None
    keep: bool = False
    redo: Redo | None = None
    object_type: ObjectType = "detection"
    outlines: frozenset[str] = frozenset()
    follow: bool = False
    stays: Callable[[Feature, Prompt], bool] | None = None

    def names(self, path_class: PathClass | None) -> bool:
        """Tell whether the user named a class, however its letters are composed."""
        return path_class is not None and compose(path_class.name) in map(compose, self.classes)

    def asks_again(self, *, is_outdated: bool) -> bool:
        """Tell whether a prompt that has a result is to get a new one."""
        return self.redo == "all" or (self.redo == "outdated" and is_outdated)

    def wants_look_of(self, feature: Feature, prompt: Prompt) -> bool:
        """Tell whether a result has the type and class that a new one would have."""
        return has_look(feature, prompt, self.object_type)


def has_look(feature: Feature, prompt: Prompt, object_type: ObjectType) -> bool:
    """Whether a result has the type and class that a new one would have."""
    look = (read_class_name(feature), read_object_type(feature))
    return look == (prompt.class_name, object_type)


@dataclass(frozen=True)
class Task:
    """A prompt that needs a result.

    Attributes:
        result_id: id that the result will have.
        parent_id: the annotation below which the result is added.
        replaces: ids of earlier results that the new one replaces.
    """

    prompt: Prompt
    result_id: str
    parent_id: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The prompts of an image: those that need a result, and the others with the reason.

    Attributes:
        rows: prompts with a result, prompts that a user took over, and skipped prompts.
        outlines_left: number of areas that are not prompts, since refining was not asked for.
        tasks_beyond_limit: number of prompts that wait for another run.
    """

    tasks: tuple[Task, ...] = ()
    rows: tuple[PromptRow, ...] = ()
    outlines_left: int = 0
    tasks_beyond_limit: int = 0

    def limit_tasks(self, count: int) -> Selection:
        """Leave the tasks after the first ``count`` to another run."""
        kept = self.tasks[:count]
        return replace(self, tasks=kept, tasks_beyond_limit=len(self.tasks) - len(kept))


def select(
    contents: ImageContents,
    record: Record,
    prompt_filter: PromptFilter,
    *,
    l0_box: Box,
    hr_l0_box_of: HrBoxOf,
    result_ids_of: ResultIdsOf,
) -> Selection:
    """Sort the annotations of an image into prompts that need a result and all others.

    Args:
        record: history of the image.
        l0_box: extent of the slide, level-0 px.
        hr_l0_box_of: see :func:`.group_marks`.
    """
    history = _EarlierResults.read(contents, record)
    drawn = [feature for feature in contents.annotations if not history.is_result(feature)]
    marks, skipped = read_marks(feature for feature in drawn if _may_be_prompt(feature))
    wanted = [mark for mark in marks if _is_wanted(mark, prompt_filter)]
    grouped = group_marks(wanted, points_as=prompt_filter.points_as, hr_l0_box_of=hr_l0_box_of)
    prompts = [p for p in grouped.prompts if _is_asked_for(p, prompt_filter)]
    # If only some annotations are prompts, negative points may belong to the others.
    strays = () if prompt_filter.only or prompt_filter.classes else grouped.skipped
    found = clip_to_slide(PromptSet(tuple(prompts), (*skipped, *strays)), l0_box)
    parents = _parents(wanted)
    tasks: list[Task] = []
    rows = [PromptRow(one.id, "skipped", one.reason) for one in found.skipped]
    for unclassed in found.prompts:
        prompt = _set_class(unclassed, prompt_filter.class_name)
        result_ids = result_ids_of(prompt)
        row = history.row(prompt, result_ids, prompt_filter)
        if row is not None:
            rows.append(row)
            continue
        replaces = () if prompt_filter.keep else history.find_untouched_ids(prompt.id)
        tasks.append(Task(prompt, result_ids[0], parents[prompt.id], replaces))
    outlines_left = sum(isinstance(mark, Area) and mark.l0_outline is not None for mark in marks)
    outlines_used = sum(isinstance(mark, Area) and mark.l0_outline is not None for mark in wanted)
    return Selection(tuple(tasks), tuple(rows), outlines_left - outlines_used)


@dataclass(frozen=True)
class _EarlierResults:
    """Results of earlier runs in an image, by the ids of their prompts.

    Attributes:
        results_of: results of this program that the image has now, by the ids of their prompts.
        taken_over: reasons by prompts with a result that is left alone, since a user edited it or
            turned it into an annotation.
    """

    results_of: dict[str, list[Feature]]
    taken_over: dict[str, str]
    drawings: Drawings
    empty: dict[str, str]

    @classmethod
    def read(cls, contents: ImageContents, record: Record) -> _EarlierResults:
        drawings = Drawings((one.drawn, one.prompt_id) for one in record.written)
        results_of: defaultdict[str, list[Feature]] = defaultdict(list)
        taken_over: dict[str, str] = {}
        for feature in (*contents.results, *contents.annotations):
            prompt_id = read_prompt_id(feature)
            if prompt_id is not None:
                results_of[prompt_id].append(feature)
                if is_of_newer_version(feature):
                    taken_over[prompt_id] = "a newer version of this program made its result"
                elif not is_untouched(feature):
                    taken_over[prompt_id] = _REVIEWED
        for feature in contents.annotations:
            if read_prompt_id(feature) is None:
                prompt_id = drawings.read_prompt_id(feature)
                if prompt_id is not None:
                    taken_over[prompt_id] = _REVIEWED
        return cls(dict(results_of), taken_over, drawings, dict(record.empty))

    def is_result(self, feature: Feature) -> bool:
        """Tell whether an annotation is, or was, a result of this program."""
        return (
            read_prompt_id(feature) is not None or self.drawings.read_prompt_id(feature) is not None
        )

    def row(
        self, prompt: Prompt, result_ids: tuple[str, ...], prompt_filter: PromptFilter
    ) -> PromptRow | None:
        """Give the report's row for a prompt that needs no result; None if it needs one.

        Args:
            result_ids: see :data:`ResultIdsOf`.
        """
        results = self.results_of.get(prompt.id, [])
        existing = {str(f.get("id")): f for f in results}
        is_news = prompt_filter.follow and all(_is_about_another(prompt, f) for f in results)
        if prompt.id in self.taken_over and not (prompt_filter.keep or is_news):
            return PromptRow(prompt.id, "reviewed", self.taken_over[prompt.id], prompt)
        newest = result_ids[0]
        if newest in existing and prompt_filter.keep:  # a second one would have the same id
            return PromptRow(prompt.id, "answered", prompt=prompt, feature=existing[newest])
        standing = self._find_standing(prompt, prompt_filter, is_news=is_news)
        if standing is not None:
            return PromptRow(prompt.id, "answered", prompt=prompt, feature=standing)
        for result_id in result_ids:
            is_outdated = result_id != newest
            if prompt_filter.asks_again(is_outdated=is_outdated):
                continue
            feature = existing.get(result_id)
            if feature is not None and prompt_filter.wants_look_of(feature, prompt):
                return PromptRow(prompt.id, "answered", "", prompt, feature, is_outdated)
            if feature is None and result_id in self.empty:
                reason = self.empty[result_id]
                return PromptRow(prompt.id, "empty", reason, prompt, None, is_outdated)
        return None

    def _find_standing(
        self, prompt: Prompt, prompt_filter: PromptFilter, *, is_news: bool
    ) -> Feature | None:
        """Find the result that stays whatever id a new one would have."""
        results = self.results_of.get(prompt.id, [])
        if prompt_filter.redo != "all" and not prompt_filter.keep:
            for result in results:
                if _is_chosen(prompt, result):
                    return result
        if prompt_filter.follow and not prompt_filter.redo and not is_news:
            stays = prompt_filter.stays
            if stays is None or all(stays(one, prompt) for one in results):
                return results[0]
        return None

    def find_untouched_ids(self, prompt_id: str) -> tuple[str, ...]:
        results = self.results_of.get(prompt_id, ())
        return tuple(str(f["id"]) for f in results if "id" in f and is_untouched(f))


def _is_about_another(prompt: Prompt, result: Feature) -> bool:
    """Whether a result answered another drawing; a result from before 0.3 does not say."""
    asked = read_question(result)
    return asked is not None and asked != describe_question(prompt)


def _is_chosen(prompt: Prompt, result: Feature) -> bool:
    """Whether a user chose a result among several, and its drawing is as it was then."""
    return read_rank(result) > 1 and not _is_about_another(prompt, result)


def _may_be_prompt(feature: Feature) -> bool:
    """Whether an annotation can be a prompt or a part of one: all but lines that measure."""
    geometry = feature.get("geometry") or {}
    kinds = ("Point", "MultiPoint", "Polygon", "MultiPolygon")
    return geometry.get("type") in kinds or is_scribble(geometry)


def _is_wanted(mark: Mark, prompt_filter: PromptFilter) -> bool:
    """Tell whether the user chose a mark as a prompt, or as a click that belongs to one."""
    name = mark.path_class.name if mark.path_class else None
    if isinstance(mark, Background):
        return True
    if isinstance(mark, Clicks):
        # Clicks without a class may belong to any area.
        return (
            mark.are_negative
            or not prompt_filter.classes
            or name is None
            or prompt_filter.names(mark.path_class)
        )
    if prompt_filter.classes and not prompt_filter.names(mark.path_class):
        return False
    if mark.l0_outline is not None:
        return (
            mark.id in prompt_filter.outlines
            or prompt_filter.only == "outlines"
            or (prompt_filter.only is None and bool(prompt_filter.classes))
        )
    return prompt_filter.only in (None, "rectangles")


def _is_asked_for(prompt: Prompt, prompt_filter: PromptFilter) -> bool:
    if prompt_filter.only is not None and prompt.kind not in KINDS[prompt_filter.only]:
        return False
    return not prompt_filter.classes or prompt_filter.names(prompt.path_class)


def _parents(marks: Iterable[Mark]) -> dict[str, str]:
    """Map the ids of possible prompts to their annotations; one of several points has theirs."""
    parents = {mark.id: mark.id for mark in marks}
    for mark in marks:
        if isinstance(mark, Clicks):
            parents |= {derive_id(mark.id, n): mark.id for n in range(len(mark.l0_points))}
    return parents


def _set_class(prompt: Prompt, class_name: str | None) -> Prompt:
    return replace(prompt, path_class=PathClass(class_name)) if class_name else prompt
