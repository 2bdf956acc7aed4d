"""The data of a run: the parts of the split, their views, and the features of the views."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.inference.backends import Encoder
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.progress import show_progress
from wsisam_qupath.slide import ReaderPool, Slide

from ..dataset import AnnotatedImage, Part
from ..sampling.feature_cache import FeatureCache, cache_key, count_bytes, fill_cache
from ..sampling.random_patches import draw_random_patches
from ..sampling.samples import Sample, SamplingSettings, draw_samples, name_objects
from ..settings import Recipe
from ..sources.collection import Collection
from ..splits import group_by_part
from .sample_sources import CachedSamples, PixelSamples, SampleSource

_GIB = 1 << 30


@dataclass(frozen=True)
class TrainingData:
    """One part of the split.

    Attributes:
        images, slides: images with their slides, in the same order.
        samples: views sampled from them; none where there are no images.
    """

    images: tuple[AnnotatedImage, ...]
    slides: tuple[Slide, ...]
    samples: tuple[Sample, ...]

    @property
    def checksum(self) -> str:
        """Checksum of all pixels and objects that are looked at."""
        digest = hashlib.sha256(repr(self.samples).encode())
        for image in self.images:
            digest.update(f"{image.dataset}|{image.name}|{image.least_points}".encode())
            for truth in image.truths:
                digest.update(truth.l0_outline.wkb)
        return digest.hexdigest()


@dataclass(frozen=True)
class ViewCounts:
    """Numbers of sampled views, and the disk space of their features.

    Attributes:
        train, val: number of training and of validation views.
        wanted: number of training views that the recipe asks for; more than ``train`` if they do
            not fit.
        n_bytes: disk space of the features of both parts; 0 where none are kept.
    """

    train: int
    val: int
    wanted: int
    n_bytes: int


def count_views(
    images: int, val_images: int, recipe: Recipe, base: Base, *, limit_gb: float
) -> ViewCounts:
    """Count the views of both parts, as many as have room on the disk.

    Args:
        images, val_images: number of images with objects in each part.
        limit_gb: largest size of the features of both parts, GiB.

    Raises:
        OptionError: not even one view to train on fits beside those to validate on.
    """
    wanted = recipe.count_views(images)
    val = min(recipe.val_views, wanted) if val_images else 0
    if all(settings.tunes_encoder for settings in recipe.decoders.values()):
        return ViewCounts(wanted, val, wanted, 0)
    val_bytes = count_bytes(val, base, recipe.sampling)
    train = find_most_views(limit_gb * _GIB - val_bytes, wanted, base, recipe)
    if train < 1:
        raise OptionError(
            "cache_gb",
            f"the features of {val} views to validate on and of one to train on need more than the "
            f"{limit_gb:g} GiB allowed. Allow more, or use fewer val_views in the recipe.",
        )
    n_bytes = val_bytes + count_bytes(train, base, recipe.sampling)
    return ViewCounts(train, val, wanted, n_bytes)


def find_most_views(limit_bytes: float, wanted: int, base: Base, recipe: Recipe) -> int:
    """Find the largest number of views with features that fit into some bytes."""
    counts = range(wanted + 1)
    fits = bisect_right(
        counts, limit_bytes, key=lambda count: count_bytes(count, base, recipe.sampling)
    )
    return fits - 1


@contextmanager
def open_data(
    collection: Collection, recipe: Recipe, base: Base, *, limit_gb: float
) -> Iterator[tuple[Mapping[Part, TrainingData], ViewCounts]]:
    """Open the training and the validation part, with their slides, for the time of the body.

    A few of the slides are open at a time.

    Args:
        limit_gb: see :func:`count_views`.

    Raises:
        PromptError: nothing is left to train on.
        SlideError: a slide cannot be opened.
        OptionError: see :func:`count_views`.
    """
    found = group_by_part([image for image in collection.dataset.images if image.truths])
    if not found["train"]:
        raise PromptError(
            "There is nothing to train on: no object is in the training part. Check the split."
        )
    views = count_views(len(found["train"]), len(found["val"]), recipe, base, limit_gb=limit_gb)
    counts: dict[Part, int] = {"train": views.train, "val": views.val}
    pool = ReaderPool()
    with ExitStack() as stack:
        parts: dict[Part, TrainingData] = {}
        for number, (part, count) in enumerate(counts.items(), start=1):
            images = found[part]
            slides = tuple(stack.enter_context(image.slide.open(pool)) for image in images)
            samples = _draw(images, slides, count, recipe, base, collection.weights, number)
            parts[part] = TrainingData(images, slides, tuple(samples))
        yield parts, views


def _draw(
    images: Sequence[AnnotatedImage],
    slides: Sequence[Slide],
    count: int,
    recipe: Recipe,
    base: Base,
    weights: Mapping[str, float],
    number: int,
) -> Iterator[Sample]:
    """Draw the views of one part, as the recipe places them."""
    scale: dict[str, Any] = {"size_px": base.size_px, "hr_mpp": recipe.hr_mpp}
    same: dict[str, Any] = {**scale, "settings": recipe.sampling, "seed": recipe.seed + number}
    if recipe.sampling.placement == "random":
        return draw_random_patches(images, slides, count, **same)
    return draw_samples(images, slides, count, weights=weights, **same)


def fill_features(
    data: TrainingData,
    encoder: Encoder,
    base: Base,
    recipe: Recipe,
    *,
    folder: Path,
    console: Console,
    what: str,
) -> FeatureCache:
    """Compute the features of a part's views that are not cached yet.

    Args:
        folder: folder of all caches.
        what: what is being done, for the progress bar.

    Raises:
        OutputError: the disk is full, or cannot be written.
    """
    own = find_features(data, encoder, base, recipe, folder)
    with show_progress(console, what, len(data.samples)) as progress:
        return fill_cache(
            own,
            encoder,
            base,
            data.images,
            data.slides,
            data.samples,
            recipe.sampling,
            progress.advance,
        )


def find_features(
    data: TrainingData, encoder: Encoder, base: Base, recipe: Recipe, folder: Path
) -> Path:
    """Folder of a part's features, below the folder of all caches."""
    return folder / cache_key(
        base, encoder.name, data.images, data.slides, data.samples, recipe.sampling
    )


