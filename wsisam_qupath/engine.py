"""Slide and prompts in, outlines out, as they are ready: planning, cache, prefetch, device lock."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import NamedTuple, TypeAlias, TypeVar

import shapely
from cachetools import LRUCache
from shapely.geometry import MultiPolygon, Polygon

from .backends import Embedding, ImageArray, Prediction
from .errors import OptionError
from .geometry import Box, Mpp, PatchPair
from .planning import Planner
from .polygons import area_um2, mask_to_polygon, stability_score
from .predictor import Predictor
from .prompts import Prompt
from .results import Empty, Provenance, Result, result_id
from .slide import PixelSource
from .tokens import tokens_of
from .validity import polygonal
from .version import VERSION

_PROMPTS_AT_ONCE = 8
_READ_THREADS = 2
_READ_AHEAD = 2
_MIB = 1 << 20

T = TypeVar("T")
R = TypeVar("R")

Turn: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Lets a caller wait for its turn at the device; what it raises ends the work."""


@dataclass(frozen=True)
class SegmentOptions:
    """What changes an outline, beside the prompt and the model.

    Attributes:
        object_size_um: how large the objects are that bare points mark, µm; None is unknown, and
            the pair has the scale that the weights are best at.
        simplify_um: how far a simplified outline may stray, µm.
        min_area_um2: parts and holes smaller than this are dropped and filled, µm².

    Raises:
        OptionError: a number is out of its range.
    """

    object_size_um: float | None = None
    simplify_um: float = 0.25
    min_area_um2: float = 10.0

    def __post_init__(self) -> None:
        size = self.object_size_um
        if size is not None and not (math.isfinite(size) and size > 0):
            raise OptionError(f"--object-size is {size:g} µm. Give a size above 0, e.g. 10.")
        for flag, value in (("--simplify", self.simplify_um), ("--min-area", self.min_area_um2)):
            if not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{flag} is {value:g}. Give 0 or more.")


@dataclass
class Tally:
    """What a :class:`Segmenter` did so far; seconds spent in each stage, summed over threads."""

    pairs_embedded: int = 0
    pairs_cached: int = 0
    prompts_answered: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "encode", "decode", "outline"), 0.0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the body to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start


class _Patches(NamedTuple):
    """The pixels of one pair, S x S x 3 each; no LR patch where no decoder reads it."""

    hr: ImageArray
    lr: ImageArray | None


