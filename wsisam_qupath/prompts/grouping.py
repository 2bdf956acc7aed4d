"""Group what a user drew into prompts, one per object.

Points inside a rectangle or outline belong to it, to the smallest of several. Negative points
outside of all go to the nearest points prompt with an HR patch that holds them. Areas of background
belong to each prompt with an HR patch that meets them. Level-0 px; objects meet only others on
their own plane.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ..geometry import Box, FloatArray
from ..geometry.validity import keep_polygons
from ..options import PointsAs
from .background import Background
from .prompt import PathClass, Plane, Point, Prompt, PromptSet, Skipped

HrBoxOf: TypeAlias = Callable[[Prompt], Box]
"""Gives the area that the HR patch of a prompt covers, level-0 px."""

IntArray: TypeAlias = NDArray[np.intp]

ID_NAMESPACE = uuid.UUID("9a1d0f6e-7c52-4d0b-8f3e-2b64c1a7e5d3")
"""Namespace of the UUIDv5 ids of features without an id: the same in every run."""


@dataclass(frozen=True, slots=True)
class Area:
    """A drawn rectangle or outline; exactly one of the two is set."""

    id: str
    l0_box: Box | None = None
    l0_outline: Polygon | MultiPolygon | None = None
    path_class: PathClass | None = None
    plane: Plane = field(default_factory=Plane)


@dataclass(frozen=True, slots=True)
class Clicks:
    """The points of one feature: inside of objects or, if their class is ignored, outside.

    Attributes:
        is_scribble: whether they lie along a line, which marks one object whatever is asked for.
    """

    id: str
    l0_points: tuple[Point, ...]
    path_class: PathClass | None = None
    plane: Plane = field(default_factory=Plane)
    is_scribble: bool = False

    @property
    def are_negative(self) -> bool:
        return self.path_class is not None and self.path_class.is_ignored


Mark: TypeAlias = Area | Clicks | Background
"""A mark: what one feature drew."""


class _Click(NamedTuple):
    """One point of a feature, and its index there."""

    source: Clicks
    number: int

    @property
    def l0_point(self) -> Point:
        return self.source.l0_points[self.number]


def group_marks(
    marks: Sequence[Mark], *, points_as: PointsAs, hr_l0_box_of: HrBoxOf | None
) -> PromptSet:
    """Make one prompt per area, and prompts of the points that lie in no area.

    Args:
        marks: drawn marks in the order of the input, which the prompts keep; their ids are
            distinct.
        points_as: whether the points of a feature mark one object, or each its own.
        hr_l0_box_of: asked only where negative points lie in no area, or where there are areas of
            background, which say nothing without it.

    Returns:
        The prompts; skipped are the negative points that belong to none of them.
    """
    planes: defaultdict[tuple[int, int], list[Mark]] = defaultdict(list)
    for mark in marks:
        planes[mark.plane.z, mark.plane.t].append(mark)
    prompts_of: dict[str, list[Prompt]] = {}
    skipped: list[Skipped] = []
    for members in planes.values():
        clicks_of = _clicks_by_holder(members)
        found = {mark.id: _prompts(mark, clicks_of[mark.id], points_as) for mark in members}
        strays = [
            click
            for mark in members
            if isinstance(mark, Clicks) and mark.are_negative
            for click in clicks_of[mark.id]
        ]
        skipped += _give_strays(found, strays, hr_l0_box_of)
        if hr_l0_box_of is not None:
            backgrounds = [mark for mark in members if isinstance(mark, Background)]
            _give_backgrounds(found, backgrounds, hr_l0_box_of)
        prompts_of |= found
    return PromptSet(tuple(p for mark in marks for p in prompts_of[mark.id]), tuple(skipped))


def group_corrections(area: Area, marks: Sequence[Mark]) -> PromptSet:
    """Make one prompt that corrects an area by points, wherever they lie, and by a rectangle.

    Background is cut out of the answer; points of it where it meets the area, else around it, are
    negative ones. Without points the area is a rectangle or a coarse outline like any other.
    """
    outline = make_polygon(area)
    backgrounds = [mark for mark in marks if isinstance(mark, Background)]
    apart = [mark for mark in backgrounds if not mark.is_around(outline)]
    marks = [_sample_near(mark, area) if isinstance(mark, Background) else mark for mark in marks]
    clicks = sorted(
        (mark for mark in marks if isinstance(mark, Clicks) and mark.l0_points),
        key=lambda mark: mark.are_negative,
    )
    boxes = [mark for mark in marks if isinstance(mark, Area) and mark.l0_box is not None]
    positives = [mark for mark in clicks if not mark.are_negative]
    negatives = [mark for mark in clicks if mark.are_negative]
    used: list[Mark] = [*clicks, *boxes[:1]]
    named: list[Mark] = [*positives, *boxes[:1], area]
    prompt = Prompt(
        clicks[0].id if clicks else area.id,
        l0_box=boxes[0].l0_box if boxes else None if clicks else area.l0_box,
        l0_outline=None if clicks else area.l0_outline,
        l0_earlier=make_polygon(area) if clicks else None,
        l0_positives=tuple(point for mark in positives for point in mark.l0_points),
        l0_negatives=tuple(point for mark in negatives for point in mark.l0_points),
        path_class=next((mark.path_class for mark in named if mark.path_class), None),
        plane=used[0].plane if used else area.plane,
        sources=tuple(mark.id for mark in used),
    )
    prompt = _add_background(prompt, apart)
    left = [mark.id for mark in marks if not any(mark is one for one in used)]
    reason = "only points and one rectangle correct an area"
    return PromptSet((prompt,), tuple(Skipped(mark_id, reason) for mark_id in left))


def derive_id(*parts: object) -> str:
    """Derive a UUIDv5 from numbers, strings and tuples of them, the same in every run."""
    return str(uuid.uuid5(ID_NAMESPACE, ascii(parts)))


def _clicks_by_holder(marks: Sequence[Mark]) -> defaultdict[str, list[_Click]]:
    """Group points by the id of the smallest area that holds them, or else of their own feature."""
    areas = [mark for mark in marks if isinstance(mark, Area)]
    clicks = [
        _Click(mark, number)
        for mark in marks
        if isinstance(mark, Clicks)
        for number in range(len(mark.l0_points))
    ]
    clicks_of: defaultdict[str, list[_Click]] = defaultdict(list)
    for click, area in zip(clicks, _find_smallest_holders(areas, clicks), strict=True):
        clicks_of[click.source.id if area < 0 else areas[area].id].append(click)
    return clicks_of


def _prompts(mark: Mark, clicks: Sequence[_Click], points_as: PointsAs) -> list[Prompt]:
    """Make the prompts of one feature from the points that belong to it."""
    if isinstance(mark, Area):
        return [_area_prompt(mark, clicks)]
    if isinstance(mark, Background) or mark.are_negative or not clicks:
        return []
    if points_as == "each" and not mark.is_scribble and len(mark.l0_points) > 1:
        return [
            Prompt(
                derive_id(mark.id, click.number),
                l0_positives=(click.l0_point,),
                path_class=mark.path_class,
                plane=mark.plane,
                sources=(mark.id,),
            )
            for click in clicks
        ]
    return [
        Prompt(
            mark.id,
            l0_positives=tuple(click.l0_point for click in clicks),
            path_class=mark.path_class,
            plane=mark.plane,
            sources=(mark.id,),
        )
    ]


def _area_prompt(area: Area, clicks: Sequence[_Click]) -> Prompt:
    positives = [click for click in clicks if not click.source.are_negative]
    classes = [area.path_class, *(click.source.path_class for click in positives)]
    return Prompt(
        area.id,
        l0_box=area.l0_box,
        l0_outline=area.l0_outline,
        l0_positives=tuple(click.l0_point for click in positives),
        l0_negatives=tuple(click.l0_point for click in clicks if click.source.are_negative),
        path_class=next((path_class for path_class in classes if path_class), None),
        plane=area.plane,
        sources=tuple(dict.fromkeys((area.id, *(click.source.id for click in clicks)))),
    )


def _find_smallest_holders(areas: Sequence[Area], clicks: Sequence[_Click]) -> IntArray:
    """Find the smallest area that each click lies in or on the edge of: its index, or -1."""
    if not areas or not clicks:
        return np.full(len(clicks), -1, dtype=np.intp)
    shapes = np.array([make_polygon(area) for area in areas], dtype=object)
    # The areas ask, not the points: GEOS prepares the side that asks, and these are the large.
    area_at, click_at = shapely.STRtree(_make_dots(clicks)).query(shapes, predicate="intersects")
    return _find_cheapest(len(clicks), click_at, area_at, shapely.area(shapes)[area_at])


def _give_strays(
    prompts_of: dict[str, list[Prompt]], strays: Sequence[_Click], hr_l0_box_of: HrBoxOf | None
) -> list[Skipped]:
    """Add negative points to the prompts of points around them, in place; skip the rest."""
    takers = [
        (mark_id, index)
        for mark_id, prompts in prompts_of.items()
        for index, prompt in enumerate(prompts)
        if prompt.l0_extent is None
    ]
    nearest = _find_nearest_patches([prompts_of[m][i] for m, i in takers], strays, hr_l0_box_of)
    taken: defaultdict[int, list[_Click]] = defaultdict(list)
    lost: defaultdict[str, int] = defaultdict(int)
    for click, taker in zip(strays, nearest, strict=True):
        if taker < 0:
            lost[click.source.id] += 1
        else:
            taken[taker].append(click)
    for taker, clicks in taken.items():
        mark_id, index = takers[taker]
        prompt = prompts_of[mark_id][index]
        prompts_of[mark_id][index] = replace(
            prompt,
            l0_negatives=tuple(click.l0_point for click in clicks),
            sources=tuple(dict.fromkeys((*prompt.sources, *(one.source.id for one in clicks)))),
        )
    return [Skipped(source_id, _explain_lost_points(count)) for source_id, count in lost.items()]


def _explain_lost_points(count: int) -> str:
    what = "its negative point lies" if count == 1 else f"{count} of its negative points lie"
    return f"{what} in no rectangle or outline and near no positive point"


def _find_nearest_patches(
    prompts: Sequence[Prompt], strays: Sequence[_Click], hr_l0_box_of: HrBoxOf | None
) -> IntArray:
    """Find the nearest prompt with an HR patch that holds each stray point: its index, or -1.

    The distance is that to the nearest of the prompt's own points.
    """
    if not prompts or not strays:
        return np.full(len(strays), -1, dtype=np.intp)
    dots = _make_dots(strays)
    clusters = np.array([shapely.MultiPoint(p.l0_positives) for p in prompts], dtype=object)
    near: IntArray = shapely.STRtree(clusters).query_nearest(dots, all_matches=False)[1]
    if hr_l0_box_of is None:
        return near
    # Mostly the nearest of all holds the point, so that few need to be compared below.
    boxes = [hr_l0_box_of(prompt) for prompt in prompts]
    patches = np.array([box.polygon for box in boxes])
    best: IntArray = np.where(shapely.intersects(patches[near], dots), near, -1)
    (rest,) = np.nonzero(best < 0)
    dot_at, patch_at = shapely.STRtree(patches).query(dots[rest], predicate="intersects")
    distance = shapely.distance(dots[rest][dot_at], clusters[patch_at])
    best[rest] = _find_cheapest(len(rest), dot_at, patch_at, distance)
    return best


def _find_cheapest(count: int, rows: IntArray, columns: IntArray, costs: FloatArray) -> IntArray:
    """Find the column of the cheapest pair of each row, the first of equals; or -1."""
    best = np.full(count, -1, dtype=np.intp)
    order = np.lexsort((columns, costs, rows))
    row, first = np.unique(rows[order], return_index=True)
    best[row] = columns[order][first]
    return best


def _give_backgrounds(
    prompts_of: dict[str, list[Prompt]], backgrounds: Sequence[Background], hr_l0_box_of: HrBoxOf
) -> None:
    """Give background to the prompts with patches that meet it and that do not lie in it, in place.

    It is cut out of their answers. Points of it, so measured, make good answers worse.
    """
    if not backgrounds:
        return
    tree = shapely.STRtree([one.l0_area for one in backgrounds])
    for prompts in prompts_of.values():
        for index, prompt in enumerate(prompts):
            window, marked = hr_l0_box_of(prompt), _make_shape(prompt)
            met = sorted(tree.query(window.polygon, predicate="intersects").tolist())
            around = [backgrounds[number] for number in met]
            prompts[index] = _add_background(
                prompt, [one for one in around if not one.is_around(marked)]
            )


def _add_background(prompt: Prompt, backgrounds: Sequence[Background]) -> Prompt:
    if not backgrounds:
        return prompt
    return replace(
        prompt,
        l0_background=shapely.union_all([one.l0_area for one in backgrounds]),
        sources=tuple(dict.fromkeys((*prompt.sources, *(one.id for one in backgrounds)))),
    )


def _make_shape(prompt: Prompt) -> BaseGeometry:
    """Make the shape of a mark: its outline, its rectangle, or the points inside of it."""
    if prompt.l0_outline is not None:
        return prompt.l0_outline
    if prompt.l0_box is not None:
        return prompt.l0_box.polygon
    return shapely.MultiPoint(prompt.l0_positives)


def _sample_near(background: Background, area: Area) -> Clicks:
    """Sample points of background in an area to correct, or near it if they do not meet."""
    outline = make_polygon(area)
    shared = keep_polygons(shapely.intersection(background.l0_area, outline))
    wrong = background if shared.is_empty else replace(background, l0_area=shared)
    x0, y0, x1, y1 = outline.bounds
    window = Box(2 * x0 - x1, 2 * y0 - y1, 2 * x1 - x0, 2 * y1 - y0)
    points = () if background.is_around(outline) else wrong.sample(window, outline)
    return Clicks(background.id, points, background.path_class, background.plane)


def _make_dots(clicks: Sequence[_Click]) -> NDArray[np.object_]:
    dots: NDArray[np.object_] = shapely.points([click.l0_point for click in clicks])
    return dots


def make_polygon(area: Area) -> Polygon | MultiPolygon:
    """Make the polygon that an area covers, level-0 px."""
    return area.l0_box.polygon if area.l0_box else area.l0_outline