def list_kept(
    data: TrainingData, without: Container[str], images: Container[int] | None = None
) -> list[int]:
    """List the indices of the views of datasets that are not left out.

    Args:
        images: indices of the images to keep views of; None keeps all.
    """
    return [
        index
        for index, sample in enumerate(data.samples)
        if data.images[sample.image].dataset not in without
        and (images is None or sample.image in images)
    ]


def name_usable_views(
    data: TrainingData, settings: SamplingSettings, kept: Sequence[int]
) -> list[tuple[Sample, tuple[str, ...]]]:
    """List some views of a part that show an object, in the order in which they are used.

    Args:
        kept: indices of the views.

    Returns:
        Each view with the ids of its objects, in their order.
    """
    samples = [data.samples[index] for index in sorted(kept)]
    named = [(one, name_objects(data.images[one.image], one, settings)) for one in samples]
    return [(sample, names) for sample, names in named if names]


def make_cached_samples(
    data: TrainingData, cache: FeatureCache, kept: Sequence[int]
) -> SampleSource:
    """Make a sample source of some views of a cache, by index."""
    least_points = [data.images[sample.image].least_points for sample in data.samples]
    return CachedSamples(cache, kept, least_points)


def make_pixel_samples(data: TrainingData, recipe: Recipe, kept: Sequence[int]) -> SampleSource:
    """Make a sample source of pixels, for an encoder that learns."""
    samples = [data.samples[index] for index in kept]
    return PixelSamples(data.images, data.slides, samples, recipe.sampling)
