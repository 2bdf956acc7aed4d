"""Trainings on some of the annotated objects."""

from __future__ import annotations

import pytest

from fixtures.training_models import TUNED_SAM
from wsisam_qupath_training.run.few_objects import (
    choose_few,
    choose_sizes,
    fit_to_objects,
    order_objects,
)
from wsisam_qupath_training.settings import one_decoder

RECIPE = one_decoder(
    TUNED_SAM.model_copy(update={"steps": 400, "warm_up_steps": 40}), validate_every=100
)
VIEWS = [(0, ("a", "b")), (1, ("c",)), (0, ("b",)), (1, ("d", "c"))]
"""Image and objects of four views."""


@pytest.mark.parametrize(
    ("n_objects", "sizes"),
    [
        (1, ()),
        (2, (1,)),
        (5, (1, 3)),
        (40, (1, 3, 10)),
        (45, (1, 3, 10, 30)),
        (100, (1, 3, 10, 30)),
    ],
)
def test_sizes_end_well_below_all_objects(n_objects: int, sizes: tuple[int, ...]) -> None:
    assert choose_sizes(n_objects) == sizes


def test_objects_are_taken_from_the_images_in_turn() -> None:
    order = order_objects({(image, str(n)) for image in range(3) for n in range(4)}, seed=1)

    assert len(set(order)) == 12
    assert [sorted(image for image, _ in order[n : n + 3]) for n in (0, 3, 6, 9)] == 4 * [[0, 1, 2]]
    assert order != order_objects(set(order), seed=2)


def test_more_objects_are_those_of_fewer_and_others() -> None:
    chosen = [choose_few(VIEWS, size, 4, RECIPE).objects for size in (1, 2, 4)]

    assert chosen[0] == chosen[1][:1]
    assert chosen[1] == chosen[2][:2]
    assert set(chosen[2]) == {(0, "a"), (0, "b"), (1, "c"), (1, "d")}


def test_views_show_the_chosen_objects_alone() -> None:
    few = choose_few(VIEWS, 2, 4, RECIPE)

    shown = {view: [VIEWS[view][1][row] for row in rows] for view, rows in few.rows.items()}
    wanted = {
        view: [name for name in names if (image, name) in few.objects]
        for view, (image, names) in enumerate(VIEWS)
    }
    assert shown == {view: names for view, names in wanted.items() if names}


def test_few_objects_are_trained_on_as_long_as_they_are_worth() -> None:
    ten = fit_to_objects(RECIPE, 10, 100)

    assert ten.decoders["all"].steps == 126  # 40 times the root, of 400 for 100
    assert ten.decoders["all"].warm_up_steps == 13
    assert ten.validate_every == 32
    assert fit_to_objects(RECIPE, 1, 100).decoders["all"].steps == 100
