"""Prompts as they are drawn in training: where they lie, and that use would make the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.polygons import mask_to_polygon, outline_to_mask
from wsisam_qupath.prompts import Prompt, PromptKind
from wsisam_qupath.tokens import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    OUTLINE_LOGIT,
    POSITIVE,
    MaskArray,
    lr_mask_of,
    tokens_of,
)
from wsisam_qupath_training.clicker import next_click
from wsisam_qupath_training.draws import (
    Plan,
    PromptBatch,
    PromptMix,
    clicked_again,
    coarse_mask,
    draw_objects,
    draw_plan,
    first_prompts,
    noisy_box,
    outline_prompts,
    tight_box,
)
from wsisam_qupath_training.views import SeenTruth

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
SEEN = SeenTruth(
    hr_masks=np.stack([SQUARE, TALL]),
    lr_masks=np.stack([SQUARE, TALL]),
    hr_objects=SQUARE | TALL,
    hr_known=KNOWN,
    lr_known=KNOWN,
    is_whole=np.array([True, False]),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def frame(size_px: int) -> PatchPair:
    """A pair whose level-0 pixels are mask pixels."""
    return PatchPair(MASK_PX / 2, MASK_PX / 2, MASK_PX / size_px, size_px, Mpp(1.0, 1.0))


def pixels(batch: PromptBatch, row: int, label: int, size_px: int = MASK_PX) -> list[list[int]]:
    """Mask pixels (row, column) of the points with a label."""
    points = batch.points[row][batch.point_labels[row] == label] * (MASK_PX / size_px)
    return [[int(y), int(x)] for x, y in points]


def test_the_edges_of_boxes_vary_by_the_share_of_their_side_that_is_said() -> None:
    mask, draws = rectangle(20, 40, 220, 90), rng()

    boxes = np.stack([noisy_box(mask, 0.05, draws) for _ in range(4000)])

    strayed = (boxes - [[20, 40], [220, 90]]) / [200, 50]
    assert strayed.std(axis=0) == pytest.approx(np.full((2, 2), 0.05), abs=0.003)
    assert strayed.mean(axis=0) == pytest.approx(np.zeros((2, 2)), abs=0.003)


def test_a_box_keeps_its_area_however_much_it_varies() -> None:
    draws = rng()

    boxes = np.stack([noisy_box(TALL, 0.5, draws) for _ in range(500)])

    assert ((boxes[:, 1] - boxes[:, 0]) > 0).all()


def test_a_box_of_one_pixel_is_that_pixel() -> None:
    assert tight_box(rectangle(7, 9, 8, 10)).tolist() == [[7, 9], [8, 10]]


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
    boxes = draw_objects(SEEN, Plan(PromptKind.BOX), 3, rng())
    points = draw_objects(SEEN, Plan(PromptKind.POINTS, positives=1), 2, rng())

    assert boxes.tolist() == [0, 0, 0]
    assert sorted(points.tolist()) == [0, 1]


@pytest.mark.parametrize("size_px", SIZES_PX)
@pytest.mark.parametrize("seed", range(5))
def test_positives_lie_in_the_object_and_negatives_outside_of_it_where_all_is_known(
    size_px: int, seed: int
) -> None:
    plan = Plan(PromptKind.POINTS, positives=10, negatives=3)

    batch = first_prompts(SEEN, [0, 1], plan, MIX, size_px, rng(seed))

    for row, mask in enumerate(SEEN.hr_masks):
        inside = pixels(batch, row, POSITIVE, size_px)
        outside = pixels(batch, row, NEGATIVE, size_px)
        assert (len(inside), len(outside)) == (10, 3)
        assert all(mask[y, x] for y, x in inside)
        assert all(KNOWN[y, x] and not mask[y, x] for y, x in outside)


def test_the_first_of_the_deepest_points_is_where_the_clicker_would_click() -> None:
    plan = Plan(PromptKind.POINTS, positives=1)
    nothing = np.zeros_like(SQUARE)

    batch = first_prompts(SEEN, [0], plan, PromptMix(deepest_share=1), MASK_PX, rng())

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
    labels = [POSITIVE] * len(prompt.l0_positives) + [NEGATIVE] * len(prompt.l0_negatives)
    boxes = None if prompt.l0_box is None else prompt.l0_box.corners()[None] * hr_per_mask

    batch = PromptBatch(
        (points * hr_per_mask).astype(np.float32),
        np.array([labels], dtype=np.int64),
        None if boxes is None else boxes.astype(np.float32),
    )

    tokens = tokens_of(prompt, frame(size_px))
    assert batch.coords[0] == pytest.approx(tokens.coords)
    assert batch.labels[0].tolist() == tokens.labels.tolist()


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_coarse_mask_becomes_the_prompt_that_its_outline_is_in_use(size_px: int) -> None:
    batch = outline_prompts([SQUARE], size_px)

    outline = shapely.box(60, 50, 160, 150)
    tokens = tokens_of(Prompt("a", l0_outline=outline), frame(size_px))
    assert batch.coords[0] == pytest.approx(tokens.coords)
    assert batch.labels[0].tolist() == tokens.labels.tolist()
    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert batch.hr_masks[0] == pytest.approx(tokens.hr_mask)
    assert batch.lr_masks[0] == pytest.approx(tokens.lr_mask)


def test_a_coarse_mask_without_noise_is_the_object_and_with_it_much_the_same() -> None:
    coarse = coarse_mask(SQUARE, 0.08, rng())

    assert np.array_equal(coarse_mask(SQUARE, 0.0, rng()), SQUARE)
    overlap = (coarse & SQUARE).sum() / (coarse | SQUARE).sum()
    assert 0.5 < overlap < 1


def test_a_coarse_mask_of_one_pixel_is_never_empty() -> None:
    draws = rng()

    assert all(coarse_mask(rectangle(9, 9, 10, 10), 0.5, draws).any() for _ in range(20))


def answer(mask: Mask, logit: float = 30.0) -> MaskArray:
    return np.where(mask, logit, -logit).astype(np.float32)


SHIFTED = rectangle(75, 40, 175, 140)
FIRST = PromptBatch(
    np.full((1, 1, 2), 100, dtype=np.float32), np.full((1, 1), POSITIVE, dtype=np.int64)
)
CLICKS = Plan(PromptKind.POINTS, positives=1, clicks=1)
OUTLINES = Plan(PromptKind.POINTS, positives=1, clicks=1, feeds_outlines=True)


def clicked(
    logits: MaskArray, plan: Plan = CLICKS, *, clicker_share: float = 1.0, seed: int = 0
) -> PromptBatch:
    mix = PromptMix(clicker_share=clicker_share)
    return clicked_again(FIRST, logits[None], SEEN, [0], plan, mix, MASK_PX, rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_random_click_lands_on_a_known_error_and_says_what_is_there(seed: int) -> None:
    predicted = SHIFTED | rectangle(0, 215, MASK_PX, MASK_PX)  # partly where nothing is known

    batch = clicked(answer(predicted), clicker_share=0, seed=seed)

    (x, y), label = batch.points[0, -1], batch.point_labels[0, -1]
    row, column = int(y), int(x)
    assert SQUARE[row, column] != predicted[row, column]
    assert KNOWN[row, column]
    assert label == (POSITIVE if SQUARE[row, column] else NEGATIVE)


def test_the_clickers_click_is_the_deepest_error() -> None:
    batch = clicked(answer(SHIFTED))

    click = next_click(SQUARE, SHIFTED, np.zeros_like(SQUARE), KNOWN)
    assert click is not None
    assert batch.points[0].tolist() == [[100, 100], [click.column + 0.5, click.row + 0.5]]
    assert batch.point_labels[0].tolist() == [POSITIVE, POSITIVE if click.is_positive else NEGATIVE]


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
    assert np.array_equal(batch.lr_masks[0], lr_mask_of(answer(SHIFTED, CLAMP_LOGIT)))


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_outlines_come_back_as_they_do_from_qupath(size_px: int) -> None:
    logits = answer(SHIFTED)

    batch = clicked_again(FIRST, logits[None], SEEN, [0], OUTLINES, MIX, size_px, rng())

    pair = frame(MASK_PX)
    outline = mask_to_polygon(logits, pair, simplify_um=0.25, min_area_um2=0.0)
    assert outline is not None
    hr_mask, lr_mask = (
        outline_to_mask(outline, pair, zoom=zoom, magnitude=OUTLINE_LOGIT) for zoom in (1.0, 2.0)
    )
    assert batch.hr_masks is not None
    assert batch.lr_masks is not None
    assert batch.boxes is not None
    assert np.array_equal(batch.hr_masks[0], hr_mask)
    assert np.array_equal(batch.lr_masks[0], lr_mask)
    bounds = np.reshape(outline.bounds, (2, 2)) * (size_px / MASK_PX)
    assert batch.boxes[0] == pytest.approx(bounds)
    assert batch.labels[0, -2:].tolist() == [2, 3]


def test_an_empty_answer_comes_back_as_logits_where_outlines_are_fed() -> None:
    batch = clicked(answer(np.zeros_like(SQUARE)), OUTLINES)

    assert batch.boxes is None
    assert batch.hr_masks is not None
    assert (batch.hr_masks == -CLAMP_LOGIT).all()
