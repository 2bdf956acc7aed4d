"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from wsisam_qupath_training.trainer.losses import cross_entropy, dice_loss, mask_loss, true_iou

ALL = torch.ones(1, 2, 2)
LOGITS = torch.tensor([[[math.log(3), 0.0], [-math.log(3), 0.0]]])
"""Of probabilities 3/4, 1/2, 1/4 and 1/2."""
TRUTH = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])


def test_dice_loss_of_four_pixels() -> None:
    # Shared 3/4 + 1/2, in all 2 + 2, and 1 above and below.
    assert dice_loss(LOGITS, TRUTH, ALL).tolist() == pytest.approx([1 - (2 * 1.25 + 1) / 5])


def test_cross_entropy_of_four_pixels() -> None:
    # Twice -ln(3/4), as 1/4 where nothing is, and twice -ln(1/2).
    wanted = (2 * math.log(4 / 3) + 2 * math.log(2)) / 4

    assert cross_entropy(LOGITS, TRUTH, ALL).tolist() == pytest.approx([wanted])


def test_pixels_that_are_not_known_count_for_nothing() -> None:
    known = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])

    # 3/4 of the object, and 1/4 where nothing is.
    assert dice_loss(LOGITS, TRUTH, known).tolist() == pytest.approx([1 - (1.5 + 1) / 3])
    assert cross_entropy(LOGITS, TRUTH, known).tolist() == pytest.approx([math.log(4 / 3)])
    override_recipe = torch.where(known > 0, LOGITS, torch.tensor(9.0))
    assert torch.equal(dice_loss(override_recipe, TRUTH, known), dice_loss(LOGITS, TRUTH, known))


def test_mask_loss_is_dice_plus_weighted_cross_entropy_over_the_batch() -> None:
    logits, truth = torch.cat([LOGITS, -LOGITS]), torch.cat([TRUTH, TRUTH])
    known = ALL.expand(2, 2, 2)

    loss = mask_loss(logits, truth, known, cross_entropy_weight=3.0)

    dice, entropy = dice_loss(logits, truth, known), cross_entropy(logits, truth, known)
    assert loss.item() == pytest.approx(float((dice + 3 * entropy).mean()))
    assert dice[0] < dice[1]


@pytest.mark.parametrize("known", [ALL, torch.zeros(1, 2, 2)])
def test_an_empty_object_has_a_finite_loss_and_gradient(known: torch.Tensor) -> None:
    logits = LOGITS.clone().requires_grad_()

    loss = mask_loss(logits, torch.zeros(1, 2, 2), known, cross_entropy_weight=1.0)
    (gradient,) = torch.autograd.grad(loss, logits)

    assert math.isfinite(loss.item())
    assert torch.isfinite(gradient).all()


def test_bf16_logits_lose_as_float32_do() -> None:
    loss = mask_loss(LOGITS.bfloat16(), TRUTH, ALL, cross_entropy_weight=1.0)

    assert loss.dtype == torch.float32


def test_true_iou_is_over_known_pixels() -> None:
    logits = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
    known = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])

    assert true_iou(logits, TRUTH, ALL).tolist() == pytest.approx([2 / 3])
    assert true_iou(logits, TRUTH, known).tolist() == [1.0]
    assert true_iou(-ALL, 0 * ALL, ALL).tolist() == [0.0]


def test_true_iou_counts_what_of_the_object_lies_outside_of_the_patch() -> None:
    answers = torch.stack([2 * TRUTH - 1, ALL, TRUTH[:, [1, 0]] - 0.5], dim=1)  # 1 x 3 x 2 x 2
    truths = TRUTH[:, None].expand_as(answers)
    whole_px = torch.tensor([[6.0, 6.0, 6.0]])  # of which the patch shows 2

    found = true_iou(answers, truths, torch.ones_like(answers), whole_px)

    assert found.shape == (1, 3)
    assert found[0].tolist() == pytest.approx([2 / 6, 2 / 8, 0.0])


def test_true_iou_of_an_object_that_lies_wholly_in_the_patch_needs_no_area() -> None:
    logits = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])

    whole_px = torch.tensor([1.9])  # its outline encloses a little less than its pixels

    assert true_iou(logits, TRUTH, ALL, whole_px).tolist() == true_iou(logits, TRUTH, ALL).tolist()
