"""Slide and prompts in, outlines out, as they are ready: planning, cache, prefetch, device lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeVar

from cachetools import LRUCache

from .. import __version__
from ..geojson import prompts_from_coordinates
from ..geometry import Box, PatchPair
from ..geometry.polygons import area_um2
from ..options import OutlineOptions
from ..prompts import Point, Prompt, clip_to_slide, require_all_usable
from ..prompts.encoding import encode_prompt
from ..prompts.planner import Planner
from ..prompts.results import Candidate, Empty, Provenance, Result
from ..slide import PixelSource
from .answers import Answer, Outline, Question, choose_answer
from .backends import Embedding, EncodedPatch, Patches, Prediction
from .chosen import ChosenModel
from .predictor import Predictor
from .read_ahead import Check, go_on, read_ahead
from .shared_patches import SharedPatches
from .tally import Tally

PROMPTS_AT_ONCE, _POINTS_AT_ONCE = 8, 256
"""Largest piece of work for the device, in prompts and points: others wait meanwhile, and nobody
can interrupt it."""

_MIB = 1 << 20

T = TypeVar("T")

Turn: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Lets a caller wait for its turn at the device; what it raises ends the work."""

_Wanted: TypeAlias = tuple[PatchPair, int]
"""A pair, and how many of its patches are wanted."""


