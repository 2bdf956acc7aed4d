"""What a run learns from: the parts of the split, their views, and the features of those."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.inference.backends import Encoder
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.progress import show_progress
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage, Part
from ..sampling.feature_cache import FeatureCache, cache_key, count_bytes, fill_cache
from ..sampling.samples import Sample, draw_samples
from ..settings import Recipe
from ..sources.collection import Collection
from ..splits import group_by_part
from .sample_sources import CachedSamples, PixelSamples, SampleSource

_GIB = 1 << 30


@dataclass(frozen=True)
class TrainingData:
    """One part of the split.

    Attributes:
        images, slides: in the same order.
        samples: sampled from them; none where there are no fields.
    """

    images: tuple[AnnotatedImage, ...]
    slides: tuple[Slide, ...]
    samples: tuple[Sample, ...]

    @property
    def checksum(self) -> str:
        """Of everything that is looked at."""
        digest = hashlib.sha256(repr(self.samples).encode())
        for image in self.images:
            digest.update(f"{image.dataset}|{image.name}".encode())
            for truth in image.truths:
                digest.update(truth.l0_outline.wkb)
        return digest.hexdigest()


@contextmanager
def open_data(
    collection: Collection, recipe: Recipe, base: Base
) -> Iterator[Mapping[Part, TrainingData]]:
    """The training and the validation part, their slides open for the time of the body.

    Raises:
        PromptError: nothing is left to train on.
        SlideError: a slide cannot be opened.
    """
    found = group_by_part([image for image in collection.dataset.images if image.truths])
    if not found["train"]:
        raise PromptError(
            "There is nothing to train on: no object is in the training part. Check the split."
        )
    counts: dict[Part, int] = {"train": recipe.views, "val": recipe.val_views}
    with ExitStack() as stack:
        parts: dict[Part, TrainingData] = {}
        for number, (part, count) in enumerate(counts.items(), start=1):
            images = found[part]
            slides = tuple(stack.enter_context(image.slide.open()) for image in images)
            samples = draw_samples(
                images,
                slides,
                count if images else 0,
                size_px=base.size_px,
                hr_mpp=recipe.hr_mpp,
                weights=collection.weights,
                settings=recipe.sampling,
                seed=recipe.seed + number,
            )
            parts[part] = TrainingData(images, slides, tuple(samples))
        yield parts


def fill_features(
    data: TrainingData,
    encoder: Encoder,
    base: Base,
    recipe: Recipe,
    *,
    folder: Path,
    limit_gb: float,
    console: Console,
    what: str,
) -> FeatureCache:
    """Features of a part's views, computed where they are not there yet.

    Args:
        folder: of all caches.
        limit_gb: what one may occupy.
        what: is done, for the progress bar.

    Raises:
        OptionError: the views do not fit.
        OutputError: the disk is full, or cannot be written.
    """
    needed = count_bytes(len(data.samples), base, recipe.sampling)
    if needed > limit_gb * _GIB:
        raise OptionError(
            "cache_gb",
            f"the features of {len(data.samples)} views need {needed / _GIB:.1f} GiB, more than "
            f"the {limit_gb:g} allowed. Allow more, or use fewer views.",
        )
    key = cache_key(base, encoder.name, data.images, data.slides, data.samples, recipe.sampling)
    with show_progress(console, what, len(data.samples)) as progress:
        return fill_cache(
            folder / key,
            encoder,
            base,
            data.images,
            data.slides,
            data.samples,
            recipe.sampling,
            progress.advance,
        )


def make_cached_samples(
    cache: FeatureCache, data: TrainingData, without: Sequence[str]
) -> SampleSource:
    """Views of a cache, but for those of some datasets."""
    return CachedSamples(cache, _list_kept(data, without))


def make_pixel_samples(data: TrainingData, recipe: Recipe, without: Sequence[str]) -> SampleSource:
    """The same for an encoder that learns."""
    kept = [data.samples[index] for index in _list_kept(data, without)]
    return PixelSamples(data.images, data.slides, kept, recipe.sampling)


def _list_kept(data: TrainingData, without: Sequence[str]) -> list[int]:
    """Indices of the views that are of no dataset to leave out."""
    return [
        index
        for index, sample in enumerate(data.samples)
        if data.images[sample.image].dataset not in without
    ]
