"""Results of an evaluation: scores, clicks, times, and answers for pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.prompts import Prompt, Skipped

from .noc import CLICKS_MOST, ClickRun
from .outline_fit import Fit, Outline
from .protocol import ObjectKey

PICTURED_CLICKS = (1, 5, 10, CLICKS_MOST)

WHOLE_PATCH, PROMPTED_BOX = "whole patch", "box as answer"
"""Answers without a model, for comparison: the whole HR patch, and the box of the prompt."""

BASELINES = (WHOLE_PATCH, PROMPTED_BOX)


@dataclass(frozen=True)
class Score:
    """How well one answer to one question fits.

    Attributes:
        label: kind of the prompt.
        fit: fit of the answer.
        best_fit: fit of the best of all candidates, of which the answer is the first; None where
            the model gives no others.
        predicted_iou: the model's own estimate of the IoU; None where it was not asked, because
            another model's boxes had missed the object.
    """

    object_key: ObjectKey
    model: str
    label: str
    fit: Fit
    best_fit: Fit | None
    predicted_iou: float | None


@dataclass(frozen=True)
class ClickScore:
    """The clicks of one model on one object."""

    object_key: ObjectKey
    model: str
    run: ClickRun


@dataclass(frozen=True)
class Picture:
    """An answer to be drawn.

    Attributes:
        label: label of the question, or "click 5".
        l0_outline: the truth as it was compared, level-0 px.
        l0_answer: the answer, level-0 px; None is an empty one.
    """

    object_key: ObjectKey
    model: str
    label: str
    prompt: Prompt
    pair: PatchPair
    l0_outline: Outline
    l0_answer: Outline | None
    dice: float


@dataclass
class EvaluationResults:
    """All results of an evaluation.

    Attributes:
        scores, clicks: scores of all models, object by object.
        encode_s, decode_s: seconds per patch pair and per prompt, by model.
        skipped: images and objects that could not be measured, with the reason.
        pictures: answers to draw by image, where pictures are wanted.
        spare_boxes: number of boxes of the other model that belong to no object.
    """

    scores: list[Score] = field(default_factory=list)
    clicks: list[ClickScore] = field(default_factory=list)
    encode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    skipped: list[Skipped] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    spare_boxes: int = 0

    def extend(self, other: EvaluationResults) -> None:
        """Add the results of another image."""
        self.scores += other.scores
        self.clicks += other.clicks
        for own, found in ((self.encode_s, other.encode_s), (self.decode_s, other.decode_s)):
            for model, seconds in found.items():
                own[model] += seconds
        self.skipped += other.skipped
        self.pictures += other.pictures
        self.spare_boxes += other.spare_boxes
