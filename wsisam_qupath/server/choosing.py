"""Choose which prompts of an image are answered, and what becomes of their earlier results.

A client sends everything that is drawn on a plane, with the results among it. What belongs
together, what is answered already, and what an answer replaces is decided here, by a batch's rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shapely.geometry import MultiPoint, Polygon

from ..geojson import Feature, prompts_to_refine, read_marks
from ..geojson.authorship import (
    is_made_by,
    is_untouched,
    read_outline,
    read_prompt_id,
    read_question,
)
from ..geojson.properties import read_object_type, read_path_class
from ..geojson.provenance import describe_question
from ..geometry import Box
from ..inference.segmenter import Segmenter
from ..options import OutlineOptions
from ..project.batch.selection import PromptFilter, Task, has_look, select
from ..project.history import Record
from ..prompts import Prompt, PromptSet
from ..prompts.background import Background
from ..prompts.grouping import Clicks
from ..qupath.values import ImageContents
from ..report.outcome import PromptRow
from ..slide import PixelSource
from .schemas import Area, Choice

_NEAR_SHARE = 0.5
"""Share by which the bounds of an outline grow on each side; points within them correct it."""


@dataclass(frozen=True)
class Chosen:
    """What to do about an image.

    Attributes:
        tasks: prompts to answer, by their ids.
        rows: prompts that are not answered, with the reason.
        loose: ids of unmodified results that have no prompt any more.
        options: how to answer.
    """

    tasks: Mapping[str, Task]
    rows: tuple[PromptRow, ...]
    loose: tuple[str, ...]
    options: OutlineOptions

    @property
    def prompts(self) -> PromptSet:
        """The prompts to answer."""
        return PromptSet(tuple(task.prompt for task in self.tasks.values()))


def choose(
    features: Sequence[Feature],
    choice: Choice,
    options: OutlineOptions,
    segmenter: Segmenter,
    pixels: PixelSource,
) -> Chosen:
    """Choose the prompts that a client asks for.

    Args:
        features: drawn objects on a plane, and the results there.
    """
    results = _group_results(features)
    asked = None if choice.ids is None else _name_prompts(choice.ids, features)
    is_again = choice.again and asked is not None and not choice.follow
    planner = segmenter.planner(pixels, options)
    base, adapter = segmenter.model.base, segmenter.model.adapter

    def has_look_and_model(result: Feature, prompt: Prompt) -> bool:
        is_same = is_made_by(result, base.sha256, adapter.sha256 if adapter else None)
        return is_same and has_look(result, prompt, options.object_type)

    found = select(
        ImageContents(len(features), *_split(features)),
        Record(),
        PromptFilter(
            points_as=options.points_as,
            class_name=options.class_name,
            redo="all" if is_again else None,
            object_type=options.object_type,
            outlines=frozenset(results) | (asked or frozenset()),
            follow=True,
            stays=None if choice.follow else has_look_and_model,
        ),
        l0_box=pixels.l0_box,
        hr_l0_box_of=planner.hr_l0_box,
        result_ids_of=lambda prompt: (
            segmenter.model.predict_result_id(prompt, pixels.mpp, options),
        ),
    )
    wanted = [
        task
        for task in found.tasks
        if asked is None or _is_asked_for(task.prompt, asked, choice.area, results)
    ]
    present = {task.prompt.id for task in found.tasks} | {row.prompt_id for row in found.rows}
    tasks = {
        task.prompt.id: _follow(_take_over(task, present, results), results, choice)
        for task in wanted
    }
    rows = (row for row in found.rows if asked is None or row.prompt_id in asked)
    return Chosen(tasks, tuple(rows), tuple(_find_loose(asked, present, tasks, results)), options)


def choose_refinement(
    features: Sequence[Feature], area: Feature, choice: Choice, options: OutlineOptions
) -> Chosen:
    """Choose the points that correct an outline: those asked for, else those in and near it.

    What is asked for and corrects nothing, such as a rectangle, counts as not asked for. The answer
    replaces the outline, and has its type and class.
    """
    marks = [one for one in features if read_prompt_id(one) is None]
    asked = [one for one in marks if str(one.get("id")) in (choice.ids or ())]
    named = [one for one in asked if _read_corrections(one)]
    marks = named or [near for one in marks if (near := _keep_near(one, area)) is not None]
    (prompt,) = prompts_to_refine(marks, area).prompts
    prompt_id = read_prompt_id(area)
    if any(str(one.get("id")) == prompt_id for one in features):
        prompt = replace(prompt, id=str(prompt_id))
    properties: Mapping[str, Any] = area.get("properties") or {}
    prompt = replace(prompt, path_class=read_path_class(properties.get("classification")))
    kept = replace(
        options,
        object_type="detection" if read_object_type(area) == "detection" else "annotation",
        class_name=None,
    )
    if not len(prompt.l0_points):
        reason = (
            "no point corrects it: click where it is too small, or with a class that ends in * "
            "where it is too large"
        )
        return Chosen({}, (PromptRow(prompt.id, "skipped", reason),), (), kept)
    task = Task(prompt, "", "", (str(area.get("id")),))
    return Chosen({prompt.id: task}, (), (), kept)


def _split(features: Iterable[Feature]) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """Split features into annotations, and results that are something else."""
    annotations: list[Feature] = []
    others: list[Feature] = []
    for feature in features:
        if read_object_type(feature) == "annotation":
            annotations.append(feature)
        elif read_prompt_id(feature) is not None:
            others.append(feature)
    return tuple(annotations), tuple(others)


def _group_results(features: Iterable[Feature]) -> dict[str, list[Feature]]:
    """Group results by the ids of their prompts."""
    results: dict[str, list[Feature]] = {}
    for feature in features:
        prompt_id = read_prompt_id(feature)
        if prompt_id is not None:
            results.setdefault(prompt_id, []).append(feature)
    return results


def _name_prompts(ids: Iterable[str], features: Iterable[Feature]) -> frozenset[str]:
    """Name the prompts of what was selected; a result stands for the prompt that it answers."""
    prompt_of = {str(one.get("id")): read_prompt_id(one) for one in features}
    return frozenset(prompt_of.get(one) or one for one in ids)


def _is_asked_for(
    prompt: Prompt, asked: frozenset[str], area: Area | None, results: Mapping[str, list[Feature]]
) -> bool:
    """Whether a client asks for part of a prompt, now or as it was when it was answered."""
    if area is None:
        return not asked.isdisjoint(prompt.sources)
    if prompt.id in asked and prompt.l0_extent is not None:
        return True
    earlier = (point for one in results.get(prompt.id, ()) for point in _read_points(one))
    points = (*prompt.l0_positives, *prompt.l0_negatives, *earlier)
    return any(
        area.x <= x <= area.x + area.width and area.y <= y <= area.y + area.height
        for x, y in points
    )


def _read_points(result: Feature) -> Iterator[tuple[float, float]]:
    question = _read_question(read_question(result))
    yield from (*question["inside"], *question["outside"])


def _read_question(text: str | None) -> dict[str, Any]:
    """Read what was drawn to ask for a result; nothing if it is not stated, or was changed."""
    try:
        question = json.loads(text or "")
        points = [(float(x), float(y)) for key in ("inside", "outside") for x, y in question[key]]
        inside = points[: len(question["inside"])]
        return {"area": question["area"], "inside": inside, "outside": points[len(inside) :]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"area": "unknown", "inside": [], "outside": []}


def _take_over(task: Task, present: set[str], results: Mapping[str, list[Feature]]) -> Task:
    """Let the answer replace results of prompts that now belong to another prompt."""
    taken = (
        str(one["id"])
        for source in task.prompt.sources
        if source not in present
        for one in results.get(source, ())
        if is_untouched(one) and "id" in one
    )
    return replace(task, replaces=tuple(dict.fromkeys((*task.replaces, *taken))))


def _follow(task: Task, results: Mapping[str, list[Feature]], choice: Choice) -> Task:
    """Add the unmodified answer to fewer clicks, if there is one, to be corrected."""
    if not choice.follow:
        return task
    now = _read_question(describe_question(task.prompt))
    for result in results.get(task.prompt.id, ()):
        before = _read_question(read_question(result))
        extends = before["area"] == now["area"] and all(
            set(before[key]) <= set(now[key]) for key in ("inside", "outside")
        )
        outline = read_outline(result)
        if extends and outline is not None and is_untouched(result):
            return replace(task, prompt=replace(task.prompt, l0_earlier=outline))
    return task


def _find_loose(
    asked: frozenset[str] | None,
    present: set[str],
    tasks: Mapping[str, Task],
    results: Mapping[str, list[Feature]],
) -> Iterator[str]:
    """Find unmodified results of prompts that have lost their last point."""
    replaced = {one for task in tasks.values() for one in task.replaces}
    for prompt_id in (asked or frozenset()) - present:
        for result in results.get(prompt_id, ()):
            if is_untouched(result) and str(result.get("id")) not in replaced:
                yield str(result["id"])


def _read_corrections(feature: Feature) -> list[Clicks | Background]:
    """Read what of a feature corrects an outline: points, scribbles and background."""
    marks, _ = read_marks([feature])
    return [mark for mark in marks if isinstance(mark, (Clicks, Background))]


def _is_correction_in(feature: Feature, window: Polygon) -> bool:
    """Whether a feature is a scribble or background, and meets a window."""
    shapes = (
        MultiPoint(mark.l0_points) if isinstance(mark, Clicks) else mark.l0_area
        for mark in _read_corrections(feature)
    )
    return any(window.intersects(one) for one in shapes)


def _keep_near(mark: Feature, area: Feature) -> Feature | None:
    """Keep what of a feature corrects an area, if it is near: points, scribble, background.

    None if nothing of it does.
    """
    outline = read_outline(area)
    geometry = mark.get("geometry") or {}
    if outline is None:
        return None
    bounds = Box.around(outline)
    window = bounds.grow(_NEAR_SHARE * bounds.width, _NEAR_SHARE * bounds.height)
    if geometry.get("type") not in ("Point", "MultiPoint"):
        return mark if _is_correction_in(mark, window.polygon) else None
    coordinates = geometry.get("coordinates")
    points: list[Any] = [coordinates] if geometry["type"] == "Point" else coordinates or []
    near = [point for point in points if window.contains(*point[:2])]
    if not near:
        return None
    return {**mark, "geometry": {**geometry, "type": "MultiPoint", "coordinates": near}}
