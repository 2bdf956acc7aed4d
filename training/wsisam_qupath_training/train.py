"""What ``train`` does: read, split, cache, train each decoder, put the adapter together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from wsisam_qupath.errors import OptionError, PromptError, WsiSamError
from wsisam_qupath.files import cache_folder, check_writable
from wsisam_qupath.inference.loading import ResolvedModel, resolve
from wsisam_qupath.model.build import read_state
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.report.progress import count_noun, name_cases, show_progress

from .dataset import AnnotatedImage, Part
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
from .sources.collection import Collection
from .sources.reading import DatasetOptions, read_dataset
from .trainer.checkpoint import is_finished
from .trainer.distributed import DistributedContext, open_context, run_first_process_alone
from .trainer.logs import TrainingLog
from .trainer.sample_sources import SampleSource
from .trainer.trainable_decoder import TrainableDecoder
from .trainer.trainer import OnStep, Run, TrainedDecoder
from .trainer.training_data import (
    TrainingData,
    fill_features,
    make_cached_samples,
    make_pixel_samples,
    open_data,
)
from .trainer.write_adapter import WrittenAdapter, write_trained_adapter

_PICTURED = 12
"""Cases on the report."""


@dataclass(frozen=True)
class TrainRequest:
    """What ``train`` is asked for.

    Attributes:
        data, options: the annotated images; see :func:`.read_dataset`.
        out: the adapter; its split and report lie beside it.
        recipe: all settings.
        model: the base to train on, the adapter with the decoder that training starts from (none
            is the bare base), and where to compute.
        run: folder of the checkpoints; None is beside the adapter.
        cache: folder of the features; None is in the program's own.
        cache_gb: how much room the features of a part may take.
        without: datasets that are not trained on, by name.
        only: the decoder to train, by name; the adapter is written when all are there.
        licence: for the card.
    """

    data: Path
    out: Path
    options: DatasetOptions = field(default_factory=DatasetOptions)
    recipe: Recipe = field(default_factory=Recipe)
    model: ModelSpec = field(default_factory=lambda: ModelSpec(adapter=None))
    run: Path | None = None
    cache: Path | None = None
    cache_gb: float = 20.0
    without: tuple[str, ...] = ()
    only: str | None = None
    licence: str = ""

    @property
    def run_folder(self) -> Path:
        """Where the checkpoints are."""
        return self.run or self.out.with_suffix(".training")


def run_train(request: TrainRequest, console: Console) -> WrittenAdapter | None:
    """Train an adapter, or go on where an interrupted run stopped.

    Returns:
        What was written; None where ``only`` left other decoders to train, and in all but the
        first of several processes.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    _check(request)
    with show_progress(console, "Reading annotations"):
        collection = read_dataset(request.data, options=request.options)
    _tell(collection, console)
    _check_datasets(collection, request.without)
    model = resolve(request.model)
    with (
        open_context(request.model.device, request.model.threads) as context,
        open_data(collection, request.recipe, model.base) as parts,
    ):
        training = _Training(request, model, parts, context, console)
        names = [request.only] if request.only else list(request.recipe.decoders)
        with run_first_process_alone(
            context
        ):  # two that fill one cache would undo each other's files
            training.encode(names)
        just = {name: training.train(name) for name in names}
        if context.rank or (trained := training.collect_trained(just)) is None:
            return None
        images = tuple(f for f in collection.dataset.images if f.dataset not in request.without)
        made = write_trained_adapter(
            request.out,
            request.recipe,
            model.base,
            images,
            trained,
            base_state=training.base_state,
            licence=request.licence,
        )
        return training.report(made, images)


