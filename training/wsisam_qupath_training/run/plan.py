"""Describe what a training run would read, keep and take, measured here without training."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from rich.console import Console

from wsisam_qupath.inference.backends import Backend
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.progress import Progress, count_noun, duration, show_progress
from wsisam_qupath.slide.pool import MOST_OPEN

from ..dataset import Part
from ..sampling.feature_cache import count_patches
from ..settings import DecoderSettings, Recipe
from ..trainer.sample_sources import SampleSource
from ..trainer.trainer import Run
from ..trainer.training_data import (
    TrainingData,
    ViewCounts,
    fill_features,
    find_features,
    make_cached_samples,
    make_pixel_samples,
)
from .few_objects import fit_to_objects, name_sizes
from .side_by_side import PICTURED

_GIB = 1 << 30
_TILES_GIB = 32 / 1024
"""Largest size of the tiles that OpenSlide keeps per open slide, GiB."""

_SAMPLES = 3
"""Number of views that are encoded, and trained on for a moment, to measure."""


@dataclass(frozen=True)
class Planned:
    """What is known of a run before anything is measured.

    Attributes:
        views: number of views that fit.
        features: folder of the features; features that are there already take no time.
    """

    parts: Mapping[Part, TrainingData]
    views: ViewCounts
    recipe: Recipe
    base: Base
    features: Path


def describe_views(views: ViewCounts, images: int, limit_gb: float, *, folds: int = 1) -> str:
    """Say how many views are used, and why fewer than the recipe asks for.

    Args:
        folds: number of folds of a cross-validation, each of which takes its views to validate on
            out of those to train on; 1 is none.
    """
    each = f"{views.train / max(images, 1):.1f} of each image"
    text = f"{count_noun(views.train, 'view')} to train on ({each})"
    if folds == 1:
        text += f", {views.val} to validate on"
    if not views.n_bytes:
        return f"{text}; nothing is kept, as the image encoder learns."
    text = f"{text}: {views.n_bytes / _GIB:.1f} GiB of features on the disk"
    if views.train < views.wanted:
        text += (
            f". The recipe asks for {views.wanted} views; no more fit into the {limit_gb:g} GiB "
            "that features may take"
        )
    return f"{text}."


@dataclass(frozen=True)
class Measured:
    """Seconds that each piece of the work takes on this machine.

    Attributes:
        patch_s: seconds to encode a patch; 0 where no features are kept.
        patches: number of patches that are still to be encoded.
        step_s, validation_s: seconds of a step and of the validation of a view, by decoder name.
        compared_s: seconds of all questions about one object to both models; 0 where nothing is
            compared.
        compared: largest number of objects that are compared at the end.
        rounds: number of trainings of each decoder: one per fold of a cross-validation.
        curve_sizes: numbers of objects that the learning curve trains on; empty without one.
        objects: number of annotated objects that each round trains on.
    """

    patch_s: float
    patches: int
    step_s: Mapping[str, float]
    validation_s: Mapping[str, float]
    compared_s: float = 0.0
    compared: int = 0
    rounds: int = 1
    curve_sizes: Sequence[int] = ()
    objects: int = 0

    def decoder_seconds(self, name: str, recipe: Recipe) -> float:
        """Seconds to train and validate a decoder by a recipe, in all rounds."""
        settings = recipe.decoders[name]
        validations = count_validations(settings, recipe) + len(settings.measured_shares)
        per_validation = self.validation_s[name] * recipe.val_views
        once = settings.steps * self.step_s[name] + validations * per_validation
        return self.rounds * once

    def comparison_seconds(self, recipe: Recipe) -> float:
        """Seconds to compare start and result at the end, and to draw what changed."""
        objects = min(recipe.compared_objects, self.compared)
        return self.compared_s * (objects + min(PICTURED, objects))

    def worst_cases_seconds(self, recipe: Recipe) -> float:
        """Seconds to look for the worst cases of the report: each round is validated once more."""
        return self.rounds * recipe.val_views * sum(self.validation_s.values())

    def curve_seconds(self, recipe: Recipe) -> float:
        """Seconds of all learning curves, besides the training itself."""
        fitted = [fit_to_objects(recipe, size, self.objects) for size in self.curve_sizes]
        trainings = sum(self.decoder_seconds(name, one) for one in fitted for name in self.step_s)
        # Each size is asked once more in the end, and so are the start and the whole training.
        asked = (2 + len(fitted)) * self.rounds * recipe.val_views if fitted else 0
        return trainings + asked * sum(self.validation_s.values())

    def total_seconds(self, recipe: Recipe, views_share: float = 1.0) -> float:
        """Seconds of the whole run.

        Args:
            views_share: share of the views that were planned when this was measured.
        """
        decoders = sum(self.decoder_seconds(name, recipe) for name in self.step_s)
        encoding = self.patches * views_share * self.patch_s
        report = self.comparison_seconds(recipe) + self.worst_cases_seconds(recipe)
        return encoding + decoders + report + self.curve_seconds(recipe)


def measure_plan(
    planned: Planned,
    backend: Callable[[], Backend],
    make_run: Callable[[str, SampleSource], Run],
    console: Console,
) -> Measured:
    """Encode a few views and train on them for a moment, to know what the whole run takes.

    Args:
        backend: loads the base.
        make_run: makes the run of a decoder, by its name, on some views that it also validates on.
            It writes nothing.

    Returns:
        Without what the comparison in the end takes.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    decoders = planned.recipe.decoders
    few = _take_few(planned.parts["train"])
    patch_s, patches = 0.0, 0
    step_s, validation_s = {}, {}
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-") as folder:
        pixels = make_pixel_samples(few, planned.recipe, range(len(few.samples)))
        cached: SampleSource | None = None
        if any(not settings.tunes_encoder for settings in decoders.values()):
            loaded = backend()
            cached, patch_s = _measure_features(planned, few, loaded, Path(folder), console)
            patches = _count_missing_patches(planned, loaded)
        for name, settings in decoders.items():
            samples = pixels if settings.tunes_encoder or cached is None else cached
            with show_measuring(console, name):
                step_s[name], validation_s[name] = make_run(name, samples).measure_seconds()
    return Measured(patch_s, patches, step_s, validation_s)


