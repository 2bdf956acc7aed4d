"""Dice and IoU of answers that are known, counted over one patch."""

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, Polygon

from fixtures.evaluate_models import PAIR, SQUARE
from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry.polygons import outline_to_mask
from wsisam_qupath.prompts.encoding import MaskArray
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import AnnotatedImage, Truth
from wsisam_qupath_training.evaluate.scoring import (
    SCORE_PX,
    Overlap,
    find_frame,
    find_known_part,
    make_target,
    overlap,
    threshold_mask,
)

EVERYWHERE = shapely.box(-1000, -1000, 1000, 1000)


def logits_of(outline: Polygon) -> MaskArray:
    return outline_to_mask(outline, PAIR, zoom=1.0, magnitude=8.0)


def compared(truth: Polygon, answer: Polygon, known: Polygon = EVERYWHERE) -> Overlap:
    target = make_target(truth, known, PAIR, SCORE_PX)
    return overlap(target, threshold_mask(logits_of(answer)))


def test_an_answer_that_is_the_truth_has_dice_1() -> None:
    found = compared(SQUARE, SQUARE)

    assert (found.dice, found.iou) == (1.0, 1.0)


def test_half_of_the_truth_has_dice_two_thirds() -> None:
    found = compared(SQUARE, shapely.box(60, 50, 160, 100))

    assert found.dice == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(0.5)


def test_an_answer_elsewhere_has_dice_0() -> None:
    assert compared(SQUARE, shapely.box(170, 160, 200, 200)).dice == 0.0


def test_an_empty_answer_has_dice_0() -> None:
    target = make_target(SQUARE, EVERYWHERE, PAIR, SCORE_PX)

    assert overlap(target, np.zeros((SCORE_PX, SCORE_PX), dtype=bool)).dice == 0.0


@pytest.mark.parametrize(("radius", "answered"), [(40, 50), (50, 40), (30, 90)])
def test_concentric_discs_have_the_dice_of_their_areas(radius: float, answered: float) -> None:
    truth, answer = (Point(130, 120).buffer(r, 64) for r in (radius, answered))
    smaller, larger = sorted((radius, answered))

    found = compared(truth, answer)

    assert found.dice == pytest.approx(2 * smaller**2 / (smaller**2 + larger**2), abs=0.004)
    assert found.iou == pytest.approx(smaller**2 / larger**2, abs=0.004)


def test_what_of_the_truth_lies_outside_of_the_patch_was_missed() -> None:
    truth = shapely.box(156, 50, 356, 150)  # half of it beyond 256

    found = compared(truth, truth)

    assert found.dice == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(0.5)


def test_what_lies_beyond_the_hr_patch_is_found_by_a_mask_over_the_lr_patch() -> None:
    truth = shapely.box(156, 50, 356, 150)
    frame = find_frame(PAIR, "lr")
    answer = outline_to_mask(truth, PAIR, zoom=2.0, magnitude=8.0)

    found = overlap(make_target(truth, EVERYWHERE, frame, SCORE_PX), threshold_mask(answer))

    assert frame.hr_l0_box == PAIR.lr_l0_box
    assert find_frame(PAIR, "hr") == PAIR
    assert (found.dice, found.iou) == (1.0, 1.0)


def test_an_object_wholly_outside_of_the_patch_was_missed_wholly() -> None:
    found = compared(shapely.box(300, 300, 400, 400), SQUARE)

    assert (found.dice, found.iou) == (0.0, 0.0)


def test_what_is_not_known_does_not_count() -> None:
    wide = shapely.box(60, 50, 200, 150)

    assert compared(SQUARE, wide).dice < 0.9
    assert compared(SQUARE, wide, shapely.box(0, 0, 160, 256)).dice == 1.0


def test_an_object_finer_than_pixels_is_still_one() -> None:
    target = make_target(shapely.box(100.02, 100.02, 100.1, 100.1), EVERYWHERE, PAIR, SCORE_PX)

    assert np.argwhere(target.truth).tolist() == [[200, 200]]


def test_logits_that_are_not_numbers_are_outside() -> None:
    logits = logits_of(SQUARE)
    logits[0, :5] = np.nan

    np.testing.assert_array_equal(threshold_mask(logits), threshold_mask(logits_of(SQUARE)))


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(OptionError, match=r"\(128, 128\).*256 x 256"):
        threshold_mask(np.zeros((128, 128), dtype=np.float32))


def test_nothing_is_known_outside_of_the_image_and_of_complete_regions() -> None:
    image = shapely.box(0, 0, 200, 200)
    truth = Truth("1", shapely.box(150, 150, 180, 180), "gland")
    complete = shapely.box(-50, 0, 100, 100)
    where = SlideReference("nowhere")

    everywhere = find_known_part(AnnotatedImage("f", "d", "g", where, (truth,)), image)
    partly = find_known_part(
        AnnotatedImage("f", "d", "g", where, (truth,), l0_complete=complete), image
    )

    assert everywhere.equals(image)
    assert partly.area == 100 * 100 + 30 * 30
