"""Dice and cross-entropy of mask logits (WSI-SAM, section 2.3), and the IoU head's target."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_SMOOTH = 1.0
"""Keeps the Dice loss of an empty object finite, as is usual."""


def dice_loss(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Compute one minus the soft Dice coefficient, over the known pixels.

    Args:
        logits: B x H x W mask logits.
        truth, known: B x H x W, 0 or 1.

    Returns:
        B, 0 to 1.
    """
    inside = torch.sigmoid(logits) * known
    wanted = truth * known
    shared = (inside * wanted).sum(dim=(1, 2))
    total = inside.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2))
    return 1 - (2 * shared + _SMOOTH) / (total + _SMOOTH)


def cross_entropy(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Compute the mean binary cross-entropy over the known pixels; B x H x W to B."""
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
    return each.sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)


def mask_loss(
    logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, *, cross_entropy_weight: float
) -> torch.Tensor:
    """Compute Dice plus weighted cross-entropy, in float32; a number."""
    logits = logits.float()
    both = dice_loss(logits, truth, known) + cross_entropy_weight * cross_entropy(
        logits, truth, known
    )
    return both.mean()


def true_iou(
    logits: torch.Tensor,
    truth: torch.Tensor,
    known: torch.Tensor,
    whole_px: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the IoU of the mask above 0 with the whole object, over the known pixels.

    Args:
        logits, truth, known: ... x H x W.
        whole_px: ..., area of the object including what lies outside of the patch; None if it lies
            wholly inside.

    Returns:
        ..., 0 to 1.
    """
    inside, wanted = (logits > 0) & (known > 0), (truth > 0) & (known > 0)
    shared, union = ((part).sum(dim=(-2, -1)) for part in (inside & wanted, inside | wanted))
    if whole_px is not None:
        union = union + (whole_px - truth.sum(dim=(-2, -1))).clamp(min=0)
    return shared / union.clamp(min=1)