@dataclass(frozen=True)
class _Training:
    """The decoders of one recipe, on one device."""

    request: TrainRequest
    model: ResolvedModel
    parts: Mapping[Part, TrainingData]
    context: DistributedContext
    console: Console

    def encode(self, names: Sequence[str]) -> None:
        """Fill the caches that some decoders are trained from."""
        for name in names:
            self._samples(self.request.recipe.decoders[name])

    def train(self, name: str) -> TrainedDecoder:
        """One decoder, from its last checkpoint on."""
        settings = self.request.recipe.decoders[name]
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.request.recipe.seed)  # what WSI-SAM adds begins at random
        samples, val_views = self._samples(settings)
        _check_views(samples, val_views)
        trainable = TrainableDecoder(self.model.base, self.base_state, settings)
        if self.model.adapter is not None:
            trainable.start_from(self.model.adapter)
        run = Run(
            trainable,
            samples,
            val_views,
            self.model.base.size_px,
            self.request.recipe.seed,
            folder,
            self._describe_run(settings),
            self.request.recipe.validate_every,
            self.context,
        )
        is_first = self.context.rank == 0
        with (
            TrainingLog(folder / "log", is_on=is_first) as log,
            _progress(self.console, name, settings.steps) as on_step,
        ):

            def tell(step: int, row: Mapping[str, float]) -> None:
                log.add(step, row)
                on_step(step, row)

            return run.train(tell)

    def collect_trained(
        self, just: Mapping[str, TrainedDecoder]
    ) -> dict[str, TrainedDecoder] | None:
        """Every decoder of the recipe, if all are finished; some were just trained."""
        decoders = self.request.recipe.decoders
        for name, settings in decoders.items():
            if not is_finished(self._folder(name) / "checkpoint.pt", self._describe_run(settings)):
                return None
        return {name: just.get(name) or self.train(name) for name in decoders}

    def report(self, made: WrittenAdapter, images: Sequence[AnnotatedImage]) -> WrittenAdapter:
        """Write the report; without one the adapter is as good."""
        path = made.adapter.with_suffix(".report.html")
        try:
            cases = self._worst_cases(made.trained)
            write_report(path, self.request.recipe, self.model.base, images, made.trained, cases)
        except WsiSamError as exc:
            self.console.print(f"The adapter is written, but no report: {exc}", markup=False)
            return made
        return replace(made, report=path)

    def _worst_cases(self, trained: Mapping[str, TrainedDecoder]) -> list[Case]:
        without, val = self.request.without, self._val
        found: list[WorstPrediction] = []
        for name, result in trained.items():
            trainable = self._load_trained(name, result)
            found += find_worst_predictions(
                name,
                trainable,
                self._samples(trainable.settings)[1],
                size_px=self.model.base.size_px,
                context=self.context,
                count=_PICTURED,
            )
        samples = list_usable_samples(val, self.request.recipe.sampling, without)
        worst = sorted(found, key=lambda answer: answer.dice)[:_PICTURED]
        return [picture(answer, samples[answer.sample], val) for answer in worst]

    def _load_trained(self, name: str, trained: TrainedDecoder) -> TrainableDecoder:
        """A decoder with its best weights."""
        trainable = TrainableDecoder(
            self.model.base, self.base_state, self.request.recipe.decoders[name]
        )
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
        return replace(train, samples=train.samples[: self.request.recipe.val_views])

    @cached_property
    def base_state(self) -> dict[str, torch.Tensor]:
        """All tensors of the base's weights file."""
        return read_state(self.model.weights.path)

    def _folder(self, name: str) -> Path:
        return self.request.run_folder / name

    def _describe_run(self, settings: DecoderSettings) -> str:
        recipe = self.request.recipe
        depends_on = {
            "base": self.model.base.sha256,
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
        without, recipe = self.request.without, self.request.recipe
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
        request = self.request
        backend = self.model.load().backend

        def fill_cache_of(part: Part, what: str) -> FeatureCache:
            return fill_features(
                self.parts[part],
                backend,
                self.model.base,
                request.recipe,
                folder=request.cache or cache_folder() / "training",
                limit_gb=request.cache_gb,
                console=self.console,
                what=what,
            )

        train = fill_cache_of("train", "Encoding views to train on")
        if not self.parts["val"].samples:
            return train, train
        return train, fill_cache_of("val", "and to validate on")


def _check(request: TrainRequest) -> None:
    if request.out.suffix != ".safetensors":
        raise OptionError("out", f"{request.out} does not end in .safetensors.")
    check_writable(request.out)
    if request.only is not None and request.only not in request.recipe.decoders:
        raise OptionError(
            "only", f"{request.only} is none of the recipe's {', '.join(request.recipe.decoders)}."
        )


def _check_datasets(collection: Collection, without: Sequence[str]) -> None:
    datasets = {image.dataset for image in collection.dataset.images}
    if unknown := sorted(set(without) - datasets):
        raise OptionError(
            "without", f"{', '.join(unknown)} is none of {', '.join(sorted(datasets))}."
        )


def _check_views(samples: SampleSource, val_views: SampleSource) -> None:
    for some, purpose in ((samples, "train on"), (val_views, "validate on")):
        if not len(some):
            raise PromptError(
                f"There is nothing to {purpose}: no view of that part holds an object. Annotate "
                "more slides or patients, use more views, or change the split."
            )


def _tell(collection: Collection, console: Console) -> None:
    dataset = collection.dataset
    name_cases(console, "Left out", dataset.damaged)
    if dataset.repaired:
        console.print(
            f"Repaired {count_noun(dataset.repaired, 'outline')} that crossed themselves."
        )
    parts = [f.part for f in dataset.images]
    console.print(
        f"{count_noun(len(parts), 'image')}: {parts.count('train')} to train on, "
        f"{parts.count('val')} to validate on, {parts.count('test')} left for a test."
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
