from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from torch.nn import functional as F

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.prompts import Prompt, PromptKind
from wsisam_qupath.prompts.encoding import (
    BOTTOM_RIGHT,
    CLAMP_LOGIT,
    MOST_POINTS,
    NEGATIVE,
    OUTLINE_LOGIT,
    PADDING,
    POSITIVE,
    TOP_LEFT,
    encode_box,
    encode_prompt,
    mask_box,
    project_mask_to_hr,
    project_mask_to_lr,
)

PAIR = PatchPair(l0_x=1000, l0_y=2000, hr_mpp=1.0, size_px=256, mpp=Mpp(0.5, 0.25))
"""HR px are 2 level-0 px wide and 4 high; the HR patch begins at (744, 1488)."""

BOX = Box(764, 1528, 844, 1688)
HR_BOX = [[10, 10], [50, 50]]
INSIDE, OTHER_INSIDE = (746, 1492), (944, 2288)
HR_INSIDE, HR_OTHER_INSIDE = [1, 1], [100, 200]
BEYOND = (743, 1700)


@pytest.mark.parametrize(
    ("prompt", "point_coords", "point_labels"),
    [
        (Prompt("box", l0_box=BOX), HR_BOX, [TOP_LEFT, BOTTOM_RIGHT]),
        (
            Prompt("points", l0_positives=(OTHER_INSIDE, INSIDE)),
            [HR_OTHER_INSIDE, HR_INSIDE, [0, 0]],
            [POSITIVE, POSITIVE, PADDING],
        ),
        (
            Prompt("signs", l0_positives=(INSIDE,), l0_negatives=(OTHER_INSIDE,)),
            [HR_INSIDE, HR_OTHER_INSIDE, [0, 0]],
            [POSITIVE, NEGATIVE, PADDING],
        ),
        (
            Prompt("both", l0_box=BOX, l0_positives=(INSIDE,), l0_negatives=(OTHER_INSIDE,)),
            [HR_INSIDE, HR_OTHER_INSIDE, *HR_BOX],
            [POSITIVE, NEGATIVE, TOP_LEFT, BOTTOM_RIGHT],
        ),
        (
            Prompt("outline", l0_outline=shapely.box(BOX.x0, BOX.y0, BOX.x1, BOX.y1)),
            HR_BOX,
            [TOP_LEFT, BOTTOM_RIGHT],
        ),
    ],
    ids=lambda value: value.id if isinstance(value, Prompt) else "",
)
def test_tokens_are_points_then_the_box_in_hr_pixels(
    prompt: Prompt, point_coords: list[list[float]], point_labels: list[int]
) -> None:
    encoded = encode_prompt(prompt, PAIR)

    assert encoded.point_coords.tolist() == point_coords
    assert encoded.point_labels.tolist() == point_labels
    assert encoded.point_coords.dtype == np.float32
    assert encoded.point_labels.dtype == np.int64
    assert encoded.kind is prompt.kind


def test_a_negative_point_beyond_the_hr_patch_is_left_out() -> None:
    prompt = Prompt("n", l0_positives=(INSIDE,), l0_negatives=(BEYOND, OTHER_INSIDE))

    encoded = encode_prompt(prompt, PAIR)

    assert encoded.point_coords.tolist() == [HR_INSIDE, HR_OTHER_INSIDE, [0, 0]]
    assert encoded.kind is PromptKind.POINTS


def test_only_an_outline_gives_masks() -> None:
    encoded = encode_prompt(Prompt("box", l0_box=BOX), PAIR)

    assert encoded.mask_input is None
    assert encoded.lr_mask_input is None


def test_the_masks_of_an_outline_cover_it_in_both_patches() -> None:
    outline = shapely.box(764, 1528, 844, 1688)  # HR px 10 to 50, LR px 69 to 89

    encoded = encode_prompt(Prompt("outline", l0_outline=outline), PAIR)

    expected = np.full((2, 256, 256), -OUTLINE_LOGIT, dtype=np.float32)
    expected[0, 10:50, 10:50] = OUTLINE_LOGIT
    expected[1, 69:89, 69:89] = OUTLINE_LOGIT
    assert encoded.mask_input is not None
    assert encoded.lr_mask_input is not None
    np.testing.assert_allclose(encoded.mask_input, expected[0], atol=1e-5)
    np.testing.assert_allclose(encoded.lr_mask_input, expected[1], atol=1e-5)


