"""Which points belong to which rectangle, outline or points prompt."""

from __future__ import annotations

import random

import pytest
from shapely.geometry import Point, Polygon

from wsisam_qupath.geometry import Box
from wsisam_qupath.options import PointsAs
from wsisam_qupath.prompts import PathClass, Plane, Prompt, PromptSet, Skipped
from wsisam_qupath.prompts.grouping import Area, Clicks, Mark, group_marks

IGNORE = PathClass("Ignore*")
TUMOR = PathClass("Tumor", (200, 0, 0))
STROMA = PathClass("Stroma")


def patch_of(prompt: Prompt) -> Box:
    """100 px wide round the first positive point."""
    x, y = prompt.l0_positives[0]
    return Box(x - 50, y - 50, x + 50, y + 50)


def group(*marks: Mark, points_as: PointsAs = "together") -> PromptSet:
    return group_marks(marks, points_as=points_as, hr_l0_box_of=patch_of)


def test_points_in_a_rectangle_make_one_prompt_with_it() -> None:
    box = Area("box", Box(0, 0, 100, 100), path_class=TUMOR)
    inside = Clicks("in", ((10, 10), (100, 100)), STROMA)  # the second on the edge
    outside = Clicks("not", ((90, 90),), IGNORE)

    assert group(inside, box, outside) == PromptSet(
        (
            Prompt(
                "box",
                l0_box=Box(0, 0, 100, 100),
                l0_positives=((10, 10), (100, 100)),
                l0_negatives=((90, 90),),
                path_class=TUMOR,
            ),
        )
    )


def test_a_rectangle_without_class_takes_that_of_its_positive_points() -> None:
    box = Area("box", Box(0, 0, 100, 100))
    negative, bare = Clicks("n", ((1, 1),), IGNORE), Clicks("b", ((2, 2),))

    (prompt,) = group(negative, bare, Clicks("p", ((3, 3),), STROMA), box).prompts

    assert prompt.path_class == STROMA


def test_points_belong_to_the_smallest_area_round_them_of_whatever_kind() -> None:
    large = Area("large", Box(0, 0, 100, 100))
    outline = Area("outline", l0_outline=Polygon([(0, 0), (90, 0), (0, 90)]))
    small = Area("small", Box(0, 0, 20, 20))
    clicks = Clicks("p", ((10, 10), (30, 30), (80, 80)))

    found = group(large, outline, small, clicks).prompts

    assert [(p.id, p.l0_positives) for p in found] == [
        ("large", ((80, 80),)),
        ("outline", ((30, 30),)),
        ("small", ((10, 10),)),
    ]


def test_points_in_the_hole_of_an_outline_do_not_belong_to_it() -> None:
    ring = Point(0, 0).buffer(50).difference(Point(0, 0).buffer(20))

    found = group(Area("ring", l0_outline=ring), Clicks("p", ((0, 0), (30, 0)))).prompts

    assert [(p.id, p.l0_positives) for p in found] == [("ring", ((30, 0),)), ("p", ((0, 0),))]


def test_the_points_of_a_feature_that_lie_outside_stay_a_prompt_of_their_own() -> None:
    box = Area("box", Box(0, 0, 10, 10))
    clicks = Clicks("p", ((500, 500), (5, 5), (510, 500)), TUMOR)

    found = group(clicks, box).prompts

    assert found == (
        Prompt("p", l0_positives=((500, 500), (510, 500)), path_class=TUMOR),
        Prompt("box", l0_box=Box(0, 0, 10, 10), l0_positives=((5, 5),), path_class=TUMOR),
    )


def test_each_point_is_an_object_of_its_own_when_asked_for() -> None:
    box = Area("box", Box(0, 0, 10, 10))
    several = Clicks("p", ((500, 500), (5, 5), (510, 500)))
    single = Clicks("s", ((900, 900),))

    found = group(several, box, single, points_as="each").prompts
    alone = group(several, points_as="each").prompts

    assert [p.l0_positives for p in found] == [
        ((500, 500),),
        ((510, 500),),
        ((5, 5),),
        ((900, 900),),
    ]
    assert [found[2].id, found[3].id] == ["box", "s"]
    # Its id follows a point, whether its neighbours lie in a box or not.
    assert [found[0].id, found[1].id] == [alone[0].id, alone[2].id]


def test_negative_points_outside_go_to_the_nearest_points_whose_patch_holds_them() -> None:
    left, right = Clicks("left", ((0, 0),)), Clicks("right", ((60, 0), (200, 0)))
    negative = Clicks("n", ((25, 0), (40, 0), (55, 20)), IGNORE)

    found = group(negative, left, right)

    assert [(p.id, p.l0_negatives) for p in found.prompts] == [
        ("left", ((25, 0),)),
        ("right", ((40, 0), (55, 20))),
    ]
    assert found.skipped == ()


