"""Areas of a class that ends in ``*`` are background for the prompts near them."""

from __future__ import annotations

import pytest
import shapely
from shapely.geometry import LineString, MultiPolygon, Polygon, box

from wsisam_qupath.geojson.provenance import describe_question
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import PathClass, Plane, Prompt
from wsisam_qupath.prompts.background import BACKGROUND_POINTS, Background
from wsisam_qupath.prompts.grouping import Area, Clicks, Mark, group_corrections, group_marks
from wsisam_qupath.prompts.results import compute_result_id

IGNORE = PathClass("Ignore*")
CLICK = Clicks("click", ((50.0, 50.0),))


def background(*corners: float, plane: Plane | None = None) -> Background:
    return Background("back", box(*corners), IGNORE, plane or Plane())


def patch_of(prompt: Prompt) -> Box:
    x, y = prompt.l0_bounds.corners().mean(axis=0).tolist()
    return Box(x - 100, y - 100, x + 100, y + 100)


def group(*marks: Mark) -> tuple[Prompt, ...]:
    return group_marks(marks, points_as="together", hr_l0_box_of=patch_of).prompts


def test_background_in_the_patch_of_a_prompt_belongs_to_it() -> None:
    other = Background("other", box(20, 100, 40, 120), IGNORE)

    (prompt,) = group(CLICK, background(80, 0, 1000, 100), other)

    assert prompt.l0_background is not None
    assert prompt.l0_background.equals(box(80, 0, 1000, 100).union(box(20, 100, 40, 120)))
    assert prompt.l0_negatives == ()
    assert prompt.sources == ("click", "back", "other")


@pytest.mark.parametrize(
    "area",
    [
        background(200, 0, 300, 100),
        background(0, 0, 1000, 1000),
        background(80, 0, 1000, 100, plane=Plane(z=1)),
    ],
    ids=["out of the patch", "around the object", "on another plane"],
)
def test_elsewhere_and_around_an_object_it_says_nothing(area: Background) -> None:
    assert group(CLICK, area) == (
        Prompt("click", l0_positives=((50.0, 50.0),), sources=("click",)),
    )


def test_another_background_is_another_question() -> None:
    plain, cut = group(CLICK)[0], group(CLICK, background(80, 0, 1000, 100))[0]

    assert describe_question(plain) != describe_question(cut)
    assert compute_result_id(plain, "b", None, {}) != compute_result_id(cut, "b", None, {})


def test_points_are_the_same_each_time_near_the_object_and_apart() -> None:
    area, dot = background(0, 0, 400, 400), shapely.Point(-10, 200)

    first, again = (area.sample(Box(0, 0, 400, 400), dot) for _ in range(2))

    assert first == again
    assert max(x for x, _ in first) < 250
    assert shapely.MultiPoint(first).length == 0
    assert min(shapely.distance(shapely.Point(first[0]), shapely.points(first[1:]))) > 50


@pytest.mark.parametrize(
    "shape",
    [
        LineString([(0, 0), (90, 90)]).buffer(0.01),
        MultiPolygon([box(0, 0, 1, 1), box(99, 99, 100, 100)]),
        Polygon([(0, 0), (100, 0), (100, 100), (0, 100)], [[(1, 1), (99, 1), (99, 99), (1, 99)]]),
    ],
    ids=["thin", "in parts", "a frame"],
)
def test_points_lie_in_areas_of_any_shape(shape: Polygon | MultiPolygon) -> None:
    points = Background("b", shape, IGNORE).sample(Box(0, 0, 100, 100), shapely.Point(200, 50))

    assert points
    assert all(shape.contains(shapely.Point(one)) for one in points)


def test_a_corrected_outline_leaves_out_the_background_in_it() -> None:
    area = Area("old", l0_outline=box(0, 0, 100, 100))

    (prompt,) = group_corrections(area, [background(60, 0, 200, 100)]).prompts

    assert prompt.l0_earlier is not None
    assert len(prompt.l0_negatives) == BACKGROUND_POINTS
    assert all(60 < x < 100 for x, _ in prompt.l0_negatives)
    assert prompt.l0_background is not None


def test_background_beside_a_corrected_outline_is_kept_out_of_it() -> None:
    area = Area("old", l0_outline=box(0, 0, 100, 100))

    (prompt,) = group_corrections(area, [CLICK, background(120, 0, 900, 100)]).prompts

    assert prompt.l0_positives == ((50.0, 50.0),)
    assert all(120 < x < 200 for x, _ in prompt.l0_negatives)
