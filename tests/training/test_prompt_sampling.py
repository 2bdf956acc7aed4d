"""Prompts as they are drawn in training: where they lie, and that use would make the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import shapely

from fixtures.sampling_masks import (
    KNOWN,
    MIX,
    SEEN,
    SIZES_PX,
    SQUARE,
    TALL,
    frame,
    pixels,
    rectangle,
    rng,
)
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Prompt, PromptKind
from wsisam_qupath.prompts.encoding import MASK_PX, NEGATIVE, POSITIVE, encode_prompt
from wsisam_qupath_training.sampling.clicker import next_click
from wsisam_qupath_training.sampling.noise import (
    add_box_noise,
    bend_edge,
    find_tight_box,
    roughen_edge,
)
from wsisam_qupath_training.sampling.prompt_sampling import (
    Plan,
    PromptBatch,
    PromptMix,
    draw_first_prompts,
    draw_objects,
    draw_plan,
    make_outline_prompts,
)

EVERYTHING = np.ones_like(KNOWN)


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


@pytest.mark.slow
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


def test_a_view_of_nested_objects_is_never_asked_by_fewer_points_than_it_says() -> None:
    draws = rng()

    plans = [draw_plan(MIX, draws, 3) for _ in range(500)]

    asked = {kind: {p.positives for p in plans if p.kind is kind} for kind in PromptKind}
    assert asked[PromptKind.POINTS] == set(range(3, 11))
    assert asked[PromptKind.BOX_POINTS] == set(range(1, 11))  # the box says which is meant


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
