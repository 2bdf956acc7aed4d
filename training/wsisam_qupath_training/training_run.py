"""The decoders of one recipe on one device: how they are trained, compared and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from wsisam_qupath.errors import PromptError, WsiSamError
from wsisam_qupath.files import cache_folder
from wsisam_qupath.inference.backends import Backend
from wsisam_qupath.inference.loading import ResolvedModel, resolve
from wsisam_qupath.model.build import read_state
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.model.weights import locate_weights
from wsisam_qupath.report.progress import show_progress

from .dataset import AnnotatedImage, Part
from .evaluate.models import PredictorModel
from .plan import Measured, Planned, describe_plan, measure_plan
from .report.page import write_report
from .report.worst_cases import (
    Case,
    WorstPrediction,
    find_worst_predictions,
    list_usable_samples,
    picture,
)
from .sampling.feature_cache import FeatureCache
from .settings import DecoderSettings, Recipe
from .train_request import TrainRequest
from .trainer.checkpoint import is_finished
from .trainer.distributed import DistributedContext
from .trainer.logs import TrainingLog
from .trainer.sample_sources import SampleSource
from .trainer.trainable_decoder import TrainableDecoder
from .trainer.trainer import OnStep, Run, TrainedDecoder
from .trainer.training_data import (
    TrainingData,
    ViewCounts,
    fill_features,
    make_cached_samples,
    make_pixel_samples,
)
from .trainer.write_adapter import WrittenAdapter
from .verdict import Judgment, judge, keep_start, measure_comparison, tell

_PICTURED = 12
"""Cases on the report."""


@dataclass(frozen=True)
class TrainingRun:
    """The decoders of one recipe, on one device."""

    request: TrainRequest
    recipe: Recipe
    model: ResolvedModel
    parts: Mapping[Part, TrainingData]
    views: ViewCounts
    context: DistributedContext
    console: Console

    @property
    def wanted(self) -> dict[str, DecoderSettings]:
        """The decoders to train, by name."""
        decoders, only = self.recipe.decoders, self.request.only
        return decoders if only is None else {only: decoders[only]}

    def encode(self) -> None:
        """Fill the caches that the decoders are trained from."""
        for settings in self.wanted.values():
            self._samples(settings)

    def train(self, name: str) -> TrainedDecoder:
        """One decoder, from its last checkpoint on."""
        settings = self.recipe.decoders[name]
        samples, val_views = self._samples(settings)
        check_views(samples, val_views)
        run = self._make_run(name, samples, val_views)
        with (
            TrainingLog(self.folder(name) / "log", is_on=not self.context.rank) as log,
            _progress(self.console, name, settings.steps) as on_step,
        ):

            def tell(step: int, row: Mapping[str, float]) -> None:
                log.add(step, row)
                on_step(step, row)

            trained = run.train(tell)
        if trained.start_share:
            self.console.print(
                f"{name}: mixed with {trained.start_share:.0%} of what training started from."
            )
        return trained

    def plan(self) -> list[str]:
        """What the run takes, in words."""
        return describe_plan(self._planned, self.measure())

    def measure(self) -> Measured:
        """What each piece of the run takes here."""

        def make_run(name: str, samples: SampleSource) -> Run:
            check_views(samples, samples)
            return self._make_run(name, samples, samples)

        measured = measure_plan(self._planned, self._load_backend, make_run, self.console)
        start, val = self._find_start(), self._list_compared()
        if start is None or not val or not self.recipe.compared_objects:
            return measured
        with show_progress(self.console, "Comparing for a moment"):
            model = self._load_compared("before", start)
            seconds = measure_comparison(val, model)
        objects = sum(len(image.truths) for image in val)
        return replace(measured, compared_s=seconds, compared=objects)

    @property
    def _planned(self) -> Planned:
        recipe = self.recipe.model_copy(update={"decoders": self.wanted})
        return Planned(self.parts, self.views, recipe, self.model.base, self._features_folder)

    def _load_backend(self) -> Backend:
        with show_progress(self.console, "Loading the model"):
            return self.model.load().backend

    def _make_run(self, name: str, samples: SampleSource, val_views: SampleSource) -> Run:
        settings = self.recipe.decoders[name]
        torch.manual_seed(self.recipe.seed)  # what WSI-SAM adds begins at random
        trainable = TrainableDecoder(self.model.base, self.base_state, settings)
        if self.model.adapter is not None:
            trainable.start_from(self.model.adapter)
        return Run(
            trainable,
            samples,
            val_views,
            self.model.base.size_px,
            self.recipe.seed,
            self.folder(name),
            self._describe_run(settings),
            self.recipe.validate_every,
            self.context,
            can_compare=bool(self.parts["val"].samples),
        )

    def collect_trained(
        self, just: Mapping[str, TrainedDecoder]
    ) -> dict[str, TrainedDecoder] | None:
        """Every decoder of the recipe, if all are finished; some were just trained."""
        decoders = self.recipe.decoders
        for name, settings in decoders.items():
            if not is_finished(self.folder(name) / "checkpoint.pt", self._describe_run(settings)):
                return None
        return {name: just.get(name) or self.train(name) for name in decoders}

    def compare(
        self, made: WrittenAdapter, images: Sequence[AnnotatedImage]
    ) -> tuple[Judgment, ...]:
        """Compare the adapter with what was there before; where it is no better, that is kept.

        That is the adapter that training started from, or the one that ships for the base.
        """
        model = self.model
        start, count = self._find_start(), self.recipe.compared_objects
        val = [image for image in images if image.part == "val" and image.truths]
        if start is None or not val or not count:
            return ()
        with show_progress(self.console, "Loading the models to compare"):
            before = self._load_compared("before", start)
            after = self._load_compared("after", made.adapter)
        judgments = judge(val, before, after, count, self.console)
        tell(judgments, start.stem, self.console)
        trained = after.predictor.adapter
        if model.adapter is None or trained is None or trained.card.tunes_encoder:
            return judgments
        if kept := keep_start(model.adapter, trained, judgments):
            self.console.print(
                f"Kept as it was, since training made nothing better there: "
                f"{', '.join(kind.value for kind in kept)}.",
                markup=False,
            )
        return judgments

    def _find_start(self) -> Path | None:
        """The adapter that the result is compared with."""
        if self.model.adapter is not None:
            return self.model.adapter.path
        return find_shipped_adapter(self.model.base.name)

    def _list_compared(self) -> list[AnnotatedImage]:
        """Images with objects that the result is compared on."""
        without = self.request.without
        return [image for image in self.parts["val"].images if image.dataset not in without]

    def _load_compared(self, name: str, adapter: Path) -> PredictorModel:
        spec = replace(self.request.model, backend="torch", adapter=adapter)
        return PredictorModel(name, resolve(spec).load())

    def report(
        self,
        made: WrittenAdapter,
        images: Sequence[AnnotatedImage],
        judgments: Sequence[Judgment],
    ) -> WrittenAdapter:
        """Write the report; without one the adapter is as good."""
        path = made.adapter.with_suffix(".report.html")
        try:
            cases = self._worst_cases(made.trained)
            with show_progress(self.console, "Writing the report"):
                write_report(
                    path,
                    self.recipe,
                    self.model.base,
                    images,
                    made.trained,
                    cases,
                    verdict=[str(judgment) for judgment in judgments],
                )
        except WsiSamError as exc:
            self.console.print(f"The adapter is written, but no report: {exc}", markup=False)
            return made
        return replace(made, report=path)

    def _worst_cases(self, trained: Mapping[str, TrainedDecoder]) -> list[Case]:
        without, val = self.request.without, self._val
        found: list[WorstPrediction] = []
        for name, result in trained.items():
            trainable = self._load_trained(name, result)
            val_views = self._samples(trainable.settings)[1]
            with show_progress(self.console, f"Looking for the worst answers of {name}"):
                found += find_worst_predictions(
                    name,
                    trainable,
                    val_views,
                    size_px=self.model.base.size_px,
                    context=self.context,
                    count=_PICTURED,
                )
        samples = list_usable_samples(val, self.recipe.sampling, without)
        worst = sorted(found, key=lambda answer: answer.dice)[:_PICTURED]
        return [picture(answer, samples[answer.sample], val) for answer in worst]

    def _load_trained(self, name: str, trained: TrainedDecoder) -> TrainableDecoder:
        """A decoder with its best weights."""
        trainable = TrainableDecoder(self.model.base, self.base_state, self.recipe.decoders[name])
        trainable.load_state_dict(trainable.state_dict() | dict(trained.state))
        return trainable.to(self.context.device)

    @cached_property
    def _val(self) -> TrainingData:
        """What decides which weights are best: views of training where there is one patient."""
        train, val = self.parts["train"], self.parts["val"]
        if val.samples:
            return val
        self.console.print(
            "No patient is left to validate on: the Dice below is that of views which are trained "
            "on. Annotate another slide to know more."
        )
        return replace(train, samples=train.samples[: self.recipe.val_views])

    @cached_property
    def base_state(self) -> dict[str, torch.Tensor]:
        """All tensors of the base's weights file."""
        weights = locate_weights(self.model.base, path=self.request.model.weights)
        return read_state(weights.path)

    def folder(self, name: str) -> Path:
        """Where a decoder's checkpoints are."""
        return self.request.run_folder / name

    @property
    def _features_folder(self) -> Path:
        return self.request.cache or cache_folder() / "training"

    def _describe_run(self, settings: DecoderSettings) -> str:
        recipe = self.recipe
        depends_on = {
            "base": self.model.base.sha256,
            "start": self.model.adapter and self.model.adapter.sha256,
            "views": {part: data.checksum for part, data in self.parts.items()},
            "without": sorted(self.request.without),
            "settings": settings.model_dump(mode="json"),
            "sampling": recipe.sampling.model_dump(mode="json"),
            "validate_every": recipe.validate_every,
            "seed": recipe.seed,
            "processes": self.context.world,
        }
        return json.dumps(depends_on, sort_keys=True)

    def _samples(self, settings: DecoderSettings) -> tuple[SampleSource, SampleSource]:
        without, recipe = self.request.without, self.recipe
        train, val = self.parts["train"], self._val
        if settings.tunes_encoder:
            return make_pixel_samples(train, recipe, without), make_pixel_samples(
                val, recipe, without
            )
        train_cache, val_cache = self._caches
        return make_cached_samples(train_cache, train, without), make_cached_samples(
            val_cache, val, without
        )

    @cached_property
    def _caches(self) -> tuple[FeatureCache, FeatureCache]:
        """Of both parts, filled; several processes wait for the first of them."""
        backend = self._load_backend()

        def fill_cache_of(part: Part, what: str) -> FeatureCache:
            return fill_features(
                self.parts[part],
                backend,
                self.model.base,
                self.recipe,
                folder=self._features_folder,
                console=self.console,
                what=what,
            )

        train = fill_cache_of("train", "Encoding views to train on")
        if not self.parts["val"].samples:
            return train, train
        return train, fill_cache_of("val", "and to validate on")


def check_views(samples: SampleSource, val_views: SampleSource) -> None:
    """Look whether there is something to learn from.

    Raises:
        PromptError: there is not.
    """
    for some, purpose in ((samples, "train on"), (val_views, "validate on")):
        if not len(some):
            raise PromptError(
                f"There is nothing to {purpose}: no view of that part holds an object. Annotate "
                "more slides or patients, use more views, or change the split."
            )


@contextmanager
def _progress(console: Console, name: str, steps: int) -> Iterator[OnStep]:
    """A bar with the loss and the last validation's Dice."""
    with show_progress(console, f"Training {name}", steps) as progress:
        dice = ""

        def on_step(step: int, row: Mapping[str, float]) -> None:
            nonlocal dice
            if "dice" in row:
                dice = f", validation Dice {row['dice']:.1f}"
                if not console.is_terminal:
                    console.print(f"{name}: step {step}{dice}")
                return
            progress.update(done=step, note=f"loss {row['loss']:.3f}{dice}")

        yield on_step