def test_a_box_alone_is_two_tokens() -> None:
    encoded = encode_box(Box(1, 2, 3, 4))

    assert encoded.point_coords.tolist() == [[1, 2], [3, 4]]
    assert encoded.point_labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT]
    assert encoded.kind is PromptKind.BOX


@pytest.mark.parametrize(("size_px", "zoom"), [(256, 1), (1024, 4)])
def test_the_box_of_a_mask_goes_round_its_outermost_pixels(size_px: int, zoom: int) -> None:
    logits = np.full((256, 256), -1, dtype=np.float32)
    logits[40, 7] = logits[99, 30] = 0.1
    logits[200, 200] = 0.0  # on the threshold is outside

    box = mask_box(logits, size_px)

    assert box == Box(7 * zoom, 40 * zoom, 31 * zoom, 100 * zoom)


def test_the_box_of_a_full_mask_is_the_patch() -> None:
    assert mask_box(np.ones((256, 256), dtype=np.float32), 1024) == Box(0, 0, 1024, 1024)


def test_over_the_lr_patch_a_mask_fills_the_middle_in_2_x_2_means() -> None:
    rows, columns = np.mgrid[0:256, 0:256].astype(np.float32)

    lr_mask_input = project_mask_to_lr(rows + 1000 * columns)

    assert lr_mask_input.shape == (256, 256)
    assert lr_mask_input.dtype == np.float32
    lr_rows, lr_columns = np.mgrid[0:128, 0:128].astype(np.float32)
    expected = (2 * lr_rows + 0.5) + 1000 * (2 * lr_columns + 0.5)
    assert np.array_equal(lr_mask_input[64:192, 64:192], expected)
    lr_mask_input[64:192, 64:192] = -CLAMP_LOGIT
    assert (lr_mask_input == -CLAMP_LOGIT).all()


def test_over_the_hr_patch_a_mask_of_the_lr_patch_is_its_middle_in_bilinear_interpolation() -> None:
    rng = np.random.default_rng(0)
    lr_mask_input = rng.standard_normal((256, 256)).astype(np.float32)

    mask_input = project_mask_to_hr(lr_mask_input)

    whole = F.interpolate(
        torch.from_numpy(lr_mask_input)[None, None],
        scale_factor=2,
        mode="bilinear",
        align_corners=False,
    )
    assert mask_input.shape == (256, 256)
    assert mask_input.dtype == np.float32
    np.testing.assert_allclose(mask_input, whole[0, 0, 128:384, 128:384].numpy(), atol=1e-6)


def test_an_outline_and_its_own_answer_lie_at_the_same_place_of_the_lr_patch() -> None:
    outline = shapely.Polygon([(764, 1528), (900, 1600), (800, 1900)])
    encoded = encode_prompt(Prompt("outline", l0_outline=outline), PAIR)
    assert encoded.mask_input is not None
    assert encoded.lr_mask_input is not None

    reduced = project_mask_to_lr(encoded.mask_input)

    middle = (slice(64, 192), slice(64, 192))
    np.testing.assert_allclose(reduced[middle], encoded.lr_mask_input[middle], atol=1e-4)


def test_of_very_many_points_some_that_lie_far_apart_are_encoded_and_the_last() -> None:
    row = tuple((744.0 + 4 * number, 1600.0) for number in range(100))
    last = (1000.0, 1900.0)

    encoded = encode_prompt(Prompt("many", l0_positives=(*row, last), l0_negatives=row), PAIR)

    labels = encoded.point_labels.tolist()
    assert (labels.count(POSITIVE), labels.count(NEGATIVE)) == (MOST_POINTS, MOST_POINTS)
    inside = encoded.point_coords[:MOST_POINTS]
    assert inside[-1].tolist() == [128, 103]
    assert (np.diff(inside[:-1, 0]) > 4).all()


def test_points_that_are_not_too_many_are_all_encoded() -> None:
    points = tuple((744.0 + number, 1600.0) for number in range(MOST_POINTS))

    encoded = encode_prompt(Prompt("some", l0_positives=points), PAIR)

    assert encoded.point_labels.tolist() == [*[POSITIVE] * MOST_POINTS, PADDING]
    np.testing.assert_allclose(encoded.point_coords[:-1, 0], np.arange(MOST_POINTS) / 2)
