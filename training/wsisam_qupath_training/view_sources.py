"""The two places that views come from in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wsisam_qupath.backends import ImageArray
from wsisam_qupath.slide import Slide

from .feature_cache import CachedView, FeatureCache
from .fields import Field
from .learner import Images, Learner, images_of
from .loop import Loaded
from .views import View, ViewSettings, read_patches, see


class CachedViews:
    """Views of a frozen encoder, from its cache.

    Args:
        cache: filled.
        indices: of those to use; None is all that hold an object.
    """

    def __init__(self, cache: FeatureCache, indices: Sequence[int] | None = None) -> None:
        self._cache = cache
        usable = cache.usable
        self._indices = usable if indices is None else np.intersect1d(usable, list(indices))

    def __len__(self) -> int:
        return len(self._indices)

    def load(self, index: int) -> Loaded:
        """See :class:`.Views`."""
        view = self._cache.view(int(self._indices[index]))
        return Loaded(view, view.truth)

    def images(self, loaded: Loaded, learner: Learner, device: torch.device) -> Images:
        """See :class:`.Views`."""
        view: CachedView = loaded.content
        # Where nobody looks at the LR patch it is not read from the disk.
        count = learner.patches
        tokens, early = (view.hr_tokens, view.lr_tokens), (view.hr_early, view.lr_early)
        return images_of(tokens[:count], early[:count], device)


class PixelViews:
    """Views of an encoder that learns: read and encoded at each step."""

    def __init__(
        self,
        fields: Sequence[Field],
        slides: Sequence[Slide],
        views: Sequence[View],
        settings: ViewSettings,
    ) -> None:
        self._fields = fields
        self._slides = slides
        self._settings = settings
        seen = ((view, see(fields[view.field], view, settings)) for view in views)
        self._views = [(view, truth) for view, truth in seen if len(truth.hr_masks)]

    def __len__(self) -> int:
        return len(self._views)

    def load(self, index: int) -> Loaded:
        """See :class:`.Views`."""
        view, truth = self._views[index]
        return Loaded(read_patches(self._slides[view.field], view), truth)

    def images(self, loaded: Loaded, learner: Learner, device: torch.device) -> Images:
        """See :class:`.Views`."""
        patches: tuple[ImageArray, ImageArray] = loaded.content
        return learner.encode([torch.from_numpy(patch).to(device)[None] for patch in patches])
