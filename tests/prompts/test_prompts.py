"""Prompts: what they are made of, and what of a set lies on a slide."""

from __future__ import annotations

import pytest
from shapely.geometry import Polygon

from wsisam_qupath.errors import PromptError
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import (
    PathClass,
    Prompt,
    PromptKind,
    PromptSet,
    Skipped,
    clip_to_slide,
    require_usable,
)

SLIDE = Box(0, 0, 1000, 500)
TRIANGLE = Polygon([(10, 10), (30, 10), (10, 50)])


def test_a_prompt_of_negative_points_alone_is_refused() -> None:
    with pytest.raises(PromptError, match="negative points alone"):
        Prompt("a", l0_negatives=((1.0, 2.0),))


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (Prompt("a", l0_box=Box(0, 0, 1, 1)), PromptKind.BOX),
        (Prompt("a", l0_positives=((1, 2),)), PromptKind.POINT),
        (Prompt("a", l0_positives=((1, 2), (3, 4))), PromptKind.POINTS),
        (Prompt("a", l0_positives=((1, 2),), l0_negatives=((3, 4),)), PromptKind.POINTS),
        (Prompt("a", l0_positives=((1, 2),), l0_earlier=TRIANGLE), PromptKind.POINTS),
        (Prompt("a", l0_box=Box(0, 0, 1, 1), l0_negatives=((3, 4),)), PromptKind.BOX_POINTS),
        (Prompt("a", l0_outline=TRIANGLE), PromptKind.OUTLINE),
        (Prompt("a", l0_outline=TRIANGLE, l0_positives=((3, 4),)), PromptKind.OUTLINE_POINTS),
    ],
)
def test_the_kind_says_what_a_prompt_is_made_of(prompt: Prompt, kind: PromptKind) -> None:
    assert prompt.kind is kind


def test_the_bounds_hold_the_outline_and_the_positives_but_not_the_negatives() -> None:
    prompt = Prompt(
        "a", l0_outline=TRIANGLE, l0_positives=((40.0, 20.0),), l0_negatives=((99.0, 99.0),)
    )

    assert prompt.l0_extent == Box(10, 10, 30, 50)
    assert prompt.l0_bounds == Box(10, 10, 40, 50)
    assert prompt.l0_points.tolist() == [[40, 20], [99, 99]]


@pytest.mark.parametrize(
    ("name", "ignored"), [("Ignore*", True), ("Tumor: Region*", True), ("Tu*mor", False)]
)
def test_a_class_is_ignored_when_its_name_ends_in_a_star(name: str, ignored: bool) -> None:
    assert PathClass(name).is_ignored is ignored


def test_boxes_and_outlines_that_reach_over_the_edge_stay_as_they_are() -> None:
    crossing = Prompt("a", l0_box=Box(-10, -10, 5, 5))
    outline = Prompt("b", l0_outline=Polygon([(990, 490), (1200, 490), (990, 600)]))

    inside = clip_to_slide(PromptSet((crossing, outline)), SLIDE)

    assert inside == PromptSet((crossing, outline))


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("a", l0_box=Box(1000, 0, 1100, 100)),  # touches the edge, holds no pixel
        Prompt("a", l0_box=Box(-50, -50, -1, -1), l0_positives=((5.0, 5.0),)),
        Prompt("a", l0_outline=Polygon([(0, 501), (10, 501), (5, 600)])),
        Prompt("a", l0_positives=((-1.0, 5.0), (5.0, 501.0)), l0_negatives=((5.0, 5.0),)),
    ],
)
def test_prompts_off_the_slide_are_skipped(prompt: Prompt) -> None:
    earlier = Skipped("z", "it has no area")

    inside = clip_to_slide(PromptSet((prompt,), (earlier,)), SLIDE)

    assert inside == PromptSet((), (earlier, Skipped("a", "it lies outside of the slide")))


def test_single_points_off_the_slide_are_left_out_and_named() -> None:
    prompt = Prompt(
        "a", l0_positives=((5.0, 5.0), (5.0, 900.0)), l0_negatives=((-1.0, 5.0), (0.0, 0.0))
    )

    inside = clip_to_slide(PromptSet((prompt,)), SLIDE)

    assert inside.prompts == (Prompt("a", l0_positives=((5.0, 5.0),), l0_negatives=((0.0, 0.0),)),)
    assert inside.skipped == (Skipped("a", "2 of its 4 points outside of the slide left out"),)


def test_an_empty_set_is_usable_and_one_of_which_all_was_skipped_is_not() -> None:
    skipped = PromptSet((), (Skipped("a", "it has no area"), Skipped("b", "it has no geometry")))

    assert require_usable(PromptSet(), "in.geojson") == PromptSet()
    with pytest.raises(PromptError, match=r"^in.geojson holds .* 2 skipped, first a \(it has no"):
        require_usable(skipped, "in.geojson")
