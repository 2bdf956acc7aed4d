"""Train the decoders of one recipe on one device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from wsisam_qupath.errors import DeviceError, OutputError, PromptError
from wsisam_qupath.files import cache_folder
from wsisam_qupath.inference.backends import Backend
from wsisam_qupath.inference.loading import ResolvedModel, resolve
from wsisam_qupath.inference.shared_patches import SharedPatches
from wsisam_qupath.model.build import read_state
from wsisam_qupath.model.weights import locate_weights
from wsisam_qupath.report.progress import count_noun, show_progress

from ..dataset import AnnotatedImage, Part
from ..evaluate.models import PredictorModel
from ..sampling.feature_cache import FeatureCache
from ..settings import DecoderSettings, Recipe
from ..trainer.checkpoint import is_finished
from ..trainer.distributed import DistributedContext
from ..trainer.logs import TrainingLog
from ..trainer.sample_sources import ChosenObjects, SampleSource
from ..trainer.trainable_decoder import TrainableDecoder
from ..trainer.trained import (
    FinishedRun,
    TrainedDecoder,
    average_folds,
    choose_start_share,
)
from ..trainer.trainer import OnStep, Run
from ..trainer.training_data import (
    TrainingData,
    ViewCounts,
    fill_features,
    list_kept,
    make_cached_samples,
    make_pixel_samples,
)
from .few_objects import FewObjects, choose_sizes
from .folds import Fold
from .plan import Measured, Planned, describe_plan, measure_plan, show_measuring
from .request import TrainRequest
from .verdict import measure_comparison


@dataclass(frozen=True)
class TrainingRun:
    """The training of all decoders of one recipe, on one device."""

    request: TrainRequest
    recipe: Recipe
    model: ResolvedModel
    parts: Mapping[Part, TrainingData]
    views: ViewCounts
    context: DistributedContext
    console: Console
    folds: tuple[Fold, ...] = ()

    @property
    def wanted(self) -> dict[str, DecoderSettings]:
        """Settings of the decoders to train, by name."""
        decoders, only = self.recipe.decoders, self.request.only
        return decoders if only is None else {only: decoders[only]}

    def encode(self) -> None:
        """Fill the feature caches that the decoders are trained from."""
        for settings in self.wanted.values():
            self.samples(settings, self.rounds[0])

    def train(self, name: str) -> TrainedDecoder:
        """Train one decoder from its last checkpoint on, in each fold if there are folds."""
        runs = [self.train_round(name, fold) for fold in self.rounds]
        share = choose_start_share(runs, self.recipe.decoders[name].start_shares)
        if share:
            self.console.print(f"{name}: mixed with {share:.0%} of what training started from.")
        trained = [run.mix(share) for run in runs]
        return average_folds(trained) if self.is_cross_validated else trained[0]

    def train_round(
        self, name: str, fold: Fold | None, few: FewObjects | None = None
    ) -> FinishedRun:
        """Train one decoder from its last checkpoint on, in one fold.

        Args:
            few: objects to train on alone; None is all of them.
        """
        settings = self._choose_recipe(few).decoders[name]
        samples, val_views = self.samples(settings, fold)
        if few is not None:
            samples = ChosenObjects(samples, few.rows)
        check_views(samples, val_views)
        run = self._make_run(name, samples, val_views, fold, few)
        run.folder.mkdir(parents=True, exist_ok=True)
        what = self._name_round(name, fold, few)
        with (
            TrainingLog(run.folder / "log", is_on=not self.context.rank) as log,
            _progress(self.console, what, settings.steps) as on_step,
        ):

            def tell(step: int, row: Mapping[str, float]) -> None:
                log.add(step, row)
                on_step(step, row)

            finished = run.finish(tell)
        choosing = f"Choosing how much of the start {what} keeps"
        with show_progress(self.console, choosing, len(settings.measured_shares)) as progress:
            return run.measure_shares(finished, progress.advance)

    def _name_round(self, name: str, fold: Fold | None, few: FewObjects | None) -> str:
        number = self.rounds.index(fold) + 1
        on = "" if few is None else f" on {count_noun(len(few.objects), 'object')}"
        return f"{name}{on}" + ("" if fold is None else f", fold {number} of {len(self.rounds)}")

    def _choose_recipe(self, few: FewObjects | None) -> Recipe:
        return self.recipe if few is None else few.recipe

    def plan(self) -> list[str]:
        """Describe what the run takes."""
        return describe_plan(self._planned, self.measure())

    def measure(self) -> Measured:
        """Measure what each piece of the run takes here."""

        def make_run(name: str, samples: SampleSource) -> Run:
            check_views(samples, samples)
            return self._make_run(name, samples, samples, None)

        measured = measure_plan(self._planned, self._load_backend, make_run, self.console)
        measured = replace(measured, rounds=len(self.rounds), **self._count_curve())
        start, val = self.request.find_start(), self.list_compared()
        if start is None or not val or not self.recipe.compared_objects:
            return measured
        with show_progress(self.console, "Measuring how fast models are compared"):
            model = self.load_compared("before", start)
            seconds = measure_comparison(val, model)
        objects = sum(len(image.truths) for image in val)
        return replace(measured, compared_s=seconds, compared=objects)

    def _count_curve(self) -> dict[str, Any]:
        """Sizes of the learning curve, if wanted, and about how many objects a round has."""
        if not (self.request.learning_curve and self.can_compare):
            return {}
        data, rounds = self.parts["train"], len(self.rounds)
        without = self.request.without
        n_objects = sum(len(one.truths) for one in data.images if one.dataset not in without)
        if self.is_cross_validated:
            n_objects = n_objects * (rounds - 1) // rounds
        return {"objects": n_objects, "curve_sizes": choose_sizes(n_objects)}

    @property
    def _planned(self) -> Planned:
        recipe = self.recipe.model_copy(update={"decoders": self.wanted})
        return Planned(self.parts, self.views, recipe, self.model.base, self._features_folder)

    def _load_backend(self) -> Backend:
        with show_progress(self.console, "Loading the model"):
            return self.model.load().backend

    def load_start(self, name: str, few: FewObjects | None = None) -> TrainableDecoder:
        """Load a decoder as training starts from it."""
        torch.manual_seed(self.recipe.seed)  # what WSI-SAM adds begins at random
        settings = self._choose_recipe(few).decoders[name]
        return TrainableDecoder(self.model.base, self.base_state, settings, self.model.adapter)

    def _make_run(
        self,
        name: str,
        samples: SampleSource,
        val_views: SampleSource,
        fold: Fold | None,
        few: FewObjects | None = None,
    ) -> Run:
        return Run(
            self.load_start(name, few),
            samples,
            val_views,
            self.model.base.size_px,
            self.recipe.seed,
            self._round_folder(name, fold, few),
            self.describe_run(name, fold, few),
            self._choose_recipe(few).validate_every,
            self.context,
            can_compare=self.can_compare,
        )

    def measure_steps(self, name: str, rows: Mapping[int, Sequence[int]]) -> tuple[float, float]:
        """Measure the seconds of a step of a decoder, and of the validation of a view.

        Args:
            rows: views to measure on, and their objects; see :class:`.ChosenObjects`.
        """
        samples, _ = self.samples(self.recipe.decoders[name], self.rounds[0])
        some = ChosenObjects(samples, rows)
        with show_measuring(self.console, name):
            return self._make_run(name, some, some, None).measure_seconds()

    def collect_trained(
        self, just: Mapping[str, TrainedDecoder]
    ) -> dict[str, TrainedDecoder] | None:
        """Collect all decoders of the recipe, if all are finished."""
        decoders = self.recipe.decoders
        for name in decoders:
            for fold in self.rounds:
                checkpoint = self._round_folder(name, fold) / "checkpoint.pt"
                if not is_finished(checkpoint, self.describe_run(name, fold)):
                    return None
        return {name: just.get(name) or self.train(name) for name in decoders}

    def load_trained(self, name: str, trained: TrainedDecoder) -> TrainableDecoder:
        """Load a decoder with its best weights."""
        trainable = self.load_start(name)
        trainable.load_state_dict(trainable.state_dict() | dict(trained.state))
        return trainable.to(self.context.device)

    def list_compared(self) -> list[AnnotatedImage]:
        """List the images with objects on which the result is compared."""
        part: Part = "train" if self.is_cross_validated else "val"
        without = self.request.without
        return [image for image in self.parts[part].images if image.dataset not in without]

    def load_compared(
        self, name: str, adapter: Path, graphs_folder: Path | None = None
    ) -> PredictorModel:
        """Load an adapter as it is used, under a name for the comparison.

        Args:
            graphs_folder: see :meth:`.ResolvedModel.load`.

        Raises:
            OutputError: the graphs of the adapter cannot be kept in their folder.
        """
        model = resolve(replace(self.request.model, precision="auto", adapter=adapter))
        try:
            predictor = model.load(graphs_folder)
        except DeviceError as exc:
            if graphs_folder is None:
                raise
            raise OutputError(
                f"The adapter is written, but not compared: its graphs cannot be kept in "
                f"{graphs_folder}. Make room there, then give the same command again: it goes on "
                "from here."
            ) from exc
        return PredictorModel(name, predictor, self._shared)

    @cached_property
    def _shared(self) -> SharedPatches:
        return SharedPatches()

    @cached_property
    def rounds(self) -> tuple[Fold | None, ...]:
        """The folds that each decoder is trained in; one None without a cross-validation."""
        train = self.parts["train"]
        usable = tuple(fold for fold in self.folds if all(self._divide_views(train, fold)))
        return usable if len(usable) > 1 else (None,)

    @property
    def is_cross_validated(self) -> bool:
        """Whether each part of the data is held out once."""
        return len(self.rounds) > 1

    @property
    def can_compare(self) -> bool:
        """Whether the validation images are others than the training images."""
        return self.is_cross_validated or bool(self.parts["val"].samples)

    def _divide_views(self, train: TrainingData, fold: Fold) -> tuple[list[int], list[int]]:
        """Indices of the views that a fold trains on, and of those that it validates on."""
        without, held_out = self.request.without, set(fold.select(train.images))
        others = set(range(len(train.images))) - held_out
        held_out_views = list_kept(train, without, held_out)
        return list_kept(train, without, others), held_out_views[: self.recipe.val_views]

    def divide(self, fold: Fold | None) -> tuple[list[int], list[int]]:
        """List the views to train and to validate on; without folds the latter come from `val`."""
        train, without = self.parts["train"], self.request.without
        if fold is not None:
            return self._divide_views(train, fold)
        return list_kept(train, without), list_kept(self.val, without)

    @cached_property
    def val(self) -> TrainingData:
        """Data that decide which weights are best: training views if no part is left for it."""
        train, val = self.parts["train"], self.parts["val"]
        if val.samples:
            return val
        if self.is_cross_validated:
            return train
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
        """Folder of a decoder's checkpoints."""
        return self.request.run_folder / name

    @property
    def graphs_folder(self) -> Path:
        """Folder for the graphs of adapters that are compared once: not the user's cache.

        It is deleted in the end, so its name is none that a decoder or a user would give a folder.
        """
        return self.request.run_folder / "compared.graphs"

    def _round_folder(self, name: str, fold: Fold | None, few: FewObjects | None = None) -> Path:
        own = self.folder(name)
        if few is not None:
            own = self.curve_folder(name) / f"{len(few.objects)}-objects"
        return own if fold is None else own / f"fold-{self.rounds.index(fold) + 1}"

    def curve_folder(self, name: str) -> Path:
        """Folder of the trainings of a decoder's learning curve."""
        return self.folder(name) / "learning-curve"

    @property
    def _features_folder(self) -> Path:
        """Folder of all features; an encoder that an adapter brings has one of its own in it."""
        folder = self.request.cache or cache_folder() / "training"
        adapter = self.model.adapter
        if adapter is None or adapter.encoder_sha256 is None:
            return folder
        return folder / adapter.encoder_sha256[:24]

    def describe_run(self, name: str, fold: Fold | None, few: FewObjects | None = None) -> str:
        """Describe everything that one training of a decoder depends on, as JSON."""
        recipe = self._choose_recipe(few)
        depends_on: dict[str, Any] = {
            "base": self.model.base.sha256,
            "start": self.model.adapter and self.model.adapter.sha256,
            "views": {part: data.checksum for part, data in self.parts.items()},
            "without": sorted(self.request.without),
            "settings": recipe.decoders[name].model_dump(mode="json"),
            "sampling": recipe.sampling.model_dump(mode="json"),
            "validate_every": recipe.validate_every,
            "seed": recipe.seed,
            "processes": self.context.world,
        }
        if fold is not None:
            depends_on["held_out"] = sorted(fold.held_out)
        if few is not None:
            depends_on["objects"] = few.objects
        return json.dumps(depends_on, sort_keys=True)

    def samples(
        self, settings: DecoderSettings, fold: Fold | None
    ) -> tuple[SampleSource, SampleSource]:
        """Make the views that a decoder is trained on, and those that it is validated on."""
        train, val = self.parts["train"], self.val
        kept, val_kept = self.divide(fold)
        if settings.tunes_encoder:
            return (
                make_pixel_samples(train, self.recipe, kept),
                make_pixel_samples(val, self.recipe, val_kept),
            )
        train_cache, val_cache = self._caches
        return (
            make_cached_samples(train, train_cache, kept),
            make_cached_samples(val, val_cache, val_kept),
        )

    @cached_property
    def _caches(self) -> tuple[FeatureCache, FeatureCache]:
        """Fill the caches of both parts; further processes wait for the first one."""
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
    """Check that there are views to learn from.

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
    """Show a bar with the loss and the last validation's Dice."""
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
