"""Judge whether a new adapter is better, measured on patients left to validate on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from wsisam_qupath.inference.shared_patches import SharedPatches
from wsisam_qupath.model.adapter import Adapter, write_adapter
from wsisam_qupath.model.card import ENCODER
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.report.progress import MessageConsole, count_noun

from ..dataset import AnnotatedImage
from ..evaluate.choosing import limit_objects
from ..evaluate.measures import Estimate, estimate
from ..evaluate.models import PredictorModel
from ..evaluate.protocol import BOX_AND_POINTS, POINT_COUNTS, ProtocolSettings, points_label
from ..evaluate.results import EvaluationResults, Score
from ..evaluate.run import evaluate_models
from ..trainer.write_adapter import copy_tensors_of

_FEWEST_OF_DATASET = 3
_MEASURED_OBJECTS = 2
"""Number of objects per dataset that are asked about to measure the time."""

QUESTIONS = ProtocolSettings(kinds=("box", "points", "box+points", "outline"))
"""The questions that both models are asked about each object."""

_LABELS: Mapping[PromptKind, tuple[str, ...]] = {
    PromptKind.BOX: ("box",),
    PromptKind.POINT: (points_label(1),),
    PromptKind.POINTS: tuple(points_label(count) for count in POINT_COUNTS if count > 1),
    PromptKind.BOX_POINTS: (BOX_AND_POINTS,),
    PromptKind.OUTLINE: ("outline",),
}
"""The questions that stand for each kind of prompt."""

_KIND_OF = {PromptKind.OUTLINE_POINTS: PromptKind.OUTLINE}
"""Kinds that are not asked, and the kind that stands for each."""

Says: TypeAlias = Literal["better", "equal", "worse"]


@dataclass(frozen=True)
class Judgment:
    """One kind of prompt, before and after training.

    Attributes:
        before, after: mean Dice of the objects before and after training, 0 to 1; each number of
            points counts the same.
        gain: gain with its 95 % interval over patients; over objects where there are fewer than two
            patients.
    """

    kind: PromptKind
    before: float
    after: float
    gain: Estimate

    @property
    def says(self) -> Says:
        """Better or worse if the whole interval is above or below 0, else equal."""
        assert self.gain.low is not None
        assert self.gain.high is not None
        if self.gain.low > 0:
            return "better"
        return "worse" if self.gain.high < 0 else "equal"

    def as_event(self) -> dict[str, object]:
        """The judgment as an event for programs."""
        gain = self.gain
        return {
            "kind": self.kind.value,
            "says": self.says,
            "before": self.before,
            "after": self.after,
            "low": gain.low,
            "high": gain.high,
        }

    def __str__(self) -> str:
        """The judgment as one line for people."""
        assert self.gain.low is not None
        assert self.gain.high is not None
        return (
            f"{self.kind.value}: {self.says} (Dice {100 * self.before:.1f} before, "
            f"{100 * self.after:.1f} after; 95 % interval of the gain "
            f"{100 * self.gain.low:+.1f} to {100 * self.gain.high:+.1f})"
        )


def ask(
    images: Sequence[AnnotatedImage],
    before: PredictorModel,
    after: PredictorModel,
    count: int,
    console: Console,
) -> EvaluationResults:
    """Ask both models, as in use, about objects that the later one was not trained on.

    Args:
        count: about how many objects to ask about; some of each dataset.

    Raises:
        PromptError: none of the images can be read.
    """
    datasets = len({image.dataset for image in images})
    chosen = limit_objects(images, max(_FEWEST_OF_DATASET, count // datasets), seed=0)
    return evaluate_models(chosen, (before, after), QUESTIONS, console)


def judge(results: Sequence[EvaluationResults], before: str, after: str) -> tuple[Judgment, ...]:
    """Judge each kind of prompt by the answers of all rounds.

    Args:
        before, after: names of the two models.
    """
    scores = [score for one in results for score in one.scores]
    return tuple(
        _judge_kind(kind, labels, scores, before, after) for kind, labels in _LABELS.items()
    )


def measure_comparison(images: Sequence[AnnotatedImage], model: PredictorModel) -> float:
    """Measure the seconds that two models take for all questions about one object.

    Args:
        model: stands for both.
    """
    chosen = limit_objects(images, _MEASURED_OBJECTS, seed=0)
    objects = sum(len(one.truths) for one in chosen)

    def ask_twice() -> float:
        shared = SharedPatches()
        both = [PredictorModel(name, model.predictor, shared) for name in ("before", "after")]
        start = time.perf_counter()
        evaluate_models(chosen, both, QUESTIONS, Console(quiet=True), resume=False)
        return time.perf_counter() - start

    # The first questions take longer, as graphs are prepared.
    return min(ask_twice(), ask_twice()) / objects


def _judge_kind(
    kind: PromptKind, labels: Sequence[str], scores: Sequence[Score], before: str, after: str
) -> Judgment:
    dices: dict[str, dict[object, list[float]]] = {
        before: defaultdict(list),
        after: defaultdict(list),
    }
    for score in scores:
        if score.label in labels and score.model in dices:
            dices[score.model][score.object_key].append(score.fit.dice)
    keys = [score.object_key for score in scores]
    objects = list(dict.fromkeys(key for key in keys if key in dices[before]))
    old, new = ([fmean(dices[model][key]) for key in objects] for model in (before, after))
    patients = [(key.dataset, key.group) for key in objects]
    groups = patients if len(set(patients)) > 1 else list(range(len(objects)))
    gain = estimate([n - o for n, o in zip(new, old, strict=True)], groups)
    if gain.low is None:  # one object: nothing can be said
        gain = Estimate(gain.mean, -1.0, 1.0, gain.objects, gain.groups)
    return Judgment(kind, fmean(old), fmean(new), gain)


def tell(judgments: Sequence[Judgment], before: str, console: Console, *, folds: int = 1) -> None:
    """Print for each kind of prompt whether it is better.

    Args:
        folds: number of folds of a cross-validation; 1 is none.
    """
    objects = count_noun(judgments[0].gain.objects, "object")
    how = describe_folds(folds) if folds > 1 else "to validate on"
    console.print(f"Compared with {before} on {objects} {how}:", markup=False)
    for judgment in judgments:
        console.print(f"  {judgment}", markup=False)
        if isinstance(console, MessageConsole) and console.progress_style == "json":
            console.print_event("comparison", **judgment.as_event())


def describe_folds(folds: int) -> str:
    """Say how the objects of a cross-validation were asked about, after the word "objects"."""
    return f"(cross-validated: {folds} trainings, each asked about images it was not trained on)"


def keep_start(start: Adapter, tuned: Adapter, judgments: Sequence[Judgment]) -> list[PromptKind]:
    """Write the adapter again, with the starting decoders where training improved nothing.

    Both have the same image encoder.

    Returns:
        The kinds of prompts that the start answers.

    Raises:
        OutputError: the file cannot be written.
    """
    better = {judgment.kind for judgment in judgments if judgment.says == "better"}
    kept = [kind for kind in PromptKind if _KIND_OF.get(kind, kind) not in better]
    if not kept:
        return []
    routes = dict(tuned.card.routes)
    decoders = dict(tuned.card.decoders)
    tensors: dict[str, NDArray[np.floating]] = {}
    if tuned.card.tunes_encoder:
        tensors |= copy_tensors_of(tuned, ENCODER, ENCODER)
    for kind in kept:
        route = start.card.routes[kind]
        second = route.second_decoder
        names = {"decoder": _rename(route.decoder), "second_decoder": second and _rename(second)}
        routes[kind] = route.model_copy(update=names)
    for adapter, rename in ((tuned, str), (start, _rename)):
        for name, decoder in adapter.card.decoders.items():
            own = rename(name)
            if any(own in {route.decoder, route.last_decoder} for route in routes.values()):
                decoders[own] = decoder
                tensors |= copy_tensors_of(adapter, name, own)
            else:
                decoders.pop(own, None)
    card = tuned.card.model_copy(update={"routes": routes, "decoders": decoders})
    write_adapter(tuned.path, card, tensors)
    return kept


def _rename(decoder: str) -> str:
    """Name a starting decoder so that it is distinct from the trained ones."""
    return f"start-{decoder}"
