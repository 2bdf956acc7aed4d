"""What a training run would read, keep and take, measured on this machine without training."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from rich.console import Console

from wsisam_qupath.inference.backends import Backend
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.progress import count_noun, duration, show_progress
from wsisam_qupath.slide.pool import MOST_OPEN

from .dataset import Part
from .sampling.feature_cache import count_patches
from .settings import DecoderSettings, Recipe
from .trainer.sample_sources import SampleSource
from .trainer.trainer import Run
from .trainer.training_data import (
    TrainingData,
    ViewCounts,
    fill_features,
    find_features,
    make_cached_samples,
    make_pixel_samples,
)

_GIB = 1 << 30
_TILES_GIB = 32 / 1024
"""What OpenSlide keeps of each open slide, at most."""

_SAMPLES = 3
"""Views that are encoded, and trained on for a moment, to measure."""


@dataclass(frozen=True)
class Planned:
    """What is known before anything is measured.

    Attributes:
        views: how many fit.
        features: folder of the features; those that are there already need no time.
    """

    parts: Mapping[Part, TrainingData]
    views: ViewCounts
    recipe: Recipe
    base: Base
    features: Path


def describe_views(views: ViewCounts, images: int, limit_gb: float) -> str:
    """How many views are used, in words, and why not as many as the recipe asks for."""
    each = f"{views.train / max(images, 1):.1f} of each image"
    text = f"{count_noun(views.train, 'view')} to train on ({each}), {views.val} to validate on"
    if not views.n_bytes:
        return f"{text}; nothing is kept, as the image encoder learns."
    text = f"{text}: {views.n_bytes / _GIB:.1f} GiB of features on the disk"
    if views.train < views.wanted:
        text += (
            f". The recipe asks for {views.wanted} views; no more fit into the {limit_gb:g} GiB "
            "that features may take"
        )
    return f"{text}."


def measure_plan(
    planned: Planned,
    backend: Callable[[], Backend],
    make_run: Callable[[str, SampleSource], Run],
    console: Console,
) -> list[str]:
    """Encode a few views, train on them for a moment, and tell what the whole run takes.

    Args:
        backend: loads the base.
        make_run: of a decoder, by its name, on some views that it also validates on. Nothing of it
            is written.

    Raises:
        WsiSamError: see the modules that each step comes from.
    """
    lines: list[str] = []
    decoders = planned.recipe.decoders
    few = _take_few(planned.parts["train"])
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-") as folder:
        pixels = make_pixel_samples(few, planned.recipe, ())
        cached: SampleSource | None = None
        if any(not settings.tunes_encoder for settings in decoders.values()):
            loaded = backend()
            cached, lines = _measure_features(planned, few, loaded, Path(folder), console)
        for name, settings in decoders.items():
            samples = pixels if settings.tunes_encoder or cached is None else cached
            with show_progress(console, f"Training {name} for a moment"):
                lines.append(_measure_decoder(name, settings, make_run(name, samples), planned))
    lines.insert(0, _describe_disk(planned))
    lines.append(_describe_memory(planned))
    return lines


def _take_few(data: TrainingData) -> TrainingData:
    """The first whole chains of a part's views."""
    return replace(data, samples=data.samples[:_SAMPLES])


def _measure_features(
    planned: Planned, few: TrainingData, backend: Backend, folder: Path, console: Console
) -> tuple[SampleSource, list[str]]:
    """Features of a few views, and how long those of all take."""
    base, recipe = planned.base, planned.recipe
    warm_up = replace(few, samples=few.samples[:1])
    fill_features(
        warm_up, backend, base, recipe, folder=folder / "first", console=console, what="Measuring"
    )
    start = time.perf_counter()
    cache = fill_features(
        few, backend, base, recipe, folder=folder, console=console, what="Measuring"
    )
    chain = recipe.sampling.chain
    seconds = (time.perf_counter() - start) / count_patches(len(few.samples), chain)
    counts = {"train": planned.views.train, "val": planned.views.val}
    patches = sum(
        count_patches(counts[part], chain)
        for part, data in planned.parts.items()
        if not find_features(data, backend, base, recipe, planned.features).is_dir()
    )
    line = (
        f"Encoding: {patches} patches, about {duration(patches * seconds)} ({seconds:.2f} s each)."
    )
    return make_cached_samples(cache, few, ()), [line]


def _measure_decoder(name: str, settings: DecoderSettings, run: Run, planned: Planned) -> str:
    step, validation = run.measure_seconds()
    validations = -(-settings.steps // planned.recipe.validate_every)
    per_validation = validation * planned.recipe.val_views
    total = settings.steps * step + validations * per_validation
    return (
        f"Decoder {name}: {settings.steps} steps and {count_noun(validations, 'validation')}, "
        f"about {duration(total)} ({step:.2f} s a step, {duration(per_validation)} a validation)."
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
