"""A schedule that fits into some minutes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.training_models import TUNED_SAM
from wsisam_qupath.errors import FormatError
from wsisam_qupath.report.progress import duration
from wsisam_qupath_training.run.plan import Measured
from wsisam_qupath_training.run.schedule import Fitted, describe_fit, fit_to_minutes, shorten
from wsisam_qupath_training.run.side_by_side import PICTURED
from wsisam_qupath_training.settings import Recipe, one_decoder

WHOLE = one_decoder(
    TUNED_SAM.model_copy(update={"steps": 400, "warm_up_steps": 40}),
    views=200,
    val_views=40,
    validate_every=100,
    compared_objects=60,
)
MEASURED = Measured(0.5, 400, {"all": 1.0}, {"all": 0.5}, compared_s=2.0, compared=90)
"""Whole: 200 s to encode, 400 s of steps, 80 s of validations, 132 s to compare and draw,
20 s for the worst cases."""


def fit(minutes: float, folder: Path, *, gone_s: float = 0.0) -> Recipe:
    return measured_fit(minutes, folder, gone_s).recipe


def measured_fit(minutes: float, folder: Path, gone_s: float = 0.0) -> Fitted:
    return fit_to_minutes(WHOLE, minutes, folder, lambda: (MEASURED, gone_s))


def test_the_whole_run_takes_what_its_pieces_take() -> None:
    assert MEASURED.total_seconds(WHOLE) == 200 + 400 + 80 + 132 + 20


def test_a_learning_curve_takes_a_training_for_each_size() -> None:
    measured = replace(MEASURED, rounds=2, objects=100, curve_sizes=(1, 10))

    # 100 and 126 steps with 4 validations of 20 s each, in both rounds; each size, the start and
    # the whole are asked once more.
    trainings = 2 * (100 + 126 + 2 * 4 * 20)
    assert measured.curve_seconds(WHOLE) == trainings + 2 * 4 * 20
    assert measured.total_seconds(WHOLE) == pytest.approx(
        replace(measured, curve_sizes=()).total_seconds(WHOLE) + measured.curve_seconds(WHOLE)
    )


def test_a_schedule_that_fits_stays_as_it_is(tmp_path: Path) -> None:
    assert fit(832 / 60, tmp_path) == WHOLE
    assert describe_fit(WHOLE, Fitted(WHOLE, 832), 30) == "The whole schedule fits into 30 minutes."


@pytest.mark.parametrize(("minutes", "gone_s"), [(13, 0), (8, 0), (5, 0), (15, 300)])
def test_a_longer_one_is_shortened_to_what_is_left(
    tmp_path: Path, minutes: float, gone_s: float
) -> None:
    fitted = fit(minutes, tmp_path, gone_s=gone_s)

    share = fitted.decoders["all"].steps / 400
    assert 0.1 <= share < 1
    assert MEASURED.total_seconds(fitted, share) <= 60 * minutes - gone_s
    assert fitted.views == round(200 * share)
    assert fitted.decoders["all"].warm_up_steps == round(40 * share)
    assert fitted.validate_every == round(100 * share)  # as many validations as before


def test_it_is_said_how_much_shorter_it_is() -> None:
    assert describe_fit(WHOLE, Fitted(shorten(WHOLE, 0.5), 470), 8) == (
        "Shortened to fit into 8 minutes: all 200 of 400 steps."
    )


@pytest.mark.parametrize("gone_s", [0, 900])
def test_where_the_time_is_too_short_the_least_is_trained_and_said(
    tmp_path: Path, gone_s: float
) -> None:
    fitted = measured_fit(1, tmp_path, gone_s)

    assert fitted.recipe == shorten(WHOLE, 0.1)
    # A tenth to encode, of the steps and of the validations; of 12 objects all are drawn.
    assert fitted.seconds == pytest.approx(
        gone_s + 20 + 40 + (4 + 1) * 4 * 0.5 + 2 * (12 + PICTURED)
    )
    assert describe_fit(WHOLE, fitted, 1) == (
        "1 min is too short here. The shortest training that teaches anything takes about "
        f"{duration(fitted.seconds)}: all 40 of 400 steps."
    )


def test_a_run_goes_on_with_the_schedule_that_it_began_with(tmp_path: Path) -> None:
    first = fit(8, tmp_path)

    def measure_again() -> tuple[Measured, float]:
        raise AssertionError("it was measured again")

    assert fit_to_minutes(WHOLE, 8, tmp_path, measure_again).recipe == first


def test_other_minutes_are_fitted_again(tmp_path: Path) -> None:
    assert fit(8, tmp_path).views < fit(15, tmp_path).views


def test_a_damaged_schedule_is_fitted_again(tmp_path: Path) -> None:
    first = fit(8, tmp_path)
    (tmp_path / "schedule.json").write_bytes(b'{"format": 1, "minutes":')

    assert fit(8, tmp_path) == first


def test_a_schedule_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schedule.json").write_text(json.dumps({"format": 9}))

    with pytest.raises(FormatError, match="the schedule of a training in format 9"):
        fit(8, tmp_path)
