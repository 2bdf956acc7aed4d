"""The clicker of NoC: hand-made errors, and where the next click must be."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wsisam_qupath_training.sampling.clicker import Click, next_click

Mask = NDArray[np.bool_]


def mask(*rows: str) -> Mask:
    """``#`` is true."""
    return np.array([[mark == "#" for mark in row] for row in rows])


def nothing(like: Mask) -> Mask:
    return np.zeros_like(like)


def test_the_first_click_is_the_deepest_point_of_the_object() -> None:
    truth = mask(
        ".......",
        ".#####.",
        ".#####.",
        ".#####.",
        ".#####.",
        ".#####.",
        ".......",
    )

    click = next_click(truth, nothing(truth), nothing(truth))

    assert click == Click(column=3, row=3, is_positive=True)


def test_an_error_that_is_all_extra_is_clicked_negatively() -> None:
    extra = mask("....", ".##.", ".##.", "....")

    click = next_click(nothing(extra), extra, nothing(extra))

    assert click == Click(column=1, row=1, is_positive=False)


def test_of_equally_deep_errors_the_negative_one_is_clicked() -> None:
    truth = mask("###......", "###......", "###......")
    predicted = mask("......###", "......###", "......###")

    click = next_click(truth, predicted, nothing(truth))

    assert click == Click(column=7, row=1, is_positive=False)


def test_a_strictly_deeper_miss_is_clicked_positively() -> None:
    truth = mask(*["#####........"] * 5)
    predicted = mask(*["..........###"] * 5)

    click = next_click(truth, predicted, nothing(truth))

    assert click == Click(column=2, row=2, is_positive=True)


def test_of_equally_deep_points_the_first_is_clicked_row_by_row() -> None:
    truth = mask("........", ".....##.", ".....##.", ".##.....", ".##.....", "........")

    click = next_click(truth, nothing(truth), nothing(truth))

    assert click == Click(column=5, row=1, is_positive=True)


def test_the_border_of_the_image_counts_as_outside() -> None:
    truth = np.ones((5, 9), dtype=bool)

    click = next_click(truth, nothing(truth), nothing(truth))

    assert click == Click(column=2, row=2, is_positive=True)  # 3 deep; first of the middle row


def test_a_clicked_pixel_is_not_clicked_again() -> None:
    truth = mask(".....", ".###.", ".###.", ".###.", ".....")
    clicked = nothing(truth)
    clicked[2, 2] = True

    click = next_click(truth, nothing(truth), clicked)

    assert click == Click(column=1, row=1, is_positive=True)


def test_a_clicked_pixel_does_not_make_its_neighbours_shallower() -> None:
    """Only the clicked pixel itself is zeroed, after the distances are taken."""
    truth = np.ones((7, 7), dtype=bool)
    clicked = nothing(truth)
    clicked[3, 3] = True

    click = next_click(truth, nothing(truth), clicked)

    assert click == Click(column=2, row=2, is_positive=True)  # still 3 deep


def test_a_clicked_error_can_turn_a_tie() -> None:
    truth = mask("#..", "...", "...")
    predicted = mask("...", "...", "..#")
    clicked = nothing(truth)
    clicked[2, 2] = True

    click = next_click(truth, predicted, clicked)

    assert click == Click(column=0, row=0, is_positive=True)


def test_depth_is_euclidean() -> None:
    """In a diamond of radius 3 the middle is 2·√2 away from the nearest outside."""
    y, x = np.mgrid[:9, :13]
    diamond = np.abs(y - 4) + np.abs(x - 3) <= 3
    bar = (np.abs(y - 4) <= 2) & (np.abs(x - 10) <= 1)  # 2 deep

    click = next_click(diamond, bar, np.zeros_like(diamond))

    assert click == Click(column=3, row=4, is_positive=True)


def test_errors_in_unknown_pixels_do_not_count() -> None:
    truth = mask("###....", "###....", "###....")
    predicted = mask(".....##", ".....##", ".....##")
    known = mask("....###", "....###", "....###")

    click = next_click(truth, predicted, nothing(truth), known)

    assert click == Click(column=5, row=0, is_positive=False)


@pytest.mark.parametrize("known", [None, mask("....", "####")])
def test_without_an_error_there_is_no_click(known: Mask | None) -> None:
    truth = mask("....", ".##.")
    predicted = truth if known is None else mask("###.", ".##.")

    assert next_click(truth, predicted, nothing(truth), known) is None


def test_without_an_error_that_was_not_clicked_there_is_no_click() -> None:
    truth = mask("....", ".##.")

    assert next_click(truth, nothing(truth), truth) is None
