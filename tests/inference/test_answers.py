"""Which mask is the answer, and when a prompt is asked on the coarser pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
from shapely.geometry import MultiPolygon

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.inference.answers import (
    MOST_ESCALATIONS,
    Question,
    choose_answer,
    is_cut_off,
)
from wsisam_qupath.inference.backends import Patch, Prediction
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.slide import PixelSource

PAIR = PatchPair(1000.0, 1000.0, 1.0, 256, Mpp(1.0, 1.0))
CLICK = Question(Prompt("click", l0_positives=((1000.0, 1000.0),)))
BOX = Question(Prompt("box", l0_box=Box(990, 990, 1010, 1010)))
PLAIN = OutlineOptions(simplify_um=0, min_area_um2=0)
SEVERAL = OutlineOptions(simplify_um=0, min_area_um2=0, candidates=3)


@dataclass(frozen=True)
class Extent:
    """All of a slide that choosing an answer looks at."""

    l0_box: Box


WIDE = cast(PixelSource, Extent(Box(0, 0, 4000, 4000)))


def square(x0: int, y0: int, x1: int, y1: int, iou: float, patch: Patch = "hr") -> Prediction:
    """A mask of a rectangle, mask px."""
    logits = np.full((256, 256), -5.0, dtype=np.float32)
    logits[y0:y1, x0:x1] = 5.0
    return Prediction(logits, iou, patch)


SMALL = square(100, 100, 150, 150, 0.8)
CUT = square(100, 100, 256, 150, 0.9)
LR_WHOLE = square(90, 90, 170, 170, 0.7, "lr")
LR_CUT = square(90, 0, 170, 170, 0.95, "lr")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (SMALL, False),
        (CUT, True),
        (square(0, 100, 90, 150, 0.9), True),
        (square(100, 200, 150, 256, 0.9), True),
        (square(100, 252, 104, 256, 0.9), False),
        (LR_CUT, True),
    ],
    ids=["inside", "right", "left", "bottom", "four pixels", "top of the LR patch"],
)
def test_a_mask_that_runs_into_an_edge_of_its_patch_is_cut_off(
    mask: Prediction, expected: bool
) -> None:
    assert is_cut_off(mask, PAIR, WIDE.l0_box) is expected


def test_a_mask_that_ends_where_the_slide_ends_is_whole() -> None:
    assert not is_cut_off(CUT, PAIR, Box(0, 0, 1128, 4000))


def test_the_whole_mask_with_the_highest_predicted_iou_is_the_answer() -> None:
    answer = choose_answer(WIDE, PAIR, CLICK, [SMALL, LR_WHOLE], PLAIN)

    assert answer is not None
    (outline,) = answer.outlines
    assert (outline.patch, outline.predicted_iou) == ("hr", 0.8)
    assert outline.polygon.bounds == pytest.approx((972, 972, 1022, 1022))


def test_the_lr_mask_lies_at_twice_the_scale() -> None:
    answer = choose_answer(WIDE, PAIR, CLICK, [CUT, LR_WHOLE], PLAIN)

    assert answer is not None
    (outline,) = answer.outlines
    assert (outline.patch, outline.predicted_iou) == ("lr", 0.7)
    assert outline.polygon.bounds == pytest.approx((924, 924, 1084, 1084))


def test_a_whole_hr_mask_goes_before_a_better_lr_mask_that_is_cut_off() -> None:
    answer = choose_answer(WIDE, PAIR, CLICK, [LR_CUT, SMALL], PLAIN)

    assert answer is not None
    assert [one.patch for one in answer.outlines] == ["hr"]


def test_an_empty_mask_is_no_answer_where_the_other_one_is_cut_off() -> None:
    empty = square(0, 0, 0, 0, 0.1)

    assert choose_answer(WIDE, PAIR, CLICK, [LR_CUT, empty], PLAIN) is None
    answer = choose_answer(WIDE, PAIR, CLICK, [empty, LR_WHOLE], PLAIN)
    assert answer is not None
    assert [one.patch for one in answer.outlines] == ["lr"]


@pytest.mark.parametrize("masks", [[CUT], [LR_CUT, CUT], [CUT, LR_CUT]])
def test_a_prompt_without_a_whole_answer_is_asked_on_the_coarser_pair(
    masks: list[Prediction],
) -> None:
    assert choose_answer(WIDE, PAIR, CLICK, masks, PLAIN) is None


def test_where_the_lr_patch_covers_the_slide_an_answer_is_taken_as_it_is() -> None:
    slide = cast(PixelSource, Extent(Box(800, 800, 1200, 1200)))

    answer = choose_answer(slide, PAIR, CLICK, [CUT, square(0, 0, 256, 256, 0.5, "lr")], PLAIN)

    assert answer is not None
    assert answer.outlines[0].patch == "lr"
    assert answer.outlines[0].polygon.bounds == (800, 800, 1200, 1200)


def test_an_hr_mask_that_is_cut_off_is_asked_on_an_lr_patch_that_covers_the_slide() -> None:
    slide = cast(PixelSource, Extent(Box(800, 800, 1200, 1200)))

    assert choose_answer(slide, PAIR, CLICK, [CUT], PLAIN) is None
    answer = choose_answer(slide, PAIR.coarser, CLICK.keep(PAIR, [CUT]), [CUT], PLAIN)

    assert answer is not None
    assert answer.outlines[0].polygon.bounds == pytest.approx((944, 944, 1200, 1044))


def test_an_empty_lr_mask_over_the_whole_slide_ends_the_asking() -> None:
    slide = cast(PixelSource, Extent(Box(800, 800, 1200, 1200)))

    answer = choose_answer(slide, PAIR, CLICK, [CUT, square(0, 0, 0, 0, 0.1, "lr")], PLAIN)

    assert answer is not None


def test_asking_on_coarser_pairs_ends() -> None:
    question = CLICK
    for _ in range(MOST_ESCALATIONS):
        assert choose_answer(WIDE, PAIR, question, [CUT], PLAIN) is None
        question = question.keep(PAIR, [CUT])

    assert choose_answer(WIDE, PAIR, question, [CUT], PLAIN) is not None


def test_an_empty_mask_is_no_outline() -> None:
    answer = choose_answer(WIDE, PAIR, CLICK, [square(0, 0, 0, 0, 0.1)], PLAIN)

    assert answer is not None
    assert answer.outlines == ()
    assert not answer.is_too_small


def test_a_mask_below_the_least_area_is_too_small() -> None:
    options = replace(PLAIN, min_area_um2=3000)

    small = choose_answer(WIDE, PAIR, CLICK, [SMALL], options)
    large = choose_answer(WIDE, PAIR, CLICK, [square(100, 100, 160, 160, 0.8)], options)

    assert small is not None
    assert small.outlines == ()
    assert small.is_too_small
    assert large is not None
    assert len(large.outlines) == 1
    assert not large.is_too_small


def test_candidates_of_a_click_come_by_predicted_iou_without_repetitions() -> None:
    finer = square(60, 60, 120, 120, 0.6)
    same = square(150, 150, 200, 200, 0.65, "lr")  # of the finer pair: SMALL's place in this one
    asked = CLICK.keep(PAIR.finer, [finer, same])

    answer = choose_answer(WIDE, PAIR, asked, [SMALL, LR_WHOLE], SEVERAL)

    assert answer is not None
    assert [one.predicted_iou for one in answer.outlines] == [0.8, 0.7, 0.65]
    assert [one.pair for one in answer.outlines] == [PAIR, PAIR, PAIR.finer]


@pytest.mark.parametrize("question", [CLICK, BOX])
def test_the_first_candidate_is_the_answer_that_is_given_alone(question: Question) -> None:
    alone = choose_answer(WIDE, PAIR, question, [SMALL, LR_WHOLE], PLAIN)
    several = choose_answer(WIDE, PAIR, question, [SMALL, LR_WHOLE], SEVERAL)

    assert alone is not None
    assert several is not None
    assert several.outlines[0] == alone.outlines[0]


def test_a_box_has_one_candidate() -> None:
    answer = choose_answer(WIDE, PAIR, BOX, [SMALL, LR_WHOLE], SEVERAL)

    assert answer is not None
    assert len(answer.outlines) == 1


def test_the_coarser_pair_has_the_lr_patch_as_its_hr_patch() -> None:
    assert PAIR.coarser.hr_l0_box == PAIR.lr_l0_box
    assert PAIR.coarser.finer == PAIR


def test_the_masks_of_finer_pairs_are_kept_in_order() -> None:
    asked: Any = CLICK.keep(PAIR, [CUT]).keep(PAIR.coarser, [SMALL])

    assert [pair for pair, _ in asked.earlier] == [PAIR, PAIR.coarser]
    assert asked.escalations == 2


def with_crumb(side: int) -> Prediction:
    """A mask of 50 x 50 px, and a square beside it."""
    mask = square(100, 100, 150, 150, 0.8)
    mask.mask_logits[100 : 100 + side, 180 : 180 + side] = 5.0
    return mask


def count_parts(question: Question, mask: Prediction) -> int:
    answer = choose_answer(WIDE, PAIR, question, [mask], PLAIN)
    assert answer is not None
    polygon = answer.outlines[0].polygon
    return len(getattr(polygon, "geoms", [polygon]))


@pytest.mark.parametrize(("side", "parts"), [(12, 1), (20, 2)])
def test_a_part_far_smaller_than_the_largest_is_left_out(side: int, parts: int) -> None:
    assert count_parts(CLICK, with_crumb(side)) == parts
    assert count_parts(BOX, with_crumb(side)) == parts


def test_a_small_part_that_was_clicked_is_kept() -> None:
    l0_x, l0_y = PAIR.hr_to_l0(np.array([[184.0, 104.0]]))[0].tolist()

    assert count_parts(Question(Prompt("p", l0_positives=((l0_x, l0_y),))), with_crumb(8)) == 2


def test_a_small_part_of_an_outline_to_correct_or_refine_is_kept() -> None:
    corners = ((96, 96, 150, 150), (180, 100, 188, 108))
    parts = [
        Box(*PAIR.hr_to_l0(np.array([(x0, y0), (x1, y1)], dtype=float)).ravel().tolist()).polygon
        for x0, y0, x1, y1 in corners
    ]
    largest_alone = Prompt("p", l0_positives=((1000.0, 1000.0),), l0_earlier=parts[0])
    both = replace(largest_alone, l0_earlier=MultiPolygon(parts))

    drawn = Prompt("o", l0_outline=MultiPolygon(parts))

    assert count_parts(Question(largest_alone), with_crumb(8)) == 1
    assert count_parts(Question(both), with_crumb(8)) == 2
    assert count_parts(Question(drawn), with_crumb(8)) == 2
