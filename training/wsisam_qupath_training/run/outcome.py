"""The outcome of a training: its comparison with the model before, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from wsisam_qupath.errors import WsiSamError
from wsisam_qupath.files import write_atomically
from wsisam_qupath.model.adapter import read_adapter
from wsisam_qupath.report.progress import show_progress

from ..dataset import AnnotatedImage
from ..evaluate.models import PredictorModel
from ..report.learning_curve import LearningCurve
from ..report.page import Findings, write_report
from ..report.qupath_script import write_qupath_script
from ..report.worst_cases import Case, WorstPrediction, find_worst_predictions, picture
from ..sampling.samples import Sample
from ..trainer.trained import TrainedDecoder
from ..trainer.training_data import name_usable_views
from ..trainer.write_adapter import WrittenAdapter, write_trained_adapter
from .folds import Fold
from .learning_curve import measure_curves, write_curves
from .side_by_side import ComparedRound, draw_changes
from .training_run import TrainingRun
from .verdict import Judgment, ask, judge, keep_start, tell

_PICTURED = 12
"""Number of worst cases on the report."""


@dataclass(frozen=True)
class Outcome:
    """A finished training, and the adapter that it wrote.

    Attributes:
        images: images of all parts, without the datasets that were left out.
    """

    training: TrainingRun
    made: WrittenAdapter
    images: tuple[AnnotatedImage, ...]

    @cached_property
    def compared(self) -> tuple[ComparedRound, ...]:
        """The adapter beside the one before training; none where nothing can be compared.

        Of a cross-validation, each fold's own decoders answer for the images that they have not
        seen.
        """
        training = self.training
        start, val = training.request.find_start(), training.list_compared()
        if start is None or not val or not training.recipe.compared_objects:
            return ()
        with show_progress(training.console, "Loading the model to compare with"):
            before = training.load_compared("before", start)
        return tuple(self._compare_round(fold, before, val) for fold in training.rounds)

    def judge(self) -> tuple[Judgment, ...]:
        """Judge whether the adapter is better; where it is not, the one before is kept."""
        training, start = self.training, self.training.request.find_start()
        if not self.compared or start is None:
            return ()
        results = [one.results for one in self.compared]
        judgments = judge(results, "before", "after")
        tell(judgments, start.stem, training.console, folds=len(results))
        self._keep_start(judgments)
        return judgments

    def _compare_round(
        self, fold: Fold | None, before: PredictorModel, val: Sequence[AnnotatedImage]
    ) -> ComparedRound:
        training, adapter, images = self.training, self.made.adapter, val
        if fold is not None:
            images = [val[index] for index in fold.select(val)]
            adapter = self._write_fold(training.rounds.index(fold)).adapter
        after = training.load_compared("after", adapter, training.graphs_folder)
        count = training.recipe.compared_objects // len(training.rounds)
        results = ask(images, before, after, count, training.console)
        return ComparedRound(images, before, after, results)

    def _write_fold(self, number: int) -> WrittenAdapter:
        """Write the adapter of one fold into the folder of the run."""
        training = self.training
        return write_trained_adapter(
            training.request.run_folder / f"fold-{number + 1}.safetensors",
            training.recipe,
            training.model.base,
            self.images,
            {name: trained.folds[number] for name, trained in self.made.trained.items()},
            start=training.model.adapter,
            base_state=training.base_state,
            licence=training.request.licence,
        )

    def _keep_start(self, judgments: Sequence[Judgment]) -> None:
        """Let the starting adapter answer where training improved nothing."""
        training, start = self.training, self.training.model.adapter
        if start is None:
            return
        if training.recipe.brings_encoder:
            if any(one.says != "better" for one in judgments):
                training.console.print(
                    "Nothing is kept as it was: every kind of prompt is answered from the image "
                    "encoder that learned."
                )
            return
        tuned = read_adapter(self.made.adapter, training.model.base)
        if not (kept := keep_start(start, tuned, judgments)):
            return
        training.console.print(
            f"Kept as it was, since training made nothing better there: "
            f"{', '.join(kind.value for kind in kept)}.",
            markup=False,
        )

    def report(self, judgments: Sequence[Judgment]) -> WrittenAdapter:
        """Write the report and what belongs to it; the adapter does not depend on them.

        A learning curve comes last, as it takes longest: the report is there before it.
        """
        training, made = self.training, self.made
        try:
            cases = self._picture_worst_cases()
            changes = draw_changes(self.compared, training.console) if self.compared else []
            verdict = tuple(map(str, judgments))
            findings = Findings(tuple(cases), verdict, tuple(changes), len(training.rounds))
            made = self._write_report(findings)
            if training.request.learning_curve:
                curves = measure_curves(training, self.made.trained)
                made = self._write_report(replace(findings, curves=self._write_curves(curves)))
        except WsiSamError as exc:
            lost = "no report" if made.report is None else "not all of its report"
            training.console.print(f"The adapter is written, but {lost}: {exc}", markup=False)
        return made

    def _write_curves(
        self, curves: Sequence[LearningCurve]
    ) -> tuple[tuple[LearningCurve, bytes], ...]:
        if not curves:
            return ()
        return tuple(zip(curves, write_curves(self.made.adapter, curves), strict=True))

    def _write_report(self, findings: Findings) -> WrittenAdapter:
        training, made = self.training, self.made
        path = made.adapter.with_suffix(".report.html")
        with show_progress(training.console, "Writing the report"):
            script = write_qupath_script(findings.cases)
            if script:
                own = made.adapter.with_suffix(".worst-cases.groovy")
                write_atomically(own, script.encode("utf-8"))
            base = training.model.base
            write_report(path, training.recipe, base, self.images, made.trained, findings)
        return replace(made, report=path)

    def _picture_worst_cases(self) -> list[Case]:
        found = [
            case
            for name, trained in self.made.trained.items()
            for fold, decoder in self._list_decoders(trained)
            for case in self._find_worst(name, decoder, fold)
        ]
        worst = sorted(found, key=lambda case: case[0].dice)[:_PICTURED]
        val, settings = self.training.val, self.training.recipe.sampling
        return [picture(answer, sample, val, settings) for answer, sample in worst]

    def _list_decoders(
        self, trained: TrainedDecoder
    ) -> Iterator[tuple[Fold | None, TrainedDecoder]]:
        """List the decoders that answered in each round."""
        return zip(self.training.rounds, trained.folds or (trained,), strict=True)

    def _find_worst(
        self, name: str, trained: TrainedDecoder, fold: Fold | None
    ) -> list[tuple[WorstPrediction, Sample]]:
        """Find the worst answers on the views of a round, each with its view."""
        training = self.training
        trainable = training.load_trained(name, trained)
        val_views = training.samples(trainable.settings, fold)[1]
        with show_progress(training.console, f"Looking for the worst answers of {name}"):
            found = find_worst_predictions(
                name,
                trainable,
                val_views,
                size_px=training.model.base.size_px,
                context=training.context,
                count=_PICTURED,
            )
        kept = training.divide(fold)[1]
        named = name_usable_views(training.val, training.recipe.sampling, kept)
        return [(answer, named[answer.sample][0]) for answer in found]


def conclude(
    training: TrainingRun,
    trained: Mapping[str, TrainedDecoder],
    images: tuple[AnnotatedImage, ...],
) -> WrittenAdapter:
    """Write the adapter, compare it, and write the report.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    made = write_trained_adapter(
        training.request.out,
        training.recipe,
        training.model.base,
        images,
        trained,
        start=training.model.adapter,
        base_state=training.base_state,
        licence=training.request.licence,
    )
    outcome = Outcome(training, made, images)
    try:
        return outcome.report(outcome.judge())
    finally:
        shutil.rmtree(training.graphs_folder, ignore_errors=True)
