"""Pictures of the objects that training changed most: the truth, before and after."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console

from wsisam_qupath.errors import SlideError

from ..dataset import AnnotatedImage
from ..evaluate.choosing import SelectedObjects
from ..evaluate.figures import draw_sheet
from ..evaluate.models import PredictorModel
from ..evaluate.protocol import ObjectKey, make_object_key
from ..evaluate.results import EvaluationResults
from ..evaluate.run import evaluate_models
from ..report.changes import Change
from .verdict import QUESTIONS

PICTURED = 6
"""Number of pictured objects: half gained most, half lost most or gained least."""


@dataclass(frozen=True)
class ComparedRound:
    """Both models of one round, and their answers.

    Attributes:
        images: the images that they were asked about.
    """

    images: Sequence[AnnotatedImage]
    before: PredictorModel
    after: PredictorModel
    results: EvaluationResults


@dataclass(frozen=True)
class _Gain:
    """The gain of one object.

    Attributes:
        dice: mean gain over all questions.
        label: the question with the largest gain, or the largest loss if the mean is a loss.
    """

    object_key: ObjectKey
    dice: float
    label: str


def draw_changes(rounds: Sequence[ComparedRound], console: Console) -> list[Change]:
    """Ask both models again about the objects that changed most, and draw the answers.

    Returns:
        The largest gain first. None of an image that cannot be read any more.

    Raises:
        OutputError: see :func:`.evaluate_models`.
    """
    gains = [(gain, one) for one in rounds for gain in _list_gains(one)]
    gains.sort(key=lambda pair: -pair[0].dice)
    half = PICTURED // 2
    chosen = gains if len(gains) <= PICTURED else [*gains[:half], *gains[-half:]]
    drawn = {
        gain.object_key: change
        for one in rounds
        if (own := [gain for gain, of in chosen if of is one])
        for gain, change in zip(own, _draw_round(one, own, console), strict=True)
        if change is not None
    }
    return [drawn[gain.object_key] for gain, _ in chosen if gain.object_key in drawn]


def _list_gains(one: ComparedRound) -> list[_Gain]:
    dices: defaultdict[ObjectKey, defaultdict[str, dict[str, float]]]
    dices = defaultdict(lambda: defaultdict(dict))
    for score in one.results.scores:
        dices[score.object_key][score.label][score.model] = score.fit.dice
    return [_find_gain(one, key, labels) for key, labels in dices.items()]


def _find_gain(one: ComparedRound, key: ObjectKey, labels: dict[str, dict[str, float]]) -> _Gain:
    before, after = one.before.name, one.after.name
    gains = {label: dices[after] - dices[before] for label, dices in labels.items()}
    mean = fmean(gains.values())
    sign = 1 if mean > 0 else -1
    return _Gain(key, mean, max(gains, key=lambda label: sign * gains[label]))


def _draw_round(
    one: ComparedRound, gains: Sequence[_Gain], console: Console
) -> list[Change | None]:
    """Draw the objects of one round, in the order of their gains."""
    wanted = {gain.object_key for gain in gains}
    selected = [
        SelectedObjects(
            image, tuple(t for t in image.truths if make_object_key(image, t) in wanted)
        )
        for image in one.images
    ]
    asked = [each for each in selected if each.truths]
    models = (one.before, one.after)
    results = evaluate_models(asked, models, QUESTIONS, console, with_pictures=True, resume=False)
    images = {(image.dataset, image.name): image for image in one.images}
    return [_draw_change(one, gain, results, images[_place(gain)]) for gain in gains]


def _place(gain: _Gain) -> tuple[str, str]:
    return gain.object_key.dataset, gain.object_key.field


def _draw_change(
    one: ComparedRound, gain: _Gain, results: EvaluationResults, image: AnnotatedImage
) -> Change | None:
    pictures = [
        picture
        for picture in results.pictures
        if picture.object_key == gain.object_key and picture.label == gain.label
    ]
    models = (one.before.name, one.after.name)
    if len(pictures) < len(models):  # the image could not be read any more
        return None
    try:
        with image.slide.open() as slide:
            sheet = draw_sheet(slide, pictures, models)
    except SlideError:  # it was readable a moment ago; the report is good without it
        return None
    encoded = io.BytesIO()
    sheet.save(encoded, format="JPEG", quality=88)
    dices = {picture.model: 100 * picture.dice for picture in pictures}
    before, after = (dices[model] for model in models)
    key = gain.object_key
    return Change(
        key.dataset, key.field, key.object_id, gain.label, before, after, encoded.getvalue()
    )
