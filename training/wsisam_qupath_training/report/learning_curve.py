"""What more annotated objects taught: a curve as a picture, as JSON, and in a sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from wsisam_qupath.report.progress import count_noun

from ..plotting import encode_figure, make_figure
from .words import KINDS

_HARDLY = 1.0
"""Gain in points of Dice below which more annotations are not worth the work."""


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy after training on a number of annotated objects.

    Attributes:
        objects: number of objects trained on; 0 is before the training.
        dice: mean Dice over the kinds of prompts, on objects that were not trained on, percent.
        low, high: 95 % interval of the mean; None where there is only one object.
        kinds: mean Dice of each kind of prompt, percent.
    """

    objects: int
    dice: float
    low: float | None
    high: float | None
    kinds: dict[str, float]


@dataclass(frozen=True)
class LearningCurve:
    """The curve of one decoder.

    Attributes:
        points: points by number of objects; two or more.
        gain, gain_low, gain_high: gain of the last point over the one before, points of Dice, with
            its 95 % interval; None where there is only one object.
        measured_on: number of objects to validate on.
        folds: number of folds of a cross-validation; 1 is none.
    """

    decoder: str
    points: tuple[CurvePoint, ...]
    gain: float
    gain_low: float | None
    gain_high: float | None
    measured_on: int
    folds: int

    @property
    def verdict(self) -> str:
        """Say in a sentence whether annotating more is worth it."""
        before, last = self.points[-2:]
        span = f"from {before.objects} to {count_noun(last.objects, 'object')}"
        if self.gain_low is None or self.gain_high is None:
            return (
                f"One object alone does not tell whether more annotations help ({span} the Dice "
                f"went by {self.gain:+.1f})."
            )
        interval = f"95 % interval {self.gain_low:+.1f} to {self.gain_high:+.1f}"
        if self.gain_low > 0:
            return (
                f"More annotations are likely to help: {span} the Dice still rose by "
                f"{self.gain:.1f} ({interval})."
            )
        if self.gain_high < _HARDLY:
            return (
                f"More annotations of the same kind will hardly help: {span} the Dice went by "
                f"{self.gain:+.1f} ({interval})."
            )
        return (
            f"Whether more annotations help cannot be told: {span} the Dice went by "
            f"{self.gain:+.1f} ({interval})."
        )

    def as_json(self) -> dict[str, Any]:
        """The curve as JSON, with the sentence."""
        return {**asdict(self), "verdict": self.verdict}


def draw_curve(curve: LearningCurve) -> bytes:
    """Draw Dice by number of annotated objects, for each kind of prompt and their mean; a PNG.

    Raises:
        DeviceError: matplotlib is not installed.
    """
    figure = make_figure(7, 4, "the curve needs")
    axes: Any = figure.subplots()
    places, points = range(len(curve.points)), curve.points
    for kind, word in KINDS.items():
        if kind in points[0].kinds:
            dices = [point.kinds[kind] for point in points]
            axes.plot(places, dices, marker=".", linewidth=1, label=word)
    means = [point.dice for point in points]
    axes.plot(places, means, color="black", linewidth=2, marker=".", label="mean")
    lows = [point.dice if point.low is None else point.low for point in points]
    highs = [point.dice if point.high is None else point.high for point in points]
    axes.fill_between(places, lows, highs, color="black", alpha=0.12, linewidth=0)
    axes.set(xlabel="annotated objects to train on", ylabel="validation Dice, %", ylim=(0, 100))
    axes.set_xticks(places, [str(point.objects) for point in points])
    axes.legend(fontsize=8, loc="lower right")
    return encode_figure(figure)
