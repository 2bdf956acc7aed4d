"""What a decoder answered comes back as clicks, logits and outlines, as in use."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.sampling_masks import (
    KNOWN,
    MIX,
    SEEN,
    SIZES_PX,
    SQUARE,
    Mask,
    frame,
    pixels,
    rectangle,
    rng,
)
from wsisam_qupath.geometry.polygons import mask_to_polygon, outline_to_mask
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    OUTLINE_LOGIT,
    POSITIVE,
    MaskArray,
    project_mask_to_hr,
    project_mask_to_lr,
)
from wsisam_qupath_training.sampling.clicker import next_click
from wsisam_qupath_training.sampling.prompt_sampling import (
    PairMasks,
    Plan,
    PromptBatch,
    PromptMix,
    add_clicks,
    choose_masks,
)


def answer(mask: Mask, logit: float = 30.0) -> MaskArray:
    return np.where(mask, logit, -logit).astype(np.float32)


SHIFTED = rectangle(75, 40, 175, 140)
FIRST = PromptBatch(
    np.full((1, 1, 2), 100, dtype=np.float32), np.full((1, 1), POSITIVE, dtype=np.int64)
)
CLICKS = Plan(PromptKind.POINTS, positives=1, clicks=1)
OUTLINES = Plan(PromptKind.POINTS, positives=1, clicks=1, feeds_outlines=True)


def over_hr(logits: MaskArray) -> PairMasks:
    """One answer, of a decoder that reads the HR patch alone."""
    return choose_masks(logits[None, None], np.ones((1, 1), dtype=np.float32))


def over_lr(lr_logits: MaskArray) -> PairMasks:
    """One answer, over the LR patch."""
    both = np.stack([answer(np.zeros_like(SQUARE)), lr_logits])
    return choose_masks(both[None], np.array([[0.25, 0.75]], dtype=np.float32))


def test_of_the_masks_over_both_patches_the_one_with_the_higher_predicted_iou_is_chosen() -> None:
    logits = rng().standard_normal((3, 2, MASK_PX, MASK_PX)).astype(np.float32)
    ious = np.array([[0.75, 0.5], [0.5, 0.75], [0.5, 0.5]], dtype=np.float32)

    chosen = choose_masks(logits, ious)

    assert chosen.is_lr.tolist() == [False, True, False]
    assert np.array_equal(chosen.hr[[0, 2]], logits[[0, 2], 0])
    assert np.array_equal(chosen.lr[0], project_mask_to_lr(logits[0, 0]))
    assert np.array_equal(chosen.lr[1], logits[1, 1])
    assert np.array_equal(chosen.hr[1], project_mask_to_hr(logits[1, 1]))


def test_the_one_mask_of_a_decoder_that_reads_the_hr_patch_alone_is_chosen() -> None:
    chosen = over_hr(answer(SHIFTED))

    assert chosen.is_lr.tolist() == [False]
    assert np.array_equal(chosen.hr[0], answer(SHIFTED))


def clicked(
    logits: MaskArray, plan: Plan = CLICKS, *, clicker_share: float = 1.0, seed: int = 0
) -> PromptBatch:
    mix = PromptMix(clicker_share=clicker_share)
    return add_clicks(FIRST, over_hr(logits), SEEN, [0], plan, mix, MASK_PX, rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_random_click_lands_on_a_known_error_and_says_what_is_there(seed: int) -> None:
    predicted = SHIFTED | rectangle(0, 215, MASK_PX, MASK_PX)  # partly where nothing is known

    batch = clicked(answer(predicted), clicker_share=0, seed=seed)

    (x, y), label = batch.points[0, -1], batch.click_labels[0, -1]
    row, column = int(y), int(x)
    assert SQUARE[row, column] != predicted[row, column]
    assert KNOWN[row, column]
    assert label == (POSITIVE if SQUARE[row, column] else NEGATIVE)


def test_the_clickers_click_is_the_deepest_error() -> None:
    batch = clicked(answer(SHIFTED))

    click = next_click(SQUARE, SHIFTED, np.zeros_like(SQUARE), KNOWN)
    assert click is not None
    assert batch.points[0].tolist() == [[100, 100], [click.column + 0.5, click.row + 0.5]]
    assert batch.click_labels[0].tolist() == [POSITIVE, POSITIVE if click.is_positive else NEGATIVE]


def test_a_perfect_answer_is_clicked_on_in_the_object() -> None:
    batch = clicked(answer(SQUARE))

    ((y, x),) = pixels(batch, 0, POSITIVE)[1:]
    assert SQUARE[y, x]


def test_logits_come_back_clamped_and_over_both_patches() -> None:
    batch = clicked(answer(SHIFTED))

    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert batch.boxes is None
    assert np.array_equal(batch.hr_masks[0], answer(SHIFTED, CLAMP_LOGIT))
    assert np.array_equal(batch.lr_masks[0], project_mask_to_lr(answer(SHIFTED, CLAMP_LOGIT)))


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_outlines_come_back_as_they_do_from_qupath(size_px: int) -> None:
    logits = answer(SHIFTED)

    batch = add_clicks(FIRST, over_hr(logits), SEEN, [0], OUTLINES, MIX, size_px, rng())

    pair = frame(MASK_PX)
    outline = mask_to_polygon(logits, pair, simplify_um=0.25, min_area_um2=0.0)
    assert outline is not None
    mask_input, lr_mask_input = (
        outline_to_mask(outline, pair, zoom=zoom, magnitude=OUTLINE_LOGIT) for zoom in (1.0, 2.0)
    )
    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert batch.boxes is not None
    assert np.array_equal(batch.hr_masks[0], mask_input)
    assert np.array_equal(batch.lr_masks[0], lr_mask_input)
    bounds = np.reshape(outline.bounds, (2, 2)) * (size_px / MASK_PX)
    assert batch.boxes[0] == pytest.approx(bounds)
    assert batch.point_labels[0, -2:].tolist() == [2, 3]


LR_WIDE = rectangle(40, 80, 150, 160)
"""Over the LR patch; it begins 24 of its px, or 48 of the HR patch, left of the HR patch."""


def test_an_answer_over_the_lr_patch_comes_back_clamped_over_both() -> None:
    batch = add_clicks(FIRST, over_lr(answer(LR_WIDE)), SEEN, [0], CLICKS, MIX, MASK_PX, rng())

    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert np.array_equal(batch.lr_masks[0], answer(LR_WIDE, CLAMP_LOGIT))
    projected = np.clip(project_mask_to_hr(answer(LR_WIDE)), -CLAMP_LOGIT, CLAMP_LOGIT)
    assert np.array_equal(batch.hr_masks[0], projected)


def test_the_outline_of_an_answer_over_the_lr_patch_reaches_beyond_the_hr_patch() -> None:
    batch = add_clicks(FIRST, over_lr(answer(LR_WIDE)), SEEN, [0], OUTLINES, MIX, MASK_PX, rng())

    assert batch.boxes is not None
    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    # HR mask px: twice the LR px, from 64 of them on.
    assert batch.boxes[0] == pytest.approx(np.array([[-48, 32], [172, 192]]), abs=0.01)
    assert np.array_equal(batch.lr_masks[0] > 0, LR_WIDE)
    others = (batch.hr_masks[0] > 0) != rectangle(0, 32, 172, 192)
    assert np.argwhere(others).tolist() == [[32, 171], [191, 171]]  # corners lose half a LR px


def test_an_empty_answer_comes_back_as_logits_where_outlines_are_fed() -> None:
    batch = clicked(answer(np.zeros_like(SQUARE)), OUTLINES)

    assert batch.boxes is None
    assert batch.hr_masks is not None
    assert (batch.hr_masks == -CLAMP_LOGIT).all()
