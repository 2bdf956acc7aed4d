"""Dice, IoU and surface Dice of outlines that are known."""

import pytest
import shapely
from shapely.geometry import Point

from fixtures.evaluate_models import SQUARE
from wsisam_qupath.geometry import Mpp
from wsisam_qupath_training.evaluate.outline_fit import NOTHING, Fit, Outline, measure_fit

EVERYWHERE = shapely.box(-1000, -1000, 1000, 1000)
MPP = Mpp(1.0, 1.0)


def compare(truth: Outline, answer: Outline | None, known: Outline = EVERYWHERE) -> Fit:
    return measure_fit(truth, answer, known, MPP)


def test_an_answer_that_is_the_truth_fits_wholly() -> None:
    assert compare(SQUARE, SQUARE) == Fit(1.0, 1.0, 1.0)


def test_half_of_the_truth_has_dice_two_thirds() -> None:
    found = compare(SQUARE, shapely.box(60, 50, 160, 100))

    assert found.dice == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(0.5)


def test_an_answer_elsewhere_fits_not_at_all_and_neither_does_an_empty_one() -> None:
    assert compare(SQUARE, shapely.box(170, 160, 200, 200)) == NOTHING
    assert compare(SQUARE, None) == NOTHING


@pytest.mark.parametrize(("radius", "answered"), [(40, 50), (50, 40), (30, 90)])
def test_concentric_discs_have_the_dice_of_their_areas(radius: float, answered: float) -> None:
    truth, answer = (Point(130, 120).buffer(r, 64) for r in (radius, answered))
    smaller, larger = sorted((radius, answered))

    found = compare(truth, answer)

    assert found.dice == pytest.approx(2 * smaller**2 / (smaller**2 + larger**2))
    assert found.iou == pytest.approx(smaller**2 / larger**2)


def test_what_is_not_known_does_not_count() -> None:
    wide = shapely.box(60, 50, 200, 150)

    assert compare(SQUARE, wide).dice < 0.9
    assert compare(SQUARE, wide, shapely.box(0, 0, 160, 256)).dice == 1.0


@pytest.mark.parametrize(("away_um", "alike"), [(0.0, 1.0), (4.9, 1.0), (5.1, 0.0)])
def test_boundaries_are_alike_up_to_5_um(away_um: float, alike: float) -> None:
    truth, answer = (Point(500, 500).buffer(r, 256) for r in (100, 100 + away_um))

    assert compare(truth, answer).surface_dice == pytest.approx(alike)


def test_the_surface_counts_in_um_along_each_axis() -> None:
    moved = shapely.box(66, 50, 166, 150)  # its left and right sides by 6 px

    coarse, fine = (measure_fit(SQUARE, moved, EVERYWHERE, Mpp(x, 1.0)) for x in (1.0, 0.5))

    assert coarse.surface_dice < 0.6
    assert fine.surface_dice == pytest.approx(1.0)


def test_a_part_of_the_boundary_that_is_alike_counts_by_its_length() -> None:
    taller = shapely.box(60, 50, 160, 250)  # the square has 400, this has 600

    found = compare(SQUARE, taller).surface_dice

    assert found == pytest.approx((300 + 2 * 5 + 300 + 2 * 5) / 1000)
