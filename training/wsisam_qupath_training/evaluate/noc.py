"""Clicks until an outline is right: NoC, by the clicker of RITM, ClickSEG and SimpleClick."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsisam_qupath.backends import Prediction
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.tokens import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    PADDING,
    POSITIVE,
    MaskArray,
    Tokens,
    lr_mask_of,
)

from ..clicker import Click, next_click
from .scoring import Target, check_logits, overlap

CLICKS_MOST = 20
"""Who has not reached an IoU by then has failed, and counts as having needed so many."""

TARGETS = (0.80, 0.85, 0.90)
"""The IoU of NoC@80, NoC@85 and NoC@90."""

PROBABILITY = 0.49
THRESHOLD_LOGIT = math.log(PROBABILITY / (1 - PROBABILITY))
"""A pixel belongs to the answer above this."""


@dataclass(frozen=True)
class ClickRun:
    """One object, clicked until the highest target was reached or clicks ran out.

    Attributes:
        clicks: mask pixels, in order.
        ious: after each click.
        predicted_ious: the model's own estimates of them.
        seconds: of each answer.
        kept: logits after some of the clicks, by their number from 1, for pictures.
    """

    clicks: tuple[Click, ...]
    ious: tuple[float, ...]
    predicted_ious: tuple[float, ...]
    seconds: tuple[float, ...]
    kept: dict[int, MaskArray]

    def clicks_to(self, target: float) -> int:
        """The first click whose IoU reaches the target, else 20."""
        return next((n for n, iou in enumerate(self.ious, 1) if iou >= target), CLICKS_MOST)

    def reaches(self, target: float) -> bool:
        """Whether any click does."""
        return any(iou >= target for iou in self.ious)

    def iou_after(self, click: int) -> float:
        """The IoU after a click, from 1; a run that ended before stays as it was."""
        return self.ious[min(click, len(self.ious)) - 1] if self.ious else 0.0


def run_clicks(
    answer: Callable[[Tokens], Prediction],
    target: Target,
    size_px: int,
    keep: Sequence[int] = (),
) -> ClickRun:
    """Click where the answer is most wrong, until its IoU is 0.90 or after 20 clicks.

    Args:
        answer: one prompt on the object's patch pair.
        target: the object over the 256 x 256 mask.
        size_px: side of the HR patch, encoder px.
        keep: numbers of clicks whose logits are kept; the last click's are kept for those beyond.
    """
    predicted = np.zeros((MASK_PX, MASK_PX), dtype=bool)
    clicked = predicted.copy()
    logits: MaskArray | None = None
    clicks: list[Click] = []
    answers: list[tuple[float, float, float]] = []
    kept: dict[int, MaskArray] = {}
    for number in range(1, CLICKS_MOST + 1):
        click = next_click(target.truth, predicted, clicked, target.known)
        if click is None:
            break
        clicks.append(click)
        clicked[click.row, click.column] = True
        start = time.perf_counter()
        prediction = answer(click_tokens(clicks, size_px, logits))
        seconds = time.perf_counter() - start
        logits = check_logits(prediction.mask_logits)
        predicted = logits > THRESHOLD_LOGIT
        iou = overlap(target, predicted).iou
        answers.append((iou, float(prediction.predicted_iou), seconds))
        if number in keep:
            kept[number] = logits
        if iou >= TARGETS[-1]:
            break
    if logits is not None:
        kept |= {number: logits for number in keep if number > len(clicks)}
    ious, predicted_ious, seconds_each = zip(*answers, strict=True) if answers else ((), (), ())
    return ClickRun(tuple(clicks), ious, predicted_ious, seconds_each, kept)


def click_tokens(clicks: Sequence[Click], size_px: int, logits: MaskArray | None) -> Tokens:
    """All clicks so far at the centres of their pixels, with the last answer as the mask prompt."""
    centres = np.array([(c.column + 0.5, c.row + 0.5) for c in clicks]) * (size_px / MASK_PX)
    coords = np.vstack([centres, np.zeros(2)]).astype(np.float32)
    labels = np.array(
        [*(POSITIVE if c.is_positive else NEGATIVE for c in clicks), PADDING], dtype=np.int64
    )
    if logits is None:
        return Tokens(PromptKind.POINTS, coords, labels)
    hr_mask = np.clip(np.nan_to_num(logits), -CLAMP_LOGIT, CLAMP_LOGIT).astype(np.float32)
    return Tokens(PromptKind.POINTS, coords, labels, hr_mask, lr_mask_of(hr_mask))
