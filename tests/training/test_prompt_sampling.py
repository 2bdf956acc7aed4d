"""Prompts as they are drawn in training: where they lie, and that use would make the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon, outline_to_mask
from wsisam_qupath.prompts import Prompt, PromptKind
from wsisam_qupath.prompts.encoding import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    OUTLINE_LOGIT,
    POSITIVE,
    MaskArray,
    encode_prompt,
    project_mask_to_hr,
    project_mask_to_lr,
)
from wsisam_qupath_training.sampling.clicker import next_click
from wsisam_qupath_training.sampling.noise import (
    add_box_noise,
    bend_edge,
    find_tight_box,
    roughen_edge,
)
from wsisam_qupath_training.sampling.prompt_sampling import (
    PairMasks,
    Plan,
    PromptBatch,
    PromptMix,
    add_clicks,
    choose_masks,
    draw_first_prompts,
    draw_objects,
    draw_plan,
    make_outline_prompts,
)
from wsisam_qupath_training.sampling.samples import SampleMasks

Mask = NDArray[np.bool_]
SIZES_PX = (256, 1024)
MIX = PromptMix()


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros((MASK_PX, MASK_PX), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


SQUARE, TALL = rectangle(60, 50, 160, 150), rectangle(200, 60, 240, 200)
KNOWN = rectangle(0, 0, MASK_PX, 220)
EVERYTHING = np.ones_like(KNOWN)
SEEN = SampleMasks(
    hr_masks=np.stack([SQUARE, TALL]),
    lr_masks=np.stack([SQUARE, TALL]),
    hr_objects=SQUARE | TALL,
    hr_known=KNOWN,
    lr_known=KNOWN,
    hr_whole_px=np.array([SQUARE.sum(), TALL.sum()], dtype=np.float64),
    is_whole=np.array([True, False]),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def frame(size_px: int) -> PatchPair:
    """A pair whose level-0 pixels are mask pixels."""
    return PatchPair(MASK_PX / 2, MASK_PX / 2, MASK_PX / size_px, size_px, Mpp(1.0, 1.0))


def pixels(batch: PromptBatch, row: int, label: int, size_px: int = MASK_PX) -> list[list[int]]:
    """Mask pixels (row, column) of the points with a label."""
    points = batch.points[row][batch.click_labels[row] == label] * (MASK_PX / size_px)
    return [[int(y), int(x)] for x, y in points]


def test_the_edges_of_boxes_vary_by_the_share_of_their_side_that_is_said() -> None:
    mask, draws = rectangle(20, 40, 220, 90), rng()

    boxes = np.stack([add_box_noise(mask, 0.05, draws) for _ in range(4000)])

    strayed = (boxes - [[20, 40], [220, 90]]) / [200, 50]
    assert strayed.std(axis=0) == pytest.approx(np.full((2, 2), 0.05), abs=0.003)
    assert strayed.mean(axis=0) == pytest.approx(np.zeros((2, 2)), abs=0.003)


def test_uniform_noise_moves_the_center_by_half_of_what_it_resizes() -> None:
    mask, draws = rectangle(20, 40, 220, 90), rng()

    boxes = np.stack([add_box_noise(mask, 0.1, draws, "uniform") for _ in range(4000)])

    centers, sides = boxes.mean(axis=1), boxes[:, 1] - boxes[:, 0]
    strayed, grown = (centers - [120, 65]) / [200, 50], sides / [200, 50] - 1
    assert abs(strayed).max(axis=0) == pytest.approx([0.05, 0.05], rel=0.01)
    assert abs(grown).max(axis=0) == pytest.approx([0.1, 0.1], rel=0.01)
    assert strayed.std(axis=0) == pytest.approx(np.full(2, 0.05 / 3**0.5), rel=0.05)


def test_a_box_keeps_its_area_however_much_it_varies() -> None:
    draws = rng()

    boxes = np.stack([add_box_noise(TALL, 0.5, draws) for _ in range(500)])

    assert ((boxes[:, 1] - boxes[:, 0]) > 0).all()


def test_a_box_of_one_pixel_is_that_pixel() -> None:
    assert find_tight_box(rectangle(7, 9, 8, 10)).tolist() == [[7, 9], [8, 10]]


def test_plans_are_drawn_by_their_shares_and_within_their_limits() -> None:
    draws = rng()

    plans = [draw_plan(MIX, draws) for _ in range(4000)]

    counts = Counter(plan.kind for plan in plans)
    shares = [counts[k] / 4000 for k in (PromptKind.BOX, PromptKind.POINTS, PromptKind.BOX_POINTS)]
    assert shares == pytest.approx([0.2, 0.55, 0.15], abs=0.03)
    clicked = [p for p in plans if p.kind in {PromptKind.POINTS, PromptKind.BOX_POINTS}]
    assert {p.positives for p in clicked} == set(range(1, 11))
    assert {p.negatives for p in clicked} == {0, 1, 2, 3}
    assert {p.clicks for p in clicked} == set(range(7))
    others = [p for p in plans if p not in clicked]
    assert {(p.positives, p.negatives, p.clicks) for p in others} == {(0, 0, 0)}


def test_a_mix_without_a_kind_never_draws_it() -> None:
    draws, mix = rng(), PromptMix(box=0, points=0, box_points=0, outline=1)

    assert {draw_plan(mix, draws).kind for _ in range(50)} == {PromptKind.OUTLINE}


def test_boxes_are_drawn_round_whole_objects_and_points_in_any() -> None:
    boxes = draw_objects(SEEN, Plan(PromptKind.BOX), MIX, 3, rng())
    points = draw_objects(SEEN, Plan(PromptKind.POINTS, positives=1), MIX, 2, rng())

    assert boxes.tolist() == [0, 0, 0]
    assert sorted(points.tolist()) == [0, 1]


@pytest.mark.parametrize("size_px", SIZES_PX)
@pytest.mark.parametrize("seed", range(5))
def test_positives_lie_in_the_object_and_negatives_outside_of_it_where_all_is_known(
    size_px: int, seed: int
) -> None:
    plan = Plan(PromptKind.POINTS, positives=10, negatives=3)

    batch = draw_first_prompts(SEEN, [0, 1], plan, MIX, size_px, rng(seed))

    for row, mask in enumerate(SEEN.hr_masks):
        inside = pixels(batch, row, POSITIVE, size_px)
        outside = pixels(batch, row, NEGATIVE, size_px)
        assert (len(inside), len(outside)) == (10, 3)
        assert all(mask[y, x] for y, x in inside)
        assert all(KNOWN[y, x] and not mask[y, x] for y, x in outside)


def test_the_first_of_the_deepest_points_is_where_the_clicker_would_click() -> None:
    plan = Plan(PromptKind.POINTS, positives=1)
    nothing = np.zeros_like(SQUARE)

    batch = draw_first_prompts(SEEN, [0], plan, PromptMix(deepest_share=1), MASK_PX, rng())

    click = next_click(SQUARE, nothing, nothing)
    assert click is not None
    assert batch.points[0].tolist() == [[click.column + 0.5, click.row + 0.5]]


PROMPTS = {
    "points": Prompt("a", l0_positives=((70.5, 60.25), (90.0, 80.0)), l0_negatives=((9.0, 7.0),)),
    "box": Prompt("a", l0_box=Box(60, 50, 160, 150)),
    "box and points": Prompt(
        "a", l0_box=Box(61, 52, 150, 140), l0_positives=((99.0, 98.0),), l0_negatives=((5.0, 6.0),)
    ),
}


@pytest.mark.parametrize("size_px", SIZES_PX)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_tokens_stand_in_the_order_in_which_prompts_come_in_use(
    prompt: Prompt, size_px: int
) -> None:
    hr_per_mask = size_px / MASK_PX
    points = np.array([*prompt.l0_positives, *prompt.l0_negatives]).reshape(1, -1, 2)
    point_labels = [POSITIVE] * len(prompt.l0_positives) + [NEGATIVE] * len(prompt.l0_negatives)
    boxes = None if prompt.l0_box is None else prompt.l0_box.corners()[None] * hr_per_mask

    batch = PromptBatch(
        (points * hr_per_mask).astype(np.float32),
        np.array([point_labels], dtype=np.int64),
        None if boxes is None else boxes.astype(np.float32),
    )

    tokens = encode_prompt(prompt, frame(size_px))
    assert batch.point_coords[0] == pytest.approx(tokens.point_coords)
    assert batch.point_labels[0].tolist() == tokens.point_labels.tolist()


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_coarse_mask_becomes_the_prompt_that_its_outline_is_in_use(size_px: int) -> None:
    batch = make_outline_prompts([SQUARE], size_px)

    outline = shapely.box(60, 50, 160, 150)
    tokens = encode_prompt(Prompt("a", l0_outline=outline), frame(size_px))
    assert batch.point_coords[0] == pytest.approx(tokens.point_coords)
    assert batch.point_labels[0].tolist() == tokens.point_labels.tolist()
    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert batch.hr_masks[0] == pytest.approx(tokens.mask_input)
    assert batch.lr_masks[0] == pytest.approx(tokens.lr_mask_input)


def test_a_coarse_mask_without_noise_is_the_object_and_with_it_much_the_same() -> None:
    coarse = bend_edge(SQUARE, 0.08, rng())

    assert np.array_equal(bend_edge(SQUARE, 0.0, rng()), SQUARE)
    overlap = (coarse & SQUARE).sum() / (coarse | SQUARE).sum()
    assert 0.5 < overlap < 1


def test_a_rough_mask_differs_in_about_a_third_of_the_pixels_of_its_boundary_alone() -> None:
    rough = roughen_edge(SQUARE, 2.0, rng())

    outer, inner = rectangle(58, 48, 162, 152), rectangle(62, 52, 158, 148)
    changed = rough ^ SQUARE
    assert not (changed & (inner | ~outer)).any()
    # N(0, 1) exceeds a half, which is what it takes to change a pixel, in 31 %.
    assert changed.sum() / (outer & ~inner).sum() == pytest.approx(0.31, abs=0.03)


def test_a_rough_mask_of_a_whole_patch_is_the_patch() -> None:
    assert roughen_edge(EVERYTHING, 2.0, rng()).all()


def test_a_coarse_mask_without_its_box_has_no_tokens_as_in_sam() -> None:
    mix = MIX.model_copy(update={"outline_box_share": 0.0, "outline_band_px": 2.0})
    plan = Plan(PromptKind.OUTLINE, has_box=False)

    batch = draw_first_prompts(SEEN, [0, 1], plan, mix, 256, rng())

    assert batch.point_coords.shape == (2, 0, 2)
    assert batch.point_labels.shape == (2, 0)
    assert batch.hr_masks is not None
    assert ((batch.hr_masks[0] > 0) ^ SQUARE).any()


def test_boxes_come_with_the_share_of_coarse_masks_that_is_said() -> None:
    mix = PromptMix(box=0, points=0, box_points=0, outline=1, outline_box_share=0.25)
    draws = rng()

    plans = [draw_plan(mix, draws) for _ in range(2000)]

    assert np.mean([plan.has_box for plan in plans]) == pytest.approx(0.25, abs=0.03)


def test_boxes_of_cut_objects_are_asked_for_where_the_mix_says_so() -> None:
    mix = MIX.model_copy(update={"cut_boxes": True})

    found = draw_objects(SEEN, Plan(PromptKind.BOX), mix, 2, rng())

    assert sorted(found.tolist()) == [0, 1]


def test_a_coarse_mask_of_one_pixel_is_never_empty() -> None:
    draws = rng()

    assert all(bend_edge(rectangle(9, 9, 10, 10), 0.5, draws).any() for _ in range(20))


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
