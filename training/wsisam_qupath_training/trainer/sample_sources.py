"""Sources of training views: a cache, pixels, or some objects of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage
from ..sampling.feature_cache import CachedSample, FeatureCache
from ..sampling.samples import (
    Sample,
    SampleMasks,
    SamplingSettings,
    rasterize_targets,
    read_patches,
)
from .trainable_decoder import SampleFeatures, TrainableDecoder


class SampleSource(Protocol):
    """Gives views: from the cache of a frozen encoder, or from pixels for one that learns."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> LoadedSample:
        """Read one view from the disk; called from a thread of its own."""

    def features(
        self, loaded: LoadedSample, trainable: TrainableDecoder, device: torch.device
    ) -> SampleFeatures:
        """Make the features of a view, on the device."""


@dataclass(frozen=True)
class LoadedSample:
    """A view that was read: what its features are made from, and the objects in it.

    Attributes:
        content: what its features are made of.
        truth: the objects in it.
        least_points: see :class:`.AnnotatedImage`.
    """

    content: Any
    truth: SampleMasks
    least_points: int = 1


class CachedSamples:
    """Views of an encoder that is frozen, at least up to its early features, from its cache.

    Args:
        cache: a filled cache.
        indices: indices of the views to use; None is all with an object.
        least_points: of all views of the cache, see :class:`.AnnotatedImage`; None is one each.
    """

    def __init__(
        self,
        cache: FeatureCache,
        indices: Sequence[int] | None = None,
        least_points: Sequence[int] | None = None,
    ) -> None:
        self._cache = cache
        self._least_points = least_points
        usable = cache.usable
        self._indices = usable if indices is None else np.intersect1d(usable, list(indices))

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, index: int) -> LoadedSample:
        """See :class:`.SampleSource`."""
        own = int(self._indices[index])
        sample = self._cache.sample(own)
        least = 1 if self._least_points is None else self._least_points[own]
        return LoadedSample(sample, sample.truth, least)

    def features(
        self, loaded: LoadedSample, trainable: TrainableDecoder, device: torch.device
    ) -> SampleFeatures:
        """See :class:`.SampleSource`."""
        sample: CachedSample = loaded.content
        # Where nobody looks at the LR patch, or at what the base makes of it, it is not read.
        count = trainable.patch_count
        early = _make_tensors((sample.hr_early, sample.lr_early)[:count], device)
        if trainable.settings.lora_rank:
            return trainable.continue_from(early)
        tokens = _make_tensors((sample.hr_tokens, sample.lr_tokens)[:count], device)
        return SampleFeatures(tokens, early)


def _make_tensors(
    arrays: Sequence[NDArray[np.float16]], device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Turn the cached features of each patch into float32 tensors, with a batch of one."""
    return tuple(torch.from_numpy(a.astype(np.float32))[None].to(device) for a in arrays)


class PixelSamples:
    """Views of an encoder that learns: read and encoded at each step."""

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        slides: Sequence[Slide],
        samples: Sequence[Sample],
        settings: SamplingSettings,
    ) -> None:
        self._images = images
        self._slides = slides
        self._settings = settings
        # Masks are made again where they are needed: all at once would take a megabyte each.
        self._samples = [sample for sample in samples if len(self._rasterize(sample).hr_masks)]

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> LoadedSample:
        """See :class:`.SampleSource`."""
        sample = self._samples[index]
        image = self._images[sample.image]
        patches = read_patches(self._slides[sample.image], sample)
        return LoadedSample(patches, self._rasterize(sample), image.least_points)

    def _rasterize(self, sample: Sample) -> SampleMasks:
        return rasterize_targets(self._images[sample.image], sample, self._settings)

    def features(
        self, loaded: LoadedSample, trainable: TrainableDecoder, device: torch.device
    ) -> SampleFeatures:
        """See :class:`.SampleSource`."""
        patches: tuple[ImageArray, ImageArray] = loaded.content
        return trainable.encode([torch.from_numpy(patch).to(device)[None] for patch in patches])


class ChosenObjects:
    """Views of another source with some of their objects, as if no others were annotated.

    Args:
        source: gives the views.
        rows: places of the objects that stay, by the index of their view; other views are left out.
    """

    def __init__(self, source: SampleSource, rows: Mapping[int, Sequence[int]]) -> None:
        self._source = source
        self._rows = sorted(rows.items())

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, index: int) -> LoadedSample:
        """See :class:`.SampleSource`."""
        view, rows = self._rows[index]
        loaded = self._source.load(view)
        return replace(loaded, truth=loaded.truth.select(rows))

    def features(
        self, loaded: LoadedSample, trainable: TrainableDecoder, device: torch.device
    ) -> SampleFeatures:
        """See :class:`.SampleSource`."""
        return self._source.features(loaded, trainable, device)