class Segmenter:
    """Outlines what prompts point at. Safe to call from many threads.

    Locks, in the order in which they are taken: the device lock, held for one call of the
    predictor at a time, so that threads take turns; then the cache's own.

    Args:
        predictor: the loaded model.
        cache_bytes: most memory that embeddings kept for later prompts may occupy.
        tally: counts what is done; None makes a new one.
        shared: encoded patches that other models may have left, and find in turn.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        cache_bytes: int = 512 * _MIB,
        tally: Tally | None = None,
        shared: SharedPatches | None = None,
    ) -> None:
        self.predictor = predictor
        self._shared = shared
        self.tally = tally or Tally()
        self._embeddings: LRUCache[tuple[object, PatchPair], Embedding] = LRUCache(
            cache_bytes, getsizeof=lambda embedding: embedding.nbytes
        )
        self._device_lock = threading.Lock()
        self._cache_lock = threading.Lock()

    @property
    def model(self) -> ChosenModel:
        """The base and the adapter that are loaded."""
        predictor = self.predictor
        precision = predictor.backend.precision
        return ChosenModel(predictor.base, predictor.adapter, precision=precision)

    def planner(self, slide: PixelSource, options: OutlineOptions) -> Planner:
        """Choose the patch pairs of prompts on a slide."""
        return self.model.planner(slide.mpp, options)

    def plan_patches(
        self, slide: PixelSource, prompts: Iterable[Prompt], options: OutlineOptions
    ) -> dict[PatchPair, int]:
        """See :meth:`.ChosenModel.plan_patches`."""
        return self.model.plan_patches(self.planner(slide, options), prompts)

    def segment(
        self,
        slide: PixelSource,
        prompts: Iterable[Prompt] = (),
        options: OutlineOptions | None = None,
        *,
        boxes: Iterable[tuple[float, float, float, float]] = (),
        points: Iterable[Point] = (),
        negatives: Iterable[Point] = (),
        turn: Turn = nullcontext,
        check: Check = go_on,
    ) -> Generator[Result | Empty, None, None]:
        """Outline what prompts mark, and yield each result as soon as it is ready.

        Closing the iterator stops the work; until then threads may read the slide, which must
        stay open. Prompts that share a patch pair come together; otherwise their order is kept.

        Args:
            prompts: prompts from :func:`.read_prompts`, or made in Python.
            boxes: rectangles around objects, two opposite corners each: (x0, y0, x1, y1),
                level-0 px.
            points, negatives: points inside and outside of objects, (x, y), level-0 px. Those in
                a box belong to it; the others mark one object, or one object each with
                ``OutlineOptions(points_as="each")``.
            turn: entered before each piece of work for the device, and left before its results
                are yielded. A piece is some pairs and the first of their prompts.
            check: called while pixels are waited for; what it raises ends the work.

        Raises:
            SlideError: the slide's pixels cannot be read.
            PromptError: a box or a point lies outside of the slide.
        """
        options = options or OutlineOptions()
        planner = self.planner(slide, options)
        marked = prompts_from_coordinates(
            boxes,
            points,
            negatives,
            points_as=options.points_as,
            hr_l0_box_of=planner.hr_l0_box,
        )
        marked = require_all_usable(clip_to_slide(marked, slide.l0_box))
        by_pair: dict[PatchPair, list[Question]] = {}
        for prompt in (*prompts, *marked):
            pair = planner.pair(prompt)
            question = Question(prompt, planner.fits_hr(prompt, pair))
            by_pair.setdefault(pair, []).append(question)
        while by_pair:
            coarser: dict[PatchPair, list[Question]] = {}
            for pair, question, predictions in self._predict(slide, by_pair, turn, check):
                with self.tally.measure_time("outline"):
                    answer = choose_answer(slide, pair, question, predictions, options)
                    if answer is None:
                        asked = question.keep(pair, predictions)
                        coarser.setdefault(pair.coarser, []).append(asked)
                        continue
                    result = self._make_result(slide, question, answer, options)
                yield result
            by_pair = coarser

    def embed_pairs(
        self,
        slide: PixelSource,
        pairs: Iterable[PatchPair],
        *,
        patch_count: int = 1,
        turn: Turn = nullcontext,
        check: Check = go_on,
    ) -> Generator[tuple[PatchPair, Embedding], None, None]:
        """Encode patches of pairs, and yield the pairs one after the other.

        Args:
            pairs: pairs to encode, taken one by one, a few ahead of what is yielded.
            patch_count: 1 is the HR patch of each pair alone, 2 is both.
            turn, check: see :meth:`segment`.

        Raises:
            SlideError: the slide's pixels cannot be read.
        """
        wanted = ((pair, patch_count) for pair in pairs)
        with closing(self._read_chunks(slide, wanted, check)) as read:
            for chunk, patches in read:
                with turn():
                    embeddings = self._embed(slide, chunk, patches)
                yield from embeddings.items()

    def answer(
        self, pair: PatchPair, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[tuple[Prediction, ...]]:
        """Answer prompts on the HR patch of a pair, whatever pair is planned for them.

        Returns:
            For each prompt its masks, the one with the highest predicted IoU first.
        """
        return self._decode(pair, embedding, [Question(one, fits_hr=True) for one in prompts])

    def _predict(
        self,
        slide: PixelSource,
        by_pair: Mapping[PatchPair, Sequence[Question]],
        turn: Turn,
        check: Check,
    ) -> Generator[tuple[PatchPair, Question, tuple[Prediction, ...]], None, None]:
        """Predict the masks that answer each question on its pair."""
        wanted = [(pair, self._count_patches(questions)) for pair, questions in by_pair.items()]
        with closing(self._read_chunks(slide, wanted, check)) as read:
            for chunk, patches in read:
                embeddings: dict[PatchPair, Embedding] = {}
                for pair, some in _iterate_steps([pair for pair, _ in chunk], by_pair):
                    with turn():  # both calls in one: an embedding that has to wait helps nobody
                        embeddings = embeddings or self._embed(slide, chunk, patches)
                        answers = self._decode(pair, embeddings[pair], some)
                    for question, predictions in zip(some, answers, strict=True):
                        yield pair, question, predictions

    def _count_patches(self, questions: Iterable[Question]) -> int:
        """Count how many patches of their pair the decoders of these questions look at."""
        return max(
            self.model.count_patches(question.prompt.kind, fits_hr=question.fits_hr)
            for question in questions
        )

    def _read_chunks(
        self, slide: PixelSource, wanted: Iterable[_Wanted], check: Check
    ) -> Generator[tuple[Sequence[_Wanted], dict[PatchPair, Patches]], None, None]:
        """Yield chunks of pairs that are encoded at once, with the patches that are not cached."""
        chunks = _split_into_chunks(wanted, self.predictor.backend.pairs_at_once)
        ahead = read_ahead(partial(self._read_missing, slide), chunks, check)
        with closing(ahead) as read:  # at once, whatever ends this: it has threads
            yield from read

    def _read_missing(
        self, slide: PixelSource, wanted: Sequence[_Wanted], check: Check
    ) -> tuple[Sequence[_Wanted], dict[PatchPair, Patches]]:
        return wanted, {
            pair: self._read(slide, pair, count, check)
            for pair, count in wanted
            if self._look_up_embedding(slide, pair, count) is None
        }

    def _read(
        self, slide: PixelSource, pair: PatchPair, count: int, check: Check = go_on
    ) -> Patches:
        """Read the first patches of a pair; pixels only of those that no cached embedding holds."""
        size_px = pair.size_px
        with self.tally.measure_time("read"):
            return tuple(
                self._find_encoded(slide, pair, index)
                or self._find_shared(slide, box, size_px)
                or self._find_stored(slide, box, size_px)
                or slide.read(box, size_px, size_px, check)
                for index, box in enumerate(pair.l0_boxes[:count])
            )

    def _find_shared(self, slide: PixelSource, l0_box: Box, size_px: int) -> EncodedPatch | None:
        """Find a patch that another model with the same encoder encoded."""
        if self._shared is None:
            return None
        return self._shared.find(self.predictor, slide, l0_box, size_px)

    def _find_stored(self, slide: PixelSource, l0_box: Box, size_px: int) -> EncodedPatch | None:
        """Find a patch that an earlier run encoded and kept on the disk."""
        stored = self.predictor.stored
        patch = None if stored is None else stored.find(slide, l0_box, size_px)
        if patch is not None:
            self.tally.count_stored()
        return patch

    def _find_encoded(self, slide: PixelSource, pair: PatchPair, index: int) -> EncodedPatch | None:
        """Find the HR (0) or LR patch (1) of a pair, if it was encoded for any pair."""
        same = ((pair, 0), (pair.finer, 1)) if index == 0 else ((pair, 1), (pair.coarser, 0))
        for other, other_index in same:
            embedding = self._look_up_embedding(slide, other, other_index + 1)
            if embedding is not None:
                return embedding.patches[other_index]
        return None

    def _embed(
        self,
        slide: PixelSource,
        wanted: Sequence[_Wanted],
        patches: Mapping[PatchPair, Patches],
    ) -> dict[PatchPair, Embedding]:
        """Embed pairs, from the cache where another call has put them there."""
        with self._device_lock:
            found = {p: self._look_up_embedding(slide, p, count) for p, count in wanted}
            missing = [(pair, count) for pair, count in wanted if found[pair] is None]
            # What the cache lost since it was asked is read only now.
            read = [patches.get(pair) or self._read(slide, pair, count) for pair, count in missing]
            if missing:
                made = self._encode(slide, [pair for pair, _ in missing], read)
                found |= made
                self._keep(slide, made)
            computed = sum(not all(isinstance(p, EncodedPatch) for p in one) for one in read)
            self.tally.pairs_embedded += computed
            self.tally.pairs_cached += len(wanted) - computed
        return {pair: embedding for pair, embedding in found.items() if embedding is not None}

    def _encode(
        self, slide: PixelSource, pairs: Sequence[PatchPair], patches: Sequence[Patches]
    ) -> dict[PatchPair, Embedding]:
        """Compute what no prompt changes; the patches are kept on the disk if wanted."""
        stored = self.predictor.stored
        with self.tally.measure_time("encode"):
            if stored is not None:
                patches = stored.encode(slide, pairs, patches)
            return dict(zip(pairs, self.predictor.backend.embed(patches), strict=True))

    def _look_up_embedding(
        self, slide: PixelSource, pair: PatchPair, patch_count: int
    ) -> Embedding | None:
        """Look up the cached embedding of a pair, if it has as many patches."""
        with self._cache_lock:
            embedding: Embedding | None = self._embeddings.get((slide.identity, pair))
        if embedding is None or len(embedding.patches) < patch_count:
            return None
        return embedding

    def _keep(self, slide: PixelSource, made: Mapping[PatchPair, Embedding]) -> None:
        with self._cache_lock:
            for pair, embedding in made.items():
                if embedding.nbytes <= self._embeddings.maxsize:
                    self._embeddings[slide.identity, pair] = embedding
        if self._shared is not None:
            for pair, embedding in made.items():
                for box, patch in zip(pair.l0_boxes, embedding.patches, strict=False):
                    self._shared.keep(self.predictor, slide, box, pair.size_px, patch)

    def _decode(
        self, pair: PatchPair, embedding: Embedding, questions: Sequence[Question]
    ) -> list[tuple[Prediction, ...]]:
        encoded = [
            replace(encode_prompt(question.prompt, pair), fits_hr=question.fits_hr)
            for question in questions
        ]
        with self._device_lock, self.tally.measure_time("decode"):
            predictions = self.predictor.predict(embedding, encoded)
            self.tally.prompts_answered += len(questions)
        return predictions

    def _make_result(
        self, slide: PixelSource, question: Question, answer: Answer, options: OutlineOptions
    ) -> Result | Empty:
        prompt = question.prompt
        result_id = self.model.predict_result_id(prompt, slide.mpp, options)
        if not answer.outlines:
            return Empty(prompt, result_id, answer.explain_nothing(options))
        first, *others = (
            Candidate(
                outline.polygon,
                outline.predicted_iou,
                outline.stability_score,
                area_um2(outline.polygon, slide.mpp),
                self.describe_origin(question, outline),
            )
            for outline in answer.outlines
        )
        return Result(prompt, result_id, **vars(first), others=tuple(others))

    def describe_origin(self, question: Question, outline: Outline) -> Provenance:
        """Say which model answered a question, on which patch."""
        base, adapter = self.predictor.base, self.predictor.adapter
        with_lr = self.predictor.answers_with_lr(question.prompt.kind, fits_hr=question.fits_hr)
        return Provenance(
            base=base.name,
            base_sha256=base.sha256,
            adapter=adapter.name if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            hr_mpp=outline.pair.hr_mpp,
            lr_mpp=2 * outline.pair.hr_mpp if with_lr else None,
            patch=outline.patch,
            version=__version__,
            precision=self.predictor.backend.precision,
        )


def _iterate_steps(
    pairs: Iterable[PatchPair], by_pair: Mapping[PatchPair, Sequence[Question]]
) -> Iterator[tuple[PatchPair, Sequence[Question]]]:
    """Iterate over pairs with as many of their prompts as are answered at once."""
    for pair in pairs:
        for some in _split_into_pieces(by_pair[pair]):
            yield pair, some


def _split_into_pieces(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """Split questions into pieces that are answered at once: some, or one with very many points."""
    piece: list[Question] = []
    points = 0
    for question in questions:
        more = len(question.prompt.l0_points)
        if piece and (len(piece) == PROMPTS_AT_ONCE or points + more > _POINTS_AT_ONCE):
            yield piece
            piece, points = [], 0
        piece.append(question)
        points += more
    if piece:
        yield piece


def _split_into_chunks(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    remaining = iter(items)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
