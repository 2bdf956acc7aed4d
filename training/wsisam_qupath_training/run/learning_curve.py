"""Trainings on 1, 3, 10, 30 … of the objects, to say whether annotating more is worth it.

They share the features of the whole training: only steps and validations are new. Each is measured
on the views that the whole training is validated on, and what was measured is kept, so that a run
that was stopped goes on there.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

from wsisam_qupath.files import write_atomically
from wsisam_qupath.files.formats import LEARNING_CURVE
from wsisam_qupath.report.progress import duration, show_progress

from ..evaluate.measures import Estimate, estimate
from ..report.learning_curve import CurvePoint, LearningCurve, draw_curve
from ..trainer.trainable_decoder import TrainableDecoder
from ..trainer.trained import TrainedDecoder, choose_start_share
from ..trainer.training_data import name_usable_views
from ..trainer.validation import answer_views
from .few_objects import FewObjects, choose_few, choose_sizes, name_sizes
from .plan import Measured
from .training_run import TrainingRun

_MEASURED_VIEWS = 3
"""Number of views that are answered to measure how long the curve takes."""


class _Key(NamedTuple):
    """Names an object that is validated on."""

    dataset: str
    patient: str
    image: str
    object_id: str


_Dices: TypeAlias = Mapping[_Key, Mapping[str, float]]
"""Mean Dice by kind of prompt, 0 to 1, for each object that is validated on."""


def measure_curves(
    training: TrainingRun, trained: Mapping[str, TrainedDecoder]
) -> tuple[LearningCurve, ...]:
    """Train each decoder on ever more objects, and measure what each number taught.

    Args:
        trained: the decoders that were trained on all objects.

    Raises:
        WsiSamError: see :meth:`.Run.finish`.
    """
    if not training.can_compare:
        training.console.print(
            "No learning curve: nothing is left to measure on. It needs views of two images."
        )
        return ()
    curves = []
    for name, result in trained.items():
        curve = _CurveRun(training, name, result).measure()
        training.console.print(f"{name}: {curve.verdict}", markup=False)
        curves.append(curve)
    return tuple(curves)


def write_curves(adapter: Path, curves: Sequence[LearningCurve]) -> list[bytes]:
    """Write the curves beside an adapter, as one JSON file and a picture of each.

    Returns:
        The pictures, PNG.

    Raises:
        OutputError: one of them cannot be written.
        DeviceError: matplotlib is not installed.
    """
    content = {**LEARNING_CURVE.stated, "curves": [curve.as_json() for curve in curves]}
    path = adapter.with_suffix(".learning-curve.json")
    write_atomically(path, json.dumps(content, indent=1).encode("utf-8"))
    pictures = [draw_curve(curve) for curve in curves]
    for curve, picture in zip(curves, pictures, strict=True):
        own = f".{curve.decoder}" if len(curves) > 1 else ""
        write_atomically(adapter.with_suffix(f".learning-curve{own}.png"), picture)
    return pictures


@dataclass(frozen=True)
class _CurveRun:
    """Measures the curve of one decoder."""

    training: TrainingRun
    name: str
    whole: TrainedDecoder

    def measure(self) -> LearningCurve:
        """Train and measure each point of the curve."""
        sizes = choose_sizes(min(self._counts))
        self._tell_time(sizes)
        measured = {0: self._measure_start()}
        measured |= {size: self._measure_size(size) for size in sizes}
        measured[round(fmean(self._counts))] = self._measure_whole()
        before, last = list(measured.values())[-2:]
        gain = _estimate([_mean(last[key]) - _mean(before[key]) for key in last], list(last))
        return LearningCurve(
            self.name,
            tuple(_make_point(size, dices) for size, dices in measured.items()),
            100 * gain.mean,
            None if gain.low is None else 100 * gain.low,
            None if gain.high is None else 100 * gain.high,
            len(last),
            len(self.training.rounds),
        )

    @cached_property
    def _views(self) -> list[list[tuple[int, Sequence[str]]]]:
        """Image and object ids of the training views of each round."""
        training = self.training
        data, sampling = training.parts["train"], training.recipe.sampling
        found: list[list[tuple[int, Sequence[str]]]] = []
        for fold in training.rounds:
            named = name_usable_views(data, sampling, training.divide(fold)[0])
            found.append([(sample.image, names) for sample, names in named])
        return found

    @cached_property
    def _counts(self) -> list[int]:
        """Number of objects that the training views of each round show."""
        return [
            len({(image, name) for image, names in views for name in names})
            for views in self._views
        ]

    def _choose(self, number: int, size: int) -> FewObjects:
        """Choose the objects for a size in one round."""
        return choose_few(self._views[number], size, self._counts[number], self.training.recipe)

    def _tell_time(self, sizes: Sequence[int]) -> None:
        left = [size for size in sizes if not self._path(size).is_file()]
        if not left:
            return
        training, some = self.training, self._views[0][:_MEASURED_VIEWS]
        rows = {view: range(len(names)) for view, (_, names) in enumerate(some)}
        step_s, view_s = training.measure_steps(self.name, rows)
        measured = Measured(
            0.0, 0, {self.name: step_s}, {self.name: view_s},
            rounds=len(training.rounds), curve_sizes=tuple(left), objects=min(self._counts),
        )  # fmt: skip
        folds = f", {len(training.rounds)} times each" if training.is_cross_validated else ""
        training.console.print(
            f"Learning curve of {self.name}: {name_sizes(left)}{folds}, about "
            f"{duration(measured.curve_seconds(training.recipe))}.",
            markup=False,
        )

    def _measure_start(self) -> _Dices:
        training = self.training
        about = [training.describe_run(self.name, fold) for fold in training.rounds]
        starts = [training.load_start(self.name)] * len(about)
        return self._keep(0, about, lambda: self._ask(starts))

    def _measure_size(self, size: int) -> _Dices:
        training = self.training
        few = [self._choose(number, size) for number in range(len(training.rounds))]
        about = [
            training.describe_run(self.name, fold, own)
            for fold, own in zip(training.rounds, few, strict=True)
        ]

        def measure() -> _Dices:
            runs = [
                training.train_round(self.name, fold, own)
                for fold, own in zip(training.rounds, few, strict=True)
            ]
            shares = training.recipe.decoders[self.name].start_shares
            share = choose_start_share(runs, shares)
            return self._ask([self._load(run.mix(share)) for run in runs])

        return self._keep(size, about, measure)

    def _measure_whole(self) -> _Dices:
        decoders = self.whole.folds or (self.whole,)
        return self._ask([self._load(one) for one in decoders])

    def _load(self, trained: TrainedDecoder) -> TrainableDecoder:
        return self.training.load_trained(self.name, trained)

    def _ask(self, trainables: Sequence[TrainableDecoder]) -> _Dices:
        """Ask the decoder of each round about the objects that it was not trained on."""
        training = self.training
        found: defaultdict[_Key, defaultdict[str, list[float]]]
        found = defaultdict(lambda: defaultdict(list))
        for trainable, fold in zip(trainables, training.rounds, strict=True):
            kept = training.divide(fold)[1]
            named = name_usable_views(training.val, training.recipe.sampling, kept)
            views = training.samples(trainable.settings, fold)[1]
            with show_progress(training.console, "Measuring", len(views)) as progress:
                answers = answer_views(
                    trainable.to(training.context.device), views, trainable.settings.mix,
                    training.model.base.size_px, training.context,
                )  # fmt: skip
                for answer in answers:
                    progress.update(done=answer.view)
                    sample, names = named[answer.view]
                    image = training.val.images[sample.image]
                    for name, dice in zip(names, answer.dices, strict=False):
                        key = _Key(image.dataset, image.group, image.name, name)
                        found[key][answer.kind].append(dice)
        return {
            key: {kind: fmean(dices) for kind, dices in kinds.items()}
            for key, kinds in found.items()
        }

    def _path(self, size: int) -> Path:
        return self.training.curve_folder(self.name) / f"{size}-objects.json"

    def _keep(self, size: int, about: Sequence[str], measure: Callable[[], _Dices]) -> _Dices:
        """Read what an earlier run measured, or measure it now and keep it."""
        path, made_for = self._path(size), hashlib.sha256("\n".join(about).encode()).hexdigest()
        if (kept := _read(path, made_for)) is not None:
            return kept
        dices = measure()
        content: dict[str, Any] = {
            **LEARNING_CURVE.stated,
            "made_for": made_for,
            "dices": [[list(key), dict(kinds)] for key, kinds in dices.items()],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content).encode("utf-8"))
        return dices


def _read(path: Path, made_for: str) -> _Dices | None:
    """Read earlier measurements, if they are of the same trainings."""
    try:
        content = json.loads(path.read_bytes())
        LEARNING_CURVE.check(path, content)
        if content["made_for"] != made_for:
            return None
        return {_Key(*key): kinds for key, kinds in content["dices"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make_point(size: int, dices: _Dices) -> CurvePoint:
    mean = _estimate([_mean(kinds) for kinds in dices.values()], list(dices))
    names = next(iter(dices.values()))
    return CurvePoint(
        size,
        100 * mean.mean,
        None if mean.low is None else 100 * mean.low,
        None if mean.high is None else 100 * mean.high,
        {name: 100 * fmean(kinds[name] for kinds in dices.values()) for name in names},
    )


def _mean(kinds: Mapping[str, float]) -> float:
    return fmean(kinds.values())


def _estimate(values: Sequence[float], keys: Sequence[_Key]) -> Estimate:
    """Compute the mean and its interval over patients; over objects if there is one patient."""
    patients = [key[:2] for key in keys]
    return estimate(values, patients if len(set(patients)) > 1 else keys)