def show_measuring(console: Console, decoder: str) -> AbstractContextManager[Progress]:
    """Show that the training of a decoder is measured, for the time of the body."""
    return show_progress(console, f"Measuring how fast {decoder} can be trained")


def describe_plan(planned: Planned, measured: Measured) -> list[str]:
    """Describe how long the whole run takes."""
    recipe = planned.recipe
    lines = [_describe_disk(planned)]
    if measured.patch_s:
        seconds = duration(measured.patches * measured.patch_s)
        lines.append(
            f"Encoding: {measured.patches} patches, about {seconds} "
            f"({measured.patch_s:.2f} s each)."
        )
    lines += [_describe_decoder(name, recipe, measured) for name in recipe.decoders]
    if seconds_compared := measured.comparison_seconds(recipe):
        objects = count_noun(min(recipe.compared_objects, measured.compared), "object")
        lines.append(
            f"Comparison with what was there before: {objects}, about {duration(seconds_compared)}."
        )
    worst_cases = duration(measured.worst_cases_seconds(recipe))
    lines.append(f"Report: looking for the worst cases, about {worst_cases}.")
    if measured.curve_sizes:
        sizes = name_sizes(measured.curve_sizes)
        lines.append(
            f"Learning curve: trainings on {sizes} too, about "
            f"{duration(measured.curve_seconds(recipe))}."
        )
    return [*lines, _describe_memory(planned)]


def count_validations(settings: DecoderSettings, recipe: Recipe) -> int:
    """Largest number of validations while a decoder is trained."""
    return -(-settings.steps // recipe.validate_every)


def _take_few(data: TrainingData) -> TrainingData:
    """Take the first whole chains of a part's views."""
    return replace(data, samples=data.samples[:_SAMPLES])


def _measure_features(
    planned: Planned, few: TrainingData, backend: Backend, folder: Path, console: Console
) -> tuple[SampleSource, float]:
    """Encode a few views, and measure the seconds per patch."""
    base, recipe = planned.base, planned.recipe
    warm_up = replace(few, samples=few.samples[:1])
    fill_features(
        warm_up, backend, base, recipe, folder=folder / "first", console=console, what="Measuring"
    )
    start = time.perf_counter()
    cache = fill_features(
        few, backend, base, recipe, folder=folder, console=console, what="Measuring"
    )
    patches = count_patches(len(few.samples), recipe.sampling.chain)
    seconds = (time.perf_counter() - start) / patches
    return make_cached_samples(few, cache, range(len(few.samples))), seconds


def _count_missing_patches(planned: Planned, backend: Backend) -> int:
    """Count the patches of both parts that have no cached features yet."""
    recipe = planned.recipe
    counts = {"train": planned.views.train, "val": planned.views.val}
    return sum(
        count_patches(counts[part], recipe.sampling.chain)
        for part, data in planned.parts.items()
        if not find_features(data, backend, planned.base, recipe, planned.features).is_dir()
    )


def _describe_decoder(name: str, recipe: Recipe, measured: Measured) -> str:
    settings = recipe.decoders[name]
    per_validation = measured.validation_s[name] * recipe.val_views
    folds = f"{measured.rounds} times " if measured.rounds > 1 else ""
    return (
        f"Decoder {name}: {folds}{settings.steps} steps and "
        f"{count_noun(count_validations(settings, recipe), 'validation')}, about "
        f"{duration(measured.decoder_seconds(name, recipe))} ({measured.step_s[name]:.2f} s a "
        f"step, {duration(per_validation)} a validation)."
    )


def _describe_disk(planned: Planned) -> str:
    there = next(path for path in (planned.features, *planned.features.parents) if path.exists())
    free = shutil.disk_usage(there).free / _GIB
    needed = planned.views.n_bytes / _GIB
    enough = "" if free > needed else " That is too little: use fewer views or another folder."
    return f"Disk: {needed:.1f} GiB in {planned.features}, where {free:.1f} GiB are free.{enough}"


def _describe_memory(planned: Planned) -> str:
    now = psutil.Process().memory_info().rss / _GIB
    slides = sum(len(data.slides) for data in planned.parts.values())
    tiles = min(slides, MOST_OPEN) * _TILES_GIB
    return (
        f"Memory: {now:.1f} GiB with the model and one step, and up to {tiles:.1f} GiB for the "
        f"slides, of which {MOST_OPEN} at most are open at a time."
    )
