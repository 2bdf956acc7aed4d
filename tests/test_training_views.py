"""Views: drawn again alike, and their masks lie where the pixels say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from evaluate_models import MPP, SQUARE, TALL, make_field
from training_models import OBJECT_RGB, PLAIN_VIEWS, TISSUE_RGB, sampled
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.fields import Field
from wsisam_qupath_training.views import (
    TURNS,
    View,
    ViewSettings,
    read_patches,
    restained,
    see,
    turned,
)

HOOK = Polygon([(60, 50), (160, 50), (160, 80), (90, 80), (90, 150), (60, 150)])
"""Looks different after each of the eight turns."""

UNCHANGED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MIDDLE = View(0, PatchPair(200, 150, 1.0, 256, MPP), 0, UNCHANGED, "1", 0)
"""One mask px is one level-0 px; the HR patch begins at (72, 22), the LR patch at (-56, -106)."""


def filled(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros((256, 256), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return make_field(tmp_path)


@pytest.fixture
def hook(tmp_path: Path) -> Field:
    return make_field(tmp_path, outlines=(HOOK,), class_names=("gland",))


@pytest.fixture
def slide(hook: Field) -> Iterator[Slide]:
    with hook.slide.open() as opened:
        yield opened


def test_the_first_of_many_views_are_those_of_fewer(field: Field) -> None:
    settings = ViewSettings()

    with sampled(field, 12, settings=settings) as (_, many):
        pass
    with sampled(field, 5, settings=settings) as (_, few):
        pass

    assert many[:5] == few
    assert len(set(many)) == 12


def test_another_seed_draws_other_views(field: Field) -> None:
    with sampled(field, 3, seed=0) as (_, ours), sampled(field, 3, seed=1) as (_, theirs):
        assert not set(ours) & set(theirs)


def test_a_patch_stays_in_the_image_where_it_fits(field: Field) -> None:
    with sampled(field, 20) as (slide, views):
        boxes = [view.pair.hr_l0_box for view in views]

    assert min(box.x0 for box in boxes) >= -1e-6
    assert min(box.y0 for box in boxes) >= -1e-6
    assert max(box.x1 for box in boxes) <= slide.width_px + 1e-6
    assert max(box.y1 for box in boxes) <= slide.height_px + 1e-6


def test_the_eight_turns_differ_and_each_can_be_undone() -> None:
    square = np.arange(12).reshape(2, 2, 3)

    turns = [turned(square, turn) for turn in range(TURNS)]

    assert len({one.tobytes() for one in turns}) == TURNS
    for turn, one in enumerate(turns):
        back = (4 - turn) % 4 if turn < 4 else turn  # a mirror image undoes itself
        assert np.array_equal(turned(one, back), square)


@pytest.mark.parametrize("turn", range(TURNS))
def test_masks_lie_on_the_objects_pixels_after_each_turn(
    hook: Field, slide: Slide, turn: int
) -> None:
    view = replace(MIDDLE, pair=PatchPair(150.3, 130.6, 1.1, 256, MPP), turn=turn)
    between = (OBJECT_RGB[0] + TISSUE_RGB[0]) / 2

    patches, seen = read_patches(slide, view), see(hook, view, PLAIN_VIEWS)

    for patch, masks in zip(patches, (seen.hr_masks, seen.lr_masks), strict=True):
        stained = patch[..., 0] < between
        overlap = (masks[0] & stained).sum() / (masks[0] | stained).sum()
        assert overlap > 0.9


def test_the_stain_of_a_view_changes_colours_and_moves_nothing(slide: Slide) -> None:
    darker = ((1.5, 0.0, 0.0), (0.0, 1.5, 0.0), (0.0, 0.0, 1.5))

    plain, _ = read_patches(slide, MIDDLE)
    stained, _ = read_patches(slide, replace(MIDDLE, stain=darker))

    density, denser = (-np.log((patch.astype(float) + 1) / 256) for patch in (plain, stained))
    assert denser == pytest.approx(1.5 * density, abs=0.02)


def test_white_stays_white_and_no_stain_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    colours = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)

    assert np.array_equal(restained(white, rng.normal(1, 0.5, (3, 3))), white)
    assert np.array_equal(restained(colours, np.eye(3)), colours)


def test_what_is_no_object_outside_of_the_regions_is_unknown(field: Field) -> None:
    partly = replace(field, l0_complete=shapely.box(0, 0, 200, 300))

    seen = see(partly, MIDDLE, PLAIN_VIEWS)

    hr_tall, lr_tall = filled(148, 18, 208, 218), filled(138, 73, 168, 173)
    assert np.array_equal(seen.hr_known, filled(0, 0, 128, 256) | hr_tall)
    assert np.array_equal(seen.lr_known, filled(28, 53, 128, 203) | lr_tall)


def test_without_regions_all_is_known(field: Field) -> None:
    seen = see(field, MIDDLE, PLAIN_VIEWS)

    assert seen.hr_known.all()
    assert seen.lr_known.all()


def test_the_object_that_a_view_was_placed_for_comes_first(field: Field) -> None:
    tall = replace(MIDDLE, anchor="2")

    both = see(field, tall, PLAIN_VIEWS)
    one = see(field, tall, PLAIN_VIEWS.model_copy(update={"largest_objects": 1}))

    assert np.array_equal(both.hr_masks[0], filled(148, 18, 208, 218))
    assert len(both.hr_masks) == 2
    assert len(one.hr_masks) == 1
    assert np.array_equal(one.hr_masks[0], both.hr_masks[0])
    assert np.array_equal(one.hr_objects, both.hr_masks.any(axis=0))


def test_an_object_that_the_patch_cuts_is_not_whole(field: Field) -> None:
    seen = see(field, MIDDLE, PLAIN_VIEWS)

    assert SQUARE.bounds[0] < MIDDLE.pair.hr_l0_box.x0 < SQUARE.bounds[2]
    assert MIDDLE.pair.hr_l0_box.x1 > TALL.bounds[2]
    assert seen.is_whole.tolist() == [False, True]


def test_an_object_of_which_too_little_is_seen_is_not_asked_for(field: Field) -> None:
    right = replace(MIDDLE, pair=PatchPair(250, 150, 1.0, 256, MPP), anchor="2")

    seen = see(field, right, PLAIN_VIEWS)

    assert len(seen.hr_masks) == 1
    assert seen.hr_objects.sum() > seen.hr_masks[0].sum()
