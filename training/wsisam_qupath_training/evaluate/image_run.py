"""Ask every model about the objects of an image, and note how well it answered.

As in use, our own models answer by the engine of all commands: it plans the patches, chooses the
scale, and escalates. A model from elsewhere, and every model on fixed windows, is asked on the
patch pair of the question.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import shapely

from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.geometry.validity import keep_polygons
from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.prompts import Prompt, Skipped
from wsisam_qupath.prompts.encoding import MASK_PX, EncodedPrompt, encode_prompt
from wsisam_qupath.prompts.results import Empty, Result
from wsisam_qupath.report.progress import Progress
from wsisam_qupath.slide import Slide

from ..dataset import Truth
from ..sampling.clicker import Click
from .boxes import match_boxes
from .choosing import SelectedObjects
from .models import Model, PredictorModel
from .noc import THRESHOLD_LOGIT, run_clicks
from .outline_fit import NOTHING, Fit, Outline, measure_fit
from .protocol import (
    CLICKS,
    GIVEN_BOX,
    PromptBuilder,
    ProtocolSettings,
    Query,
    make_object_key,
)
from .results import (
    PICTURED_CLICKS,
    PROMPTED_BOX,
    WHOLE_PATCH,
    ClickScore,
    EvaluationResults,
    Picture,
    Score,
)
from .scoring import check_logits, find_known_part, make_target

_AT_ONCE = 8

_OBJECTS_IN_TURN = 8
"""Number of objects that all models are asked about before the next ones: few enough for what is
encoded of them to be in memory still, and enough for neighbors to be answered together."""


class _Answered(NamedTuple):
    """Outlines of one answer, the best first; empty where the model saw nothing."""

    outlines: tuple[Outline, ...]
    predicted_iou: float


@dataclass(frozen=True)
class ImageRun:
    """Everything that models are asked about one image.

    Attributes:
        results: collects the scores.
        progress: is told of each object that a model has answered about.
    """

    chosen: SelectedObjects
    models: Sequence[Model]
    settings: ProtocolSettings
    results: EvaluationResults
    progress: Progress
    with_pictures: bool

    def ask(self, sizes_um: Mapping[tuple[str, str], float], boxes: Sequence[Box] | None) -> None:
        """Ask every model about every object.

        Args:
            sizes_um: of the objects of a class, by dataset and class.
            boxes: of another model, on this image.

        Raises:
            SlideError: the image cannot be read.
            OptionError: a model answered in a wrong shape or number.
        """
        one = self.chosen.image
        given = match_boxes(one.truths, boxes or ())
        self.results.spare_boxes += len(boxes or ()) - len(given)
        own_sizes = {name: um for (dataset, name), um in sizes_um.items() if dataset == one.dataset}
        with one.slide.open() as slide:
            slide_box = shapely.box(*slide.l0_box.corners().ravel())
            scorer = _Scorer(self, slide.mpp, find_known_part(one, slide_box))
            # In turns, so that a model finds what the one before it encoded still in memory.
            for truths, model in product(_split(self.chosen.truths), self.models):
                if boxes is not None:
                    self._note_missed(truths, given, model.name)
                builder = PromptBuilder(self.settings, model, one, slide.mpp, own_sizes, given)
                queries = self._build_queries(builder, truths)
                if model is self.models[0]:
                    scorer.score_baselines(queries, slide_box)
                _ModelTurn(scorer, model, slide).ask(queries)
                self.progress.advance(len(truths))

    def _build_queries(self, builder: PromptBuilder, truths: Sequence[Truth]) -> list[Query]:
        """Build all questions about some objects; those without any are named once."""
        found: list[Query] = []
        for truth in truths:
            queries = list(builder.build_queries(truth))
            found += queries
            name = f"{builder.image.name}, object {truth.id}"
            case = Skipped(name, "no window of the protocol holds a part of it that says something")
            if not queries and case not in self.results.skipped:
                self.results.skipped.append(case)
        return found

    def _note_missed(self, truths: Sequence[Truth], given: Mapping[str, Box], model: str) -> None:
        for truth in truths:
            if truth.id not in given:
                object_key = make_object_key(self.chosen.image, truth)
                self.results.scores.append(Score(object_key, model, GIVEN_BOX, NOTHING, None, None))


@dataclass(frozen=True)
class _Scorer:
    """Compares answers about one image with the truth."""

    asked: ImageRun
    mpp: Mpp
    l0_known: Outline

    def find_counted_part(self, pair: PatchPair) -> Outline:
        """Find the annotated area, cut to the window where objects end at its edge."""
        if self.asked.settings.window_mpp is None:
            return self.l0_known
        window = shapely.box(*pair.hr_l0_box.corners().ravel())
        return keep_polygons(shapely.intersection(self.l0_known, window))

    def score(self, model: str, query: Query, prompt: Prompt, answer: _Answered) -> None:
        """Record how well an answer fits the truth."""
        fits = self._measure(query, answer.outlines) or [NOTHING]
        best = max(fits, key=lambda fit: fit.dice) if len(fits) > 1 else None
        self.asked.results.scores.append(
            Score(query.object_key, model, query.label, fits[0], best, answer.predicted_iou)
        )
        first = answer.outlines[0] if answer.outlines else None
        self.add_picture(model, query, query.label, prompt, first, fits[0].dice)

    def score_baselines(self, queries: Sequence[Query], slide_box: Outline) -> None:
        """Record how well answers fit that need no model."""
        for query in queries:
            if query.prompt is None:
                continue
            boxes = {WHOLE_PATCH: query.pair.hr_l0_box, PROMPTED_BOX: query.prompt.l0_box}
            answers = {
                name: keep_polygons(
                    shapely.intersection(shapely.box(*box.corners().ravel()), slide_box)
                )
                for name, box in boxes.items()
                if box is not None
            }
            fits = self._measure(query, tuple(answers.values()))
            for name, fit in zip(answers, fits, strict=True):
                self.asked.results.scores.append(
                    Score(query.object_key, name, query.label, fit, None, None)
                )

    def add_picture(
        self,
        model: str,
        query: Query,
        label: str,
        prompt: Prompt,
        l0_answer: Outline | None,
        dice: float,
    ) -> None:
        """Keep an answer for a picture, if pictures are wanted."""
        if self.asked.with_pictures:
            picture = Picture(
                query.object_key,
                model,
                label,
                prompt,
                query.pair,
                query.l0_outline,
                l0_answer,
                dice,
            )
            self.asked.results.pictures.append(picture)

    def _measure(self, query: Query, l0_answers: Sequence[Outline]) -> list[Fit]:
        """Measure how well each of several answers to one question fits."""
        l0_counted = self.find_counted_part(query.pair)
        return [
            measure_fit(query.l0_outline, l0_answer, l0_counted, self.mpp)
            for l0_answer in l0_answers
        ]


@dataclass(frozen=True)
class _ModelTurn:
    """The answers of one model about one image."""

    scorer: _Scorer
    model: Model
    slide: Slide

    def ask(self, queries: Sequence[Query]) -> None:
        in_use = self.scorer.asked.settings.window_mpp is None
        if in_use and isinstance(self.model, PredictorModel):
            self._ask_engine(self.model, [q for q in queries if q.prompt is not None])
            queries = [q for q in queries if q.prompt is None]
        by_pair: dict[PatchPair, list[Query]] = defaultdict(list)
        for query in queries:
            by_pair[query.pair].append(query)
        for pair, own in by_pair.items():  # each pair is encoded once
            self._ask_on_pair(pair, own)

    def _ask_engine(self, model: PredictorModel, queries: Sequence[Query]) -> None:
        by_size: dict[float | None, list[tuple[Prompt, Query]]] = defaultdict(list)
        for query in queries:
            if query.prompt is not None:
                by_size[query.object_size_um].append((query.prompt, query))
        with self._measure_engine(model):
            for size_um, asked in by_size.items():
                query_of = {id(prompt): query for prompt, query in asked}
                for result in model.outline(self.slide, [p for p, _ in asked], size_um):
                    query = query_of[id(result.prompt)]
                    self.scorer.score(model.name, query, result.prompt, _read_result(result))

    @contextmanager
    def _measure_engine(self, model: PredictorModel) -> Iterator[None]:
        """Record the mean times of an encode and a decode within the body."""
        tally, results = model.segmenter.tally, self.scorer.asked.results
        before = replace(tally, seconds=dict(tally.seconds))
        yield
        for stage, count, kept in (
            ("encode", tally.pairs_embedded - before.pairs_embedded, results.encode_s),
            ("decode", tally.prompts_answered - before.prompts_answered, results.decode_s),
        ):
            if count:
                kept[model.name].append((tally.seconds[stage] - before.seconds[stage]) / count)

    def _embed(self, pair: PatchPair) -> Any:
        if isinstance(self.model, PredictorModel):
            with self._measure_engine(self.model):
                return self.model.embed(self.slide, pair)
        start = time.perf_counter()
        embedding = self.model.embed(self.slide, pair)
        seconds = time.perf_counter() - start
        self.scorer.asked.results.encode_s[self.model.name].append(seconds)
        return embedding

    def _ask_on_pair(self, pair: PatchPair, queries: Sequence[Query]) -> None:
        embedding = self._embed(pair)
        prompted = [(q, q.prompt) for q in queries if q.prompt is not None]
        for first in range(0, len(prompted), _AT_ONCE):
            self._score(embedding, pair, prompted[first : first + _AT_ONCE])
        for query in queries:
            if query.label == CLICKS:
                self._click(embedding, query)

    def _score(
        self, embedding: Any, pair: PatchPair, prompted: Sequence[tuple[Query, Prompt]]
    ) -> None:
        model = self.model.name
        encoded = [encode_prompt(prompt, pair) for _, prompt in prompted]
        start = time.perf_counter()
        predictions = self.model.predict(embedding, encoded)
        seconds = time.perf_counter() - start
        if len(predictions) != len(prompted):
            raise OptionError(
                "compare",
                f"{model} returned {len(predictions)} results for {len(prompted)} prompts. Correct "
                "its predict().",
            )
        decode_s = self.scorer.asked.results.decode_s[model]
        decode_s += [seconds / len(prompted)] * len(prompted)
        for (query, prompt), prediction in zip(prompted, predictions, strict=True):
            self.scorer.score(model, query, prompt, _trace(prediction, pair))

    def _click(self, embedding: Any, query: Query) -> None:
        def predict(encoded: EncodedPrompt) -> Prediction:
            return self.model.predict(embedding, [encoded])[0]

        asked = self.scorer.asked
        l0_counted = self.scorer.find_counted_part(query.pair)
        target = make_target(query.l0_outline, l0_counted, query.pair, MASK_PX)
        keep = PICTURED_CLICKS if asked.with_pictures else ()
        run = run_clicks(predict, target, query.pair.size_px, keep)
        asked.results.clicks.append(ClickScore(query.object_key, self.model.name, run))
        for number, logits in sorted(run.kept.items()):
            iou = run.iou_after(number)
            prompt = self._make_clicked_prompt(query, run.clicks[:number])
            outlines = _trace(Prediction(logits - THRESHOLD_LOGIT, 0.0), query.pair).outlines
            answer = outlines[0] if outlines else None
            self.scorer.add_picture(
                self.model.name, query, f"click {number}", prompt, answer, 2 * iou / (1 + iou)
            )

    def _make_clicked_prompt(self, query: Query, clicks: Sequence[Click]) -> Prompt:
        def l0_points(positive: bool) -> Iterator[tuple[float, float]]:
            for click in clicks:
                if click.is_positive == positive:
                    at = np.array([[click.column + 0.5, click.row + 0.5]])
                    ((x, y),) = query.pair.hr_to_l0(at * query.pair.size_px / MASK_PX).tolist()
                    yield x, y

        return Prompt(
            query.object_key.object_id,
            l0_positives=tuple(l0_points(True)),
            l0_negatives=tuple(l0_points(False)),
        )


def _split(truths: Sequence[Truth]) -> Iterator[Sequence[Truth]]:
    for first in range(0, len(truths), _OBJECTS_IN_TURN):
        yield truths[first : first + _OBJECTS_IN_TURN]


def _read_result(result: Result | Empty) -> _Answered:
    if isinstance(result, Empty):
        return _Answered((), result.predicted_iou)
    others = (candidate.polygon for candidate in result.others)
    return _Answered((result.polygon, *others), result.predicted_iou)


def _trace(prediction: Prediction, pair: PatchPair) -> _Answered:
    """Trace the outline of a mask over a patch, where its logits are above 0.

    Raises:
        OptionError: the mask of a model from elsewhere has another shape.
    """
    logits = np.nan_to_num(check_logits(prediction.mask_logits), nan=-1.0).astype(np.float32)
    frame = pair if prediction.patch == "hr" else pair.coarser
    outline = mask_to_polygon(logits, frame, simplify_um=0.0, min_area_um2=0.0)
    return _Answered(() if outline is None else (outline,), float(prediction.predicted_iou))