class Segmenter:
    """Outlines what prompts point at. Safe to call from many threads.

    Locks, in the order in which they are taken: the device lock, held for one call of the
    predictor at a time, so that threads take turns; then the cache's own.

    Args:
        predictor: the model.
        cache_bytes: how much the embeddings that are kept for later prompts may occupy.
        tally: counts what is done; None for one of its own.
    """

    def __init__(
        self, predictor: Predictor, *, cache_bytes: int = 512 * _MIB, tally: Tally | None = None
    ) -> None:
        self.predictor = predictor
        self.tally = tally or Tally()
        self._embeddings: LRUCache[tuple[object, PatchPair], Embedding] = LRUCache(
            cache_bytes, getsizeof=lambda embedding: embedding.nbytes
        )
        self._device_lock = threading.Lock()
        self._cache_lock = threading.Lock()

    def planner(self, slide: PixelSource, options: SegmentOptions) -> Planner:
        """What decides on which patch pair a prompt is answered."""
        return Planner(
            slide.mpp,
            self.predictor.base.size_px,
            self.predictor.hr_mpp,
            options.object_size_um,
        )

    def segment(
        self,
        slide: PixelSource,
        prompts: Iterable[Prompt],
        options: SegmentOptions | None = None,
        *,
        turn: Turn = nullcontext,
    ) -> Generator[Result | Empty, None, None]:
        """Answer prompts, pair by pair, each answer as soon as it is there.

        Closing the iterator stops the work; until then threads may read the slide, which must
        stay open. Prompts that share a patch pair come together; else their order is kept.

        Args:
            turn: entered before each piece of work for the device, and left before its answers
                are handed out. A piece is some pairs and the first of their prompts.

        Raises:
            SlideError: the slide's pixels cannot be read.
        """
        options = options or SegmentOptions()
        planner = self.planner(slide, options)
        by_pair: dict[PatchPair, list[Prompt]] = {}
        for prompt in prompts:
            by_pair.setdefault(planner.pair(prompt), []).append(prompt)
        at_once = self.predictor.backend.pairs_at_once
        chunks = list(_chunks(list(by_pair), at_once))
        ahead = _read_ahead(lambda pairs: self._read_missing(slide, pairs), chunks)
        with closing(ahead) as read:  # at once, whatever ends this: it has threads
            for pairs, patches in zip(chunks, read, strict=True):
                embeddings: dict[PatchPair, Embedding] = {}
                for pair, some in _steps(pairs, by_pair):
                    with turn():  # both calls in one: an embedding that has to wait helps nobody
                        embeddings = embeddings or self._embed(slide, pairs, patches)
                        predictions = self._decode(pair, embeddings[pair], some)
                    for prompt, prediction in zip(some, predictions, strict=True):
                        with self.tally.timed("outline"):
                            result = self._result(slide, pair, prompt, prediction, options)
                        yield result

    def _read_missing(
        self, slide: PixelSource, pairs: Sequence[PatchPair]
    ) -> dict[PatchPair, _Patches]:
        return {p: self._read(slide, p) for p in pairs if self._cached(slide, p) is None}

    def _read(self, slide: PixelSource, pair: PatchPair) -> _Patches:
        size_px = pair.size_px
        with self.tally.timed("read"):
            hr = slide.read(pair.hr_l0_box, size_px, size_px)
            if not self.predictor.reads_lr:
                return _Patches(hr, None)
            return _Patches(hr, slide.read(pair.lr_l0_box, size_px, size_px))

    def _embed(
        self, slide: PixelSource, pairs: Sequence[PatchPair], patches: Mapping[PatchPair, _Patches]
    ) -> dict[PatchPair, Embedding]:
        """The embeddings of pairs, from the cache where another call has put them there."""
        with self._device_lock:
            found = {pair: self._cached(slide, pair) for pair in pairs}
            missing = [pair for pair, embedding in found.items() if embedding is None]
            # What the cache lost since it was asked is read only now.
            read = [patches.get(pair) or self._read(slide, pair) for pair in missing]
            if missing:
                with self.tally.timed("encode"):
                    made = self.predictor.embed(
                        [p.hr for p in read], [p.lr for p in read if p.lr is not None]
                    )
                found |= zip(missing, made, strict=True)
                self.tally.pairs_embedded += len(missing)
                self._keep(slide, dict(zip(missing, made, strict=True)))
            self.tally.pairs_cached += len(pairs) - len(missing)
        return {pair: embedding for pair, embedding in found.items() if embedding is not None}

    def _cached(self, slide: PixelSource, pair: PatchPair) -> Embedding | None:
        with self._cache_lock:
            embedding: Embedding | None = self._embeddings.get((slide.identity, pair))
            return embedding

    def _keep(self, slide: PixelSource, made: Mapping[PatchPair, Embedding]) -> None:
        with self._cache_lock:
            for pair, embedding in made.items():
                if embedding.nbytes <= self._embeddings.maxsize:
                    self._embeddings[slide.identity, pair] = embedding

    def _decode(
        self, pair: PatchPair, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[Prediction]:
        tokens = [tokens_of(prompt, pair) for prompt in prompts]
        with self._device_lock, self.tally.timed("decode"):
            predictions = self.predictor.predict(embedding, tokens)
            self.tally.prompts_answered += len(prompts)
        return predictions

    def _result(
        self,
        slide: PixelSource,
        pair: PatchPair,
        prompt: Prompt,
        prediction: Prediction,
        options: SegmentOptions,
    ) -> Result | Empty:
        l0_geometry = mask_to_polygon(
            prediction.mask_logits,
            pair,
            simplify_um=options.simplify_um,
            min_area_um2=options.min_area_um2,
        )
        if l0_geometry is not None:
            l0_geometry = _inside(l0_geometry, slide.l0_box)
        provenance = self._provenance(prompt, pair)
        answer = answer_id(
            prompt,
            slide.mpp,
            options,
            base_sha256=provenance.base_sha256,
            adapter_sha256=provenance.adapter_sha256,
        )
        if l0_geometry is None:
            return Empty(prompt, answer, "the model sees no object there")
        return Result(
            prompt=prompt,
            id=answer,
            l0_geometry=l0_geometry,
            predicted_iou=prediction.predicted_iou,
            stability_score=stability_score(prediction.mask_logits),
            area_um2=area_um2(l0_geometry, slide.mpp),
            provenance=provenance,
        )

    def _provenance(self, prompt: Prompt, pair: PatchPair) -> Provenance:
        base, adapter = self.predictor.base, self.predictor.adapter
        with_lr = self.predictor.answers_with_lr(prompt.kind)
        return Provenance(
            base=base.name,
            base_sha256=base.sha256,
            adapter=adapter.name if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            hr_mpp=pair.hr_mpp,
            lr_mpp=2 * pair.hr_mpp if with_lr else None,
            version=VERSION,
        )


def answer_id(
    prompt: Prompt,
    mpp: Mpp,
    options: SegmentOptions,
    *,
    base_sha256: str,
    adapter_sha256: str | None,
) -> str:
    """The id that the result of a prompt will have; known before it is computed.

    Args:
        mpp: of the slide's level 0.
    """
    settings = {**asdict(options), "mpp_x": mpp.x, "mpp_y": mpp.y}
    return result_id(prompt, base_sha256, adapter_sha256, settings)


def _inside(l0_geometry: Polygon | MultiPolygon, l0_box: Box) -> Polygon | MultiPolygon | None:
    """What of an outline lies on the slide: a patch may reach over its edge."""
    cut = polygonal(shapely.intersection(l0_geometry, shapely.box(*l0_box.corners().ravel())))
    return None if cut.is_empty else cut


def _steps(
    pairs: Iterable[PatchPair], by_pair: Mapping[PatchPair, Sequence[Prompt]]
) -> Iterator[tuple[PatchPair, Sequence[Prompt]]]:
    """Pairs with as many of their prompts as are answered at once."""
    for pair in pairs:
        for some in _chunks(by_pair[pair], _PROMPTS_AT_ONCE):
            yield pair, some


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read_ahead(read: Callable[[T], R], items: Sequence[T]) -> Generator[R, None, None]:
    """Results of ``read`` in order, while the next few are read in threads."""
    remaining = iter(items)
    with ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="slide-reader") as threads:
        pending: deque[Future[R]] = deque(
            threads.submit(read, item) for item in islice(remaining, _READ_AHEAD)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(threads.submit(read, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
