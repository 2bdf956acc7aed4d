"""Encoded patches in memory that several models with the same encoder share."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING

from cachetools import LRUCache

from .. import __version__
from ..geometry import Box
from ..model.adapter import Adapter, identify_encoder
from ..model.bases import Base
from ..slide import PixelSource
from .backends import Backend, EncodedPatch

if TYPE_CHECKING:
    from .predictor import Predictor

_MIB = 1 << 20


class SharedPatches:
    """Keeps what encoders made of patches, for other models. Safe to call from many threads.

    Give it to the :class:`.Segmenter` of each model. Only models with the same encoder on the same
    backend find each other's patches, so that nobody's answers change.

    Args:
        cache_bytes: most memory that the patches may occupy; those that were not used for longest
            go first.
    """

    def __init__(self, cache_bytes: int = 512 * _MIB) -> None:
        self._patches: LRUCache[Hashable, EncodedPatch] = LRUCache(cache_bytes, _count_bytes)
        self._lock = threading.Lock()

    def find(
        self, predictor: Predictor, slide: PixelSource, l0_box: Box, size_px: int
    ) -> EncodedPatch | None:
        """Find a patch that was encoded as this model would encode it.

        Args:
            l0_box: what the patch shows, level-0 px.
        """
        with self._lock:
            found: EncodedPatch | None = self._patches.get(
                _make_key(predictor, slide, l0_box, size_px)
            )
        return found

    def keep(
        self,
        predictor: Predictor,
        slide: PixelSource,
        l0_box: Box,
        size_px: int,
        patch: EncodedPatch,
    ) -> None:
        """Keep a patch that this model encoded, or found, unless it is larger than the limit."""
        with self._lock:
            if _count_bytes(patch) <= self._patches.maxsize:
                self._patches[_make_key(predictor, slide, l0_box, size_px)] = patch


def name_encoder(backend: Backend, base: Base, adapter: Adapter | None) -> str:
    """Name an encoder so that what has the same name gives the same numbers.

    Args:
        adapter: counts only where it brings an encoder of its own.
    """
    # Another version of this program may read pixels in another way.
    return "|".join((__version__, *identify_encoder(base, adapter), backend.name))


def name_place(l0_box: Box) -> str:
    """Name what a patch shows, the same for a patch that two pairs have in common."""
    corners = (l0_box.x0, l0_box.y0, l0_box.x1, l0_box.y1)
    return " ".join(f"{corner:.3f}" for corner in corners)


def _make_key(predictor: Predictor, slide: PixelSource, l0_box: Box, size_px: int) -> Hashable:
    encoder = name_encoder(predictor.backend, predictor.base, predictor.adapter)
    is_rounded = predictor.stored is not None  # as it is on the disk
    return encoder, is_rounded, slide.identity, name_place(l0_box), size_px


def _count_bytes(patch: EncodedPatch) -> int:
    return int(patch.tokens.nbytes + patch.early.nbytes)