def test_the_nearest_points_are_passed_over_when_their_patch_does_not_hold_the_negative() -> None:
    # (195, 0) is 5 px from the second point of "wide", but its patch lies round the first.
    wide, other = Clicks("wide", ((0, 0), (200, 0))), Clicks("other", ((160, 0),))

    found = group(wide, other, Clicks("n", ((195, 0),), IGNORE))

    assert [(p.id, p.l0_negatives) for p in found.prompts] == [
        ("wide", ()),
        ("other", ((195, 0),)),
    ]


def test_negative_points_that_belong_nowhere_are_skipped_and_counted() -> None:
    box, dot = Area("box", Box(0, 0, 10, 10)), Clicks("dot", ((100, 100),))
    far = Clicks("far", ((5, 5), (400, 400), (500, 500)), IGNORE)
    one = Clicks("one", ((300, 300),), IGNORE)

    found = group(box, dot, far, one)

    assert found.prompts[0].l0_negatives == ((5, 5),)
    assert found.skipped == (
        Skipped(
            "far",
            "2 of its negative points lie in no rectangle or outline and near no positive point",
        ),
        Skipped(
            "one",
            "its negative point lies in no rectangle or outline and near no positive point",
        ),
    )


def test_negative_points_alone_are_skipped() -> None:
    found = group(Clicks("n", ((5, 5),), IGNORE))

    assert found.prompts == ()
    assert [skipped.id for skipped in found.skipped] == ["n"]


@pytest.mark.parametrize("plane", [Plane(z=1), Plane(t=1)])
def test_objects_on_other_planes_do_not_meet(plane: Plane) -> None:
    box = Area("box", Box(0, 0, 10, 10))
    clicks = Clicks("p", ((5, 5),), plane=plane)
    negative = Clicks("n", ((6, 6),), IGNORE, plane)

    found = group(box, negative, clicks).prompts

    assert [(p.id, p.l0_positives, p.l0_negatives) for p in found] == [
        ("box", (), ()),
        ("p", ((5, 5),), ((6, 6),)),
    ]


def test_objects_in_another_channel_do_meet() -> None:
    box, clicks = Area("box", Box(0, 0, 10, 10)), Clicks("p", ((5, 5),), plane=Plane(c=2))

    assert [p.l0_positives for p in group(box, clicks).prompts] == [((5, 5),)]


def test_patches_are_asked_for_only_where_a_negative_point_is_free() -> None:
    def never(prompt: Prompt) -> Box:
        raise AssertionError

    box, dot = Area("box", Box(0, 0, 10, 10)), Clicks("dot", ((100, 100),))
    negative = Clicks("n", ((5, 5),), IGNORE)

    found = group_marks([box, dot, negative], points_as="together", hr_l0_box_of=never)

    assert found.prompts[0].l0_negatives == ((5, 5),)


def test_a_thousand_scattered_marks_are_grouped_as_one_by_one_reading_has_it() -> None:
    random.seed(5)

    def place() -> tuple[int, int]:
        return (random.randrange(800), random.randrange(800))

    areas = [
        Area(f"a{n}", Box(x, y, x + random.randrange(5, 90), y + random.randrange(5, 90)))
        for n in range(150)
        for x, y in [place()]
    ]
    dots = [Clicks(f"d{n}", (place(),)) for n in range(150)]
    negatives = [Clicks(f"n{n}", (place(),), IGNORE) for n in range(700)]

    found = {p.id: p for p in group(*areas, *dots, *negatives).prompts}

    free = {d.id: d.l0_points[0] for d in dots if d.id in found}
    for click in [*dots, *negatives]:
        (point,) = click.l0_points
        holding = [a for a in areas if a.l0_box and a.l0_box.contains(*point)]
        expected = min(
            holding, key=lambda a: a.l0_box.width * a.l0_box.height if a.l0_box else 0, default=None
        )
        if expected is not None:
            owner = found[expected.id]
            assert point in (owner.l0_negatives if click.are_negative else owner.l0_positives)
        elif click.are_negative:
            reach = {
                (x - point[0]) ** 2 + (y - point[1]) ** 2
                for x, y in free.values()
                if max(abs(x - point[0]), abs(y - point[1])) <= 50
            }
            takers = {
                (found[d].l0_positives[0][0] - point[0]) ** 2
                + (found[d].l0_positives[0][1] - point[1]) ** 2
                for d in free
                if point in found[d].l0_negatives
            }
            assert takers == ({min(reach)} if reach else set())
