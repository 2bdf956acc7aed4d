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

from fixtures.evaluate_models import MPP, SQUARE, TALL, make_image
from fixtures.training_models import OBJECT_RGB, PLAIN_VIEWS, TISSUE_RGB, sampled
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.sampling.samples import (
    TURNS,
    Sample,
    SamplingSettings,
    rasterize_targets,
    read_patches,
    restain,
    turn_array,
)

HOOK = Polygon([(60, 50), (160, 50), (160, 80), (90, 80), (90, 150), (60, 150)])
"""Looks different after each of the eight turns."""

UNCHANGED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MIDDLE = Sample(0, PatchPair(200, 150, 1.0, 256, MPP), 0, 0, UNCHANGED, "1", 0)
"""One mask px is one level-0 px; the HR patch begins at (72, 22), the LR patch at (-56, -106)."""


def filled(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros((256, 256), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def image(tmp_path: Path) -> AnnotatedImage:
    return make_image(tmp_path)


@pytest.fixture
def hook(tmp_path: Path) -> AnnotatedImage:
    return make_image(tmp_path, outlines=(HOOK,), class_names=("gland",))


@pytest.fixture
def slide(hook: AnnotatedImage) -> Iterator[Slide]:
    with hook.slide.open() as opened:
        yield opened


def test_the_first_of_many_views_are_those_of_fewer(image: AnnotatedImage) -> None:
    settings = SamplingSettings()

    with sampled(image, 12, settings=settings) as (_, many):
        pass
    with sampled(image, 5, settings=settings) as (_, few):
        pass

    assert many[:5] == few
    assert len(set(many)) == 12


def test_another_seed_draws_other_views(image: AnnotatedImage) -> None:
    with sampled(image, 3, seed=0) as (_, ours), sampled(image, 3, seed=1) as (_, theirs):
        assert not set(ours) & set(theirs)


def test_a_patch_stays_in_the_image_where_it_fits(image: AnnotatedImage) -> None:
    with sampled(image, 20) as (slide, samples):
        boxes = [sample.pair.hr_l0_box for sample in samples]

    assert min(box.x0 for box in boxes) >= -1e-6
    assert min(box.y0 for box in boxes) >= -1e-6
    assert max(box.x1 for box in boxes) <= slide.width_px + 1e-6
    assert max(box.y1 for box in boxes) <= slide.height_px + 1e-6


def test_the_eight_turns_differ_and_each_can_be_undone() -> None:
    square = np.arange(12).reshape(2, 2, 3)

    turns = [turn_array(square, turn) for turn in range(TURNS)]

    assert len({one.tobytes() for one in turns}) == TURNS
    for turn, one in enumerate(turns):
        back = (4 - turn) % 4 if turn < 4 else turn  # a mirror image undoes itself
        assert np.array_equal(turn_array(one, back), square)


@pytest.mark.parametrize("turn", range(TURNS))
def test_masks_lie_on_the_objects_pixels_after_each_turn(
    hook: AnnotatedImage, slide: Slide, turn: int
) -> None:
    sample = replace(MIDDLE, pair=PatchPair(150.3, 130.6, 1.1, 256, MPP), turn=turn)
    between = (OBJECT_RGB[0] + TISSUE_RGB[0]) / 2

    patches, masks = read_patches(slide, sample), rasterize_targets(hook, sample, PLAIN_VIEWS)

    for patch, objects in zip(patches, (masks.hr_masks, masks.lr_masks), strict=True):
        stained = patch[..., 0] < between
        overlap = (objects[0] & stained).sum() / (objects[0] | stained).sum()
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

    assert np.array_equal(restain(white, rng.normal(1, 0.5, (3, 3))), white)
    assert np.array_equal(restain(colours, np.eye(3)), colours)


def test_what_is_no_object_outside_of_the_regions_is_unknown(image: AnnotatedImage) -> None:
    partly = replace(image, l0_complete=shapely.box(0, 0, 200, 300))

    masks = rasterize_targets(partly, MIDDLE, PLAIN_VIEWS)

    hr_tall, lr_tall = filled(148, 18, 208, 218), filled(138, 73, 168, 173)
    assert np.array_equal(masks.hr_known, filled(0, 0, 128, 256) | hr_tall)
    assert np.array_equal(masks.lr_known, filled(28, 53, 128, 203) | lr_tall)


def test_without_regions_all_is_known(image: AnnotatedImage) -> None:
    masks = rasterize_targets(image, MIDDLE, PLAIN_VIEWS)

    assert masks.hr_known.all()
    assert masks.lr_known.all()


def test_the_object_that_a_view_was_placed_for_comes_first(image: AnnotatedImage) -> None:
    tall = replace(MIDDLE, anchor="2")

    both = rasterize_targets(image, tall, PLAIN_VIEWS)
    one = rasterize_targets(image, tall, PLAIN_VIEWS.model_copy(update={"largest_objects": 1}))

    assert np.array_equal(both.hr_masks[0], filled(148, 18, 208, 218))
    assert len(both.hr_masks) == 2
    assert len(one.hr_masks) == 1
    assert np.array_equal(one.hr_masks[0], both.hr_masks[0])
    assert np.array_equal(one.hr_objects, both.hr_masks.any(axis=0))


def test_an_object_that_the_patch_cuts_is_not_whole(image: AnnotatedImage) -> None:
    masks = rasterize_targets(image, MIDDLE, PLAIN_VIEWS)

    assert SQUARE.bounds[0] < MIDDLE.pair.hr_l0_box.x0 < SQUARE.bounds[2]
    assert MIDDLE.pair.hr_l0_box.x1 > TALL.bounds[2]
    assert masks.is_whole.tolist() == [False, True]


def test_an_object_of_which_too_little_is_seen_is_not_asked_for(image: AnnotatedImage) -> None:
    right = replace(MIDDLE, pair=PatchPair(250, 150, 1.0, 256, MPP), anchor="2")

    masks = rasterize_targets(image, right, PLAIN_VIEWS)

    assert len(masks.hr_masks) == 1
    assert masks.hr_objects.sum() > masks.hr_masks[0].sum()


def test_the_lr_patch_of_a_sample_is_the_hr_patch_of_the_next_in_its_chain(
    image: AnnotatedImage,
) -> None:
    settings = SamplingSettings(chain=3)

    with sampled(image, 6, settings=settings) as (slide, samples):
        for finer, coarser in (samples[0:2], samples[1:3], samples[3:5], samples[4:6]):
            assert np.array_equal(read_patches(slide, finer)[1], read_patches(slide, coarser)[0])
            assert finer.pair.lr_l0_box == coarser.pair.hr_l0_box
            assert replace(finer, pair=coarser.pair, level=coarser.level, seed=coarser.seed) == (
                coarser
            )

    assert [sample.level for sample in samples] == [0, 1, 2, 0, 1, 2]
    assert samples[2].pair.lr_l0_box != samples[3].pair.hr_l0_box


def test_the_masks_over_the_lr_patch_are_those_over_the_hr_patch_of_the_next(
    image: AnnotatedImage,
) -> None:
    coarser = replace(MIDDLE, pair=replace(MIDDLE.pair, hr_mpp=2.0), level=1)

    fine, coarse = (rasterize_targets(image, one, PLAIN_VIEWS) for one in (MIDDLE, coarser))

    assert len(fine.hr_masks) == len(coarse.hr_masks) == 2
    # The order of those that a sample was not placed for is random.
    order = [0, 1] if np.array_equal(fine.lr_masks, coarse.hr_masks) else [1, 0]
    assert np.array_equal(fine.lr_masks, coarse.hr_masks[order])
    assert np.array_equal(fine.lr_known, coarse.hr_known)
    assert fine.hr_whole_px == pytest.approx(4 * coarse.hr_whole_px[order])


def test_the_whole_area_of_an_object_is_known_however_much_of_it_the_patch_shows(
    image: AnnotatedImage,
) -> None:
    masks = rasterize_targets(image, MIDDLE, PLAIN_VIEWS)

    assert masks.hr_whole_px.tolist() == [SQUARE.area, TALL.area]  # 1 µm per mask px
    assert masks.hr_masks[0].sum() < SQUARE.area
    assert masks.hr_masks[1].sum() == TALL.area


def test_the_object_that_a_sample_was_placed_for_may_be_larger_than_the_patch(
    image: AnnotatedImage,
) -> None:
    inside = replace(MIDDLE, pair=PatchPair(110, 100, 0.25, 256, MPP))  # 64 of its 100 µm

    masks = rasterize_targets(image, inside, PLAIN_VIEWS)
    other = rasterize_targets(image, replace(inside, anchor="2"), PLAIN_VIEWS)

    assert len(masks.hr_masks) == 1
    assert masks.hr_masks[0].all()
    assert masks.is_whole.tolist() == [False]
    assert masks.hr_whole_px.tolist() == [16 * SQUARE.area]
    assert len(other.hr_masks) == 0


def test_samples_are_drawn_around_objects_larger_than_their_patch(tmp_path: Path) -> None:
    large = make_image(tmp_path, outlines=(TALL,), class_names=("gland",))
    settings = PLAIN_VIEWS.model_copy(
        update={"zoomed_share": 1.0, "default_share": 0.0, "zoomed_least": 1.0, "zoomed_most": 4.0}
    )

    with sampled(large, 20, settings=settings) as (_, samples):
        sides_um = np.array([sample.pair.hr_l0_box.width for sample in samples])
        masks = [rasterize_targets(large, sample, settings) for sample in samples]

    assert sides_um.max() <= 200  # the object's longer side
    assert sides_um.min() == pytest.approx(128)  # two encoder px for each of the slide's
    assert all(len(one.hr_masks) == 1 for one in masks)
    for side_um, one in zip(sides_um, masks, strict=True):
        assert one.hr_whole_px[0] == pytest.approx(TALL.area * (256 / side_um) ** 2)
