"""Patches of slides that were encoded in earlier runs, by this adapter or another one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..geometry import Box, PatchPair
from ..model.adapter import Adapter
from ..model.bases import Base
from ..slide import PixelSource, SlideIdentity
from .backends import Backend, Encoded, EncodedPatch, Patches
from .embedding_store import EmbeddingStore
from .shared_patches import name_encoder, name_place


class StoredPatches:
    """Finds encoded patches on the disk, and keeps new ones there.

    Only patches of files are kept, and not of pixels that a client sent. A new patch is rounded as
    a kept one is before anything is computed from it, so that both give the same outlines.

    Args:
        store: files of the patches.
        backend: encodes patches.
        base, adapter: the adapter counts only where it brings an encoder of its own.
    """

    def __init__(
        self, store: EmbeddingStore, backend: Backend, base: Base, adapter: Adapter | None
    ) -> None:
        self._store = store
        self._backend = backend
        self._encoder = name_encoder(backend, base, adapter)

    def holds(self, slide: PixelSource, pair: PatchPair, count: int) -> bool:
        """Whether the first patches of a pair are kept."""
        keys = [self._make_key(slide, box, pair.size_px) for box in pair.l0_boxes[:count]]
        return all(key is not None and self._store.holds(key) for key in keys)

    def find(self, slide: PixelSource, l0_box: Box, size_px: int) -> EncodedPatch | None:
        """Read a patch that is kept. May be called from any thread.

        Args:
            l0_box: what the patch shows, level-0 px.
        """
        key = self._make_key(slide, l0_box, size_px)
        encoded = None if key is None else self._store.find(key)
        return None if encoded is None else self._backend.take(encoded)

    def encode(
        self, slide: PixelSource, pairs: Sequence[PatchPair], patches: Sequence[Patches]
    ) -> list[Patches]:
        """Encode the patches of pairs that are still pixels, in one call, and keep them."""
        places = [
            (self._make_key(slide, l0_box, pair.size_px), source)
            for pair, sources in zip(pairs, patches, strict=True)
            for l0_box, source in zip(pair.l0_boxes, sources, strict=False)
            if not isinstance(source, EncodedPatch)
        ]
        new = [(key, source) for key, source in places if key is not None]
        if not new:
            return list(patches)
        tokens, early = self._backend.encode([source for _, source in new])
        kept = (
            self._store.keep(key, Encoded(tokens[index : index + 1], early[index : index + 1]))
            for index, (key, _) in enumerate(new)
        )
        made = map(self._backend.take, kept)
        return [
            tuple(one if isinstance(one, EncodedPatch) else next(made) for one in sources)
            for sources in patches
        ]

    def _make_key(self, slide: PixelSource, l0_box: Box, size_px: int) -> str | None:
        """Name a patch by its content and what encodes it; None where it must not be kept."""
        identity = slide.identity
        if not isinstance(identity, SlideIdentity) or not identity.mtime_ns:
            return None  # pixels of a client, or a file that nobody can tell from a later one
        named = f"{self._encoder}|{identity}|{name_place(l0_box)}|{size_px}"
        return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:40]
