"""Clicks until an outline is right, on models whose every answer is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from fixtures.evaluate_models import PAIR, SQUARE
from wsisam_qupath.geometry.polygons import outline_to_mask
from wsisam_qupath.inference.backends import Patch, Prediction
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    PADDING,
    POSITIVE,
    EncodedPrompt,
    MaskArray,
    project_mask_to_hr,
    project_mask_to_lr,
)
from wsisam_qupath_training.evaluate.noc import CLICKS_MOST, ClickRun, encode_clicks, run_clicks
from wsisam_qupath_training.evaluate.scoring import Target, make_target
from wsisam_qupath_training.sampling.clicker import Click

EVERYWHERE = shapely.box(-1000, -1000, 1000, 1000)
NOWHERE = np.full((MASK_PX, MASK_PX), -8, dtype=np.float32)


def target(outline: Polygon = SQUARE) -> Target:
    return make_target(outline, EVERYWHERE, PAIR, MASK_PX)


def logits_of(outline: Polygon) -> MaskArray:
    return outline_to_mask(outline, PAIR, zoom=1.0, magnitude=8.0)


def rows_of_square(count: int) -> MaskArray:
    """As many of its 100 rows, so that the IoU is count / 100 exactly."""
    return logits_of(shapely.box(60, 50, 160, 50 + count))


def scripted(
    answers: Sequence[MaskArray], patches: Sequence[Patch] = ("hr",)
) -> tuple[Callable[[EncodedPrompt], Prediction], list[EncodedPrompt]]:
    """Gives the answers one after the other, the last one for ever."""
    asked: list[EncodedPrompt] = []

    def answer(encoded: EncodedPrompt) -> Prediction:
        asked.append(encoded)
        patch = patches[min(len(asked), len(patches)) - 1]
        return Prediction(answers[min(len(asked), len(answers)) - 1], 0.5, patch)

    return answer, asked


def clicks_to(run: ClickRun) -> tuple[int, int, int]:
    return run.clicks_to(0.80), run.clicks_to(0.85), run.clicks_to(0.90)


def test_a_model_that_is_right_needs_one_click() -> None:
    answer, _ = scripted([logits_of(SQUARE)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert run.ious == (1.0,)
    assert clicks_to(run) == (1, 1, 1)
    assert run.clicks == (Click(109, 99, True),)


def test_clicks_are_counted_to_the_first_that_reaches_a_target_exactly() -> None:
    answer, _ = scripted([rows_of_square(n) for n in (50, 80, 84, 85, 89, 90)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert run.ious == (0.5, 0.8, 0.84, 0.85, 0.89, 0.9)
    assert clicks_to(run) == (2, 4, 6)
    assert all(run.reaches(t) for t in (0.80, 0.85, 0.90))


def test_a_model_that_gets_worse_again_needed_the_clicks_it_had() -> None:
    answer, _ = scripted([rows_of_square(n) for n in (82, 10)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert clicks_to(run) == (1, 20, 20)
    assert run.reaches(0.80)
    assert not run.reaches(0.85)


def test_a_model_that_never_answers_fails_after_20_clicks_on_20_pixels() -> None:
    answer, asked = scripted([NOWHERE])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert len(asked) == len(run.ious) == CLICKS_MOST == 20
    assert clicks_to(run) == (20, 20, 20)
    assert not run.reaches(0.80)
    assert len({(click.column, click.row) for click in run.clicks}) == 20


def test_reaching_a_target_with_the_last_click_is_no_failure() -> None:
    answer, _ = scripted([NOWHERE] * 19 + [rows_of_square(81)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert run.clicks_to(0.80) == 20
    assert run.reaches(0.80)
    assert not run.reaches(0.85)


def test_an_object_with_fewer_pixels_than_clicks_runs_out_of_them() -> None:
    answer, asked = scripted([NOWHERE])

    run = run_clicks(answer, target(shapely.box(100, 100, 103, 104)), PAIR.size_px)

    assert len(asked) == 12
    assert clicks_to(run) == (20, 20, 20)


def test_the_second_click_is_negative_where_too_much_was_answered() -> None:
    answer, asked = scripted([logits_of(shapely.box(60, 50, 240, 150)), logits_of(SQUARE)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert [click.is_positive for click in run.clicks] == [True, False]
    assert asked[1].point_labels.tolist() == [POSITIVE, NEGATIVE, PADDING]


def test_errors_of_equal_depth_are_clicked_negatively() -> None:
    truth, answered = shapely.box(60, 50, 100, 90), shapely.box(160, 50, 200, 90)
    answer, _ = scripted([logits_of(answered), logits_of(truth)])

    run = run_clicks(answer, target(truth), PAIR.size_px)

    assert run.clicks == (Click(79, 69, True), Click(179, 69, False))


def test_a_probability_above_049_is_inside() -> None:
    above, below = math.log(0.491 / 0.509), math.log(0.489 / 0.511)
    inside = logits_of(SQUARE) > 0

    answer, _ = scripted([np.where(inside, above, below).astype(np.float32)])

    assert run_clicks(answer, target(), PAIR.size_px).ious == (1.0,)


def test_the_first_click_comes_without_a_mask_and_the_next_with_the_last_answer() -> None:
    first = 40 * rows_of_square(50)
    answer, asked = scripted([first, logits_of(SQUARE)])

    run_clicks(answer, target(), PAIR.size_px)

    assert asked[0].mask_input is None
    assert asked[0].lr_mask_input is None
    expected = np.clip(first, -CLAMP_LOGIT, CLAMP_LOGIT)
    assert asked[1].mask_input is not None
    assert asked[1].lr_mask_input is not None
    np.testing.assert_array_equal(asked[1].mask_input, expected)
    lr_expected = np.clip(project_mask_to_lr(first), -CLAMP_LOGIT, CLAMP_LOGIT)
    np.testing.assert_array_equal(asked[1].lr_mask_input, lr_expected)


def test_an_answer_over_the_lr_patch_is_compared_and_comes_back_over_both() -> None:
    lr_pair = replace(PAIR, hr_mpp=2.0)
    half = outline_to_mask(shapely.box(60, 50, 160, 100), lr_pair, zoom=1.0, magnitude=8.0)
    answer, asked = scripted([half, logits_of(SQUARE)], ["lr", "hr"])

    run = run_clicks(answer, target(), PAIR.size_px, keep=(1,))

    assert run.ious[0] == pytest.approx(0.5, abs=0.01)
    assert run.ious[1] == 1.0
    assert asked[1].mask_input is not None
    assert asked[1].lr_mask_input is not None
    np.testing.assert_array_equal(asked[1].lr_mask_input, half)
    np.testing.assert_array_equal(asked[1].mask_input, project_mask_to_hr(half))
    np.testing.assert_array_equal(run.kept[1], project_mask_to_hr(half))


def test_logits_that_are_not_numbers_are_outside_of_the_answer_and_of_the_next_prompt() -> None:
    holed = logits_of(SQUARE)
    holed[50:100] = np.nan
    answer, asked = scripted([holed, logits_of(SQUARE)])

    run = run_clicks(answer, target(), PAIR.size_px)

    assert run.ious == (0.5, 1.0)
    assert asked[1].mask_input is not None
    assert (asked[1].mask_input[50:100] < 0).all()


@pytest.mark.parametrize(("size_px", "at"), [(256, (10.5, 20.5)), (1024, (42.0, 82.0))])
def test_clicks_are_points_at_the_centres_of_mask_pixels(
    size_px: int, at: tuple[float, float]
) -> None:
    encoded = encode_clicks([Click(10, 20, True), Click(10, 20, False)], size_px, None)

    assert encoded.kind is PromptKind.POINTS
    assert encoded.point_coords.tolist() == [list(at), list(at), [0, 0]]
    assert encoded.point_labels.tolist() == [POSITIVE, NEGATIVE, PADDING]
    assert encoded.fits_hr


def test_after_its_end_a_run_stays_as_it_was() -> None:
    answer, _ = scripted([rows_of_square(n) for n in (50, 95)])

    run = run_clicks(answer, target(), PAIR.size_px, keep=(1, 5, 20))

    assert [run.iou_after(n) for n in (1, 2, 3, 20)] == [0.5, 0.95, 0.95, 0.95]
    assert sorted(run.kept) == [1, 5, 20]
    np.testing.assert_array_equal(run.kept[20], rows_of_square(95))
