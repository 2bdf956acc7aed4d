"""What a run learns from: the parts of the split, their views, and the features of those."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wsisam_qupath.backends import Encoder
from wsisam_qupath.console import TASK, progress_bar
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.model.bases import Base
from wsisam_qupath.slide import Slide

from .feature_cache import FeatureCache, bytes_of, cache_key, fill_cache
from .fields import Field, Part
from .loop import Views
from .settings import Recipe
from .sources.collection import Collection
from .splits import parts_of
from .view_sources import CachedViews, PixelViews
from .views import View, sample_views

_GIB = 1 << 30


@dataclass(frozen=True)
class Material:
    """One part of the split.

    Attributes:
        fields, slides: in the same order.
        views: sampled from them; none where there are no fields.
    """

    fields: tuple[Field, ...]
    slides: tuple[Slide, ...]
    views: tuple[View, ...]

    @property
    def checksum(self) -> str:
        """Of everything that is looked at."""
        digest = hashlib.sha256(repr(self.views).encode())
        for field in self.fields:
            digest.update(f"{field.dataset}|{field.name}".encode())
            for truth in field.truths:
                digest.update(truth.l0_outline.wkb)
        return digest.hexdigest()


@contextmanager
def opened(collection: Collection, recipe: Recipe, base: Base) -> Iterator[Mapping[Part, Material]]:
    """The training and the validation part, their slides open for the time of the body.

    Raises:
        PromptError: nothing is left to train on.
        SlideError: a slide cannot be opened.
    """
    found = parts_of([field for field in collection.dataset.fields if field.truths])
    if not found["train"]:
        raise PromptError(
            "There is nothing to train on: no object is in the training part. Check the split."
        )
    counts: dict[Part, int] = {"train": recipe.views, "val": recipe.val_views}
    with ExitStack() as stack:
        parts: dict[Part, Material] = {}
        for number, (part, count) in enumerate(counts.items(), start=1):
            fields = found[part]
            slides = tuple(stack.enter_context(field.slide.open()) for field in fields)
            views = sample_views(
                fields,
                slides,
                count if fields else 0,
                size_px=base.size_px,
                hr_mpp=recipe.hr_mpp,
                weights=collection.weights,
                settings=recipe.sampling,
                seed=recipe.seed + number,
            )
            parts[part] = Material(fields, slides, tuple(views))
        yield parts


def cached(
    material: Material,
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
    needed = bytes_of(len(material.views), base, recipe.sampling)
    if needed > limit_gb * _GIB:
        raise OptionError(
            f"The features of {len(material.views)} views take {needed / _GIB:.1f} GiB, and "
            f"--cache-gb allows {limit_gb:g}. Allow more, or use fewer --views."
        )
    key = cache_key(
        base, encoder.name, material.fields, material.slides, material.views, recipe.sampling
    )
    with progress_bar(console, what, len(material.views)) as progress:
        return fill_cache(
            folder / key,
            encoder,
            base,
            material.fields,
            material.slides,
            material.views,
            recipe.sampling,
            lambda: progress.advance(TASK),
        )


def cached_views(cache: FeatureCache, material: Material, without: Sequence[str]) -> Views:
    """Views of a cache, but for those of some datasets."""
    return CachedViews(cache, _kept(material, without))


def pixel_views(material: Material, recipe: Recipe, without: Sequence[str]) -> Views:
    """The same for an encoder that learns."""
    kept = [material.views[index] for index in _kept(material, without)]
    return PixelViews(material.fields, material.slides, kept, recipe.sampling)


def _kept(material: Material, without: Sequence[str]) -> list[int]:
    """Indices of the views that are of no dataset to leave out."""
    return [
        index
        for index, view in enumerate(material.views)
        if material.fields[view.field].dataset not in without
    ]
