"""Number of clicks (NoC) until an outline is right, as RITM, ClickSEG and SimpleClick count."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.inference.predictor import project_mask
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import (
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    PADDING,
    POSITIVE,
    EncodedPrompt,
    MaskArray,
)

from ..sampling.clicker import Click, next_click
from .scoring import Target, check_logits, overlap

CLICKS_MOST = 20
"""Largest number of clicks; an object that has not reached an IoU by then counts as so many."""

TARGETS = (0.80, 0.85, 0.90)
"""Target IoUs of NoC@80, NoC@85 and NoC@90."""

PROBABILITY = 0.49
THRESHOLD_LOGIT = math.log(PROBABILITY / (1 - PROBABILITY))
"""Pixels with a logit above this belong to the answer."""


@dataclass(frozen=True)
class ClickRun:
    """One object, clicked until the highest target was reached or clicks ran out.

    Attributes:
        clicks: clicked mask pixels, in order.
        ious: IoU after each click.
        predicted_ious: IoU that the model itself predicted after each click.
        seconds: time of each answer.
        kept: logits over the HR patch after some of the clicks, by the number of the click from 1,
            for pictures.
    """

    clicks: tuple[Click, ...]
    ious: tuple[float, ...]
    predicted_ious: tuple[float, ...]
    seconds: tuple[float, ...]
    kept: dict[int, MaskArray]

    def clicks_to(self, target: float) -> int:
        """Number of the first click after which the IoU reaches the target, else 20."""
        return next((n for n, iou in enumerate(self.ious, 1) if iou >= target), CLICKS_MOST)

    def reaches(self, target: float) -> bool:
        """Whether the IoU reaches the target after any click."""
        return any(iou >= target for iou in self.ious)

    def iou_after(self, click: int) -> float:
        """The IoU after a click, counted from 1; a run that ended earlier keeps its last IoU."""
        return self.ious[min(click, len(self.ious)) - 1] if self.ious else 0.0


def run_clicks(
    predict: Callable[[EncodedPrompt], Prediction],
    target: Target,
    size_px: int,
    keep: Sequence[int] = (),
) -> ClickRun:
    """Click where the answer is most wrong, until its IoU is 0.90 or after 20 clicks.

    Args:
        predict: answers one prompt on the object's patch pair.
        target: the object over the 256 x 256 mask.
        size_px: side of the HR patch, encoder px.
        keep: numbers of the clicks after which logits are kept; a number beyond the last click
            keeps those of the last.
    """
    predicted = np.zeros((MASK_PX, MASK_PX), dtype=bool)
    clicked = predicted.copy()
    masks: tuple[MaskArray, MaskArray] | None = None
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
        prediction = predict(encode_clicks(clicks, size_px, masks))
        seconds = time.perf_counter() - start
        logits = np.nan_to_num(check_logits(prediction.mask_logits), nan=-1.0)
        masks = project_mask(logits, prediction.patch)
        predicted = masks[0] > THRESHOLD_LOGIT
        iou = overlap(target, predicted).iou
        answers.append((iou, float(prediction.predicted_iou), seconds))
        if number in keep:
            kept[number] = masks[0]
        if iou >= TARGETS[-1]:
            break
    if masks is not None:
        kept |= {number: masks[0] for number in keep if number > len(clicks)}
    ious, predicted_ious, seconds_each = zip(*answers, strict=True) if answers else ((), (), ())
    return ClickRun(tuple(clicks), ious, predicted_ious, seconds_each, kept)


def encode_clicks(
    clicks: Sequence[Click], size_px: int, masks: tuple[MaskArray, MaskArray] | None
) -> EncodedPrompt:
    """Encode all clicks so far, with the last answer as the mask prompt.

    The patch was chosen for the object, so that it is known to fit.

    Args:
        masks: logits of the last answer over the HR and the LR patch; None before the first answer.
    """
    centers = np.array([(c.column + 0.5, c.row + 0.5) for c in clicks]) * (size_px / MASK_PX)
    point_coords = np.vstack([centers, np.zeros(2)]).astype(np.float32)
    point_labels = np.array(
        [*(POSITIVE if c.is_positive else NEGATIVE for c in clicks), PADDING], dtype=np.int64
    )
    kind = PromptKind.POINT if len(clicks) == 1 else PromptKind.POINTS
    encoded = EncodedPrompt(kind, point_coords, point_labels, fits_hr=True)
    if masks is None:
        return encoded
    hr_mask, lr_mask = (np.clip(m, -CLAMP_LOGIT, CLAMP_LOGIT).astype(np.float32) for m in masks)
    return replace(encoded, mask_input=hr_mask, lr_mask_input=lr_mask)
