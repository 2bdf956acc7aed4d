"""Ask every model about every object, and note how well it answered."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from rich.console import Console
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import OptionError, PromptError, SlideError
from wsisam_qupath.geometry import Box, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.geometry.validity import keep_polygons
from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.prompts import Prompt, Skipped
from wsisam_qupath.prompts.encoding import MASK_PX, EncodedPrompt, encode_prompt
from wsisam_qupath.report.progress import Progress, show_progress
from wsisam_qupath.slide import Slide

from ..sampling.clicker import Click
from .boxes import match_boxes
from .choosing import SelectedObjects
from .models import Model
from .noc import CLICKS_MOST, THRESHOLD_LOGIT, ClickRun, run_clicks
from .protocol import (
    CLICKS,
    GIVEN_BOX,
    ObjectKey,
    PromptBuilder,
    ProtocolSettings,
    Query,
    make_object_key,
    measure_longest_um,
)
from .scoring import (
    SCORE_PX,
    find_frame,
    find_known_part,
    make_target,
    overlap,
    threshold_mask,
)

PICTURED_CLICKS = (1, 5, 10, CLICKS_MOST)

_AT_ONCE = 8


@dataclass(frozen=True)
class Score:
    """One answer.

    Attributes:
        label: the kind of the prompt.
        predicted_iou: the model's own estimate of ``iou``; None where it was not asked, because
            another model's boxes had missed the object.
    """

    object_key: ObjectKey
    model: str
    label: str
    dice: float
    iou: float
    predicted_iou: float | None


@dataclass(frozen=True)
class ClickScore:
    """One object, clicked until it was right."""

    object_key: ObjectKey
    model: str
    run: ClickRun


@dataclass(frozen=True)
class Picture:
    """An answer to look at.

    Attributes:
        label: as of a score, or "click 5".
        l0_outline: the truth, as it was compared.
        l0_answer: None is empty.
    """

    object_key: ObjectKey
    model: str
    label: str
    prompt: Prompt
    pair: PatchPair
    l0_outline: Polygon | MultiPolygon
    l0_answer: Polygon | MultiPolygon | None
    dice: float


@dataclass
class EvaluationResults:
    """All that was found out.

    Attributes:
        scores, clicks: of all models, object by object.
        encode_s, decode_s: seconds of each patch pair and each prompt, by model.
        skipped: images and objects that could not be measured, and why.
        pictures: by image, where they were wanted.
        spare_boxes: of the other model, that belong to no object.
    """

    scores: list[Score] = field(default_factory=list)
    clicks: list[ClickScore] = field(default_factory=list)
    encode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    skipped: list[Skipped] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    spare_boxes: int = 0


def evaluate_models(
    chosen: Sequence[SelectedObjects],
    models: Sequence[Model],
    settings: ProtocolSettings,
    console: Console,
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    with_pictures: bool = False,
) -> EvaluationResults:
    """Ask every model about every object, with the same prompts.

    Args:
        boxes: of another model, by image; see :func:`.match_boxes`.
        with_pictures: keep outlines to draw.

    Raises:
        PromptError: nothing could be measured.
        OptionError: a model answered in a wrong shape or number.
    """
    results = EvaluationResults()
    sizes_um = _median_sizes_um(chosen) if settings.scale == "median" else {}
    total = len(models) * sum(len(c.truths) for c in chosen)
    with show_progress(console, "Measuring objects", total) as progress:
        for one in chosen:
            asked = _ModelRun(one, models, settings, results, progress, with_pictures)
            own_boxes = None if boxes is None else boxes.get(one.image.name, ())
            try:
                asked.ask(sizes_um, own_boxes)
            except SlideError as exc:
                results.skipped.append(Skipped(one.image.name, str(exc)))
    if not results.scores and not results.clicks:
        reason = f": {results.skipped[0].reason}" if results.skipped else ""
        raise PromptError(f"No object could be measured{reason or '. Choose others.'}")
    return results


def _median_sizes_um(chosen: Sequence[SelectedObjects]) -> Mapping[tuple[str, str], float]:
    """Of all objects of a class in a dataset, those that are not asked about too."""
    sizes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in chosen:
        try:
            with one.image.slide.open() as slide:
                mpp = slide.mpp
        except SlideError:
            continue  # named when it is measured
        for truth in one.image.truths:
            sizes[one.image.dataset, truth.class_name].append(measure_longest_um(truth, mpp))
    return {key: float(np.median(values)) for key, values in sizes.items()}


@dataclass(frozen=True)
class _ModelRun:
    """One image's turn."""

    chosen: SelectedObjects
    models: Sequence[Model]
    settings: ProtocolSettings
    results: EvaluationResults
    progress: Progress
    with_pictures: bool

    def ask(self, sizes_um: Mapping[tuple[str, str], float], boxes: Sequence[Box] | None) -> None:
        one = self.chosen.image
        given = match_boxes(one.truths, boxes or ())
        self.results.spare_boxes += len(boxes or ()) - len(given)
        own_sizes = {name: um for (dataset, name), um in sizes_um.items() if dataset == one.dataset}
        with one.slide.open() as slide:
            slide_box = shapely.box(*slide.l0_box.corners().ravel())
            l0_known = find_known_part(one, slide_box)
            for model in self.models:
                if boxes is not None:
                    self._note_missed(given, model.name)
                prompt_builder = PromptBuilder(
                    self.settings, model, one, slide.mpp, own_sizes, given
                )
                for pair, build_queries in self._group_by_pair(prompt_builder).items():
                    l0_counted = self._find_counted_part(l0_known, pair)
                    _Pair(self, model, slide, pair, l0_counted).ask(build_queries)
                self.progress.advance(len(self.chosen.truths))

    def _find_counted_part(
        self, l0_known: Polygon | MultiPolygon, pair: PatchPair
    ) -> Polygon | MultiPolygon:
        """What is known, and lies in the window where objects end at its edge."""
        if self.settings.window_mpp is None:
            return l0_known
        window = shapely.box(*pair.hr_l0_box.corners().ravel())
        return keep_polygons(shapely.intersection(l0_known, window))

    def _group_by_pair(self, prompt_builder: PromptBuilder) -> Mapping[PatchPair, list[Query]]:
        """Each pair is encoded once."""
        found: dict[PatchPair, list[Query]] = defaultdict(list)
        for truth in self.chosen.truths:
            build_queries = list(prompt_builder.build_queries(truth))
            if not build_queries:
                name = f"{prompt_builder.image.name}, object {truth.id}"
                case = Skipped(name, "nothing of it lies in the window around its middle")
                if case not in self.results.skipped:  # by another model, whose window is as wide
                    self.results.skipped.append(case)
            for query in build_queries:
                found[query.pair].append(query)
        return found

    def _note_missed(self, given: Mapping[str, Box], model: str) -> None:
        for truth in self.chosen.truths:
            if truth.id not in given:
                object_key = make_object_key(self.chosen.image, truth)
                self.results.scores.append(Score(object_key, model, GIVEN_BOX, 0.0, 0.0, None))


@dataclass(frozen=True)
class _Pair:
    """One patch pair and one model."""

    asked: _ModelRun
    model: Model
    slide: Slide
    pair: PatchPair
    l0_known: Polygon | MultiPolygon

    def ask(self, build_queries: Sequence[Query]) -> None:
        results, model = self.asked.results, self.model.name
        start = time.perf_counter()
        embedding = self.model.embed(self.slide, self.pair)
        results.encode_s[model].append(time.perf_counter() - start)
        prompted = [(q, q.prompt) for q in build_queries if q.prompt is not None]
        for first in range(0, len(prompted), _AT_ONCE):
            self._score(embedding, prompted[first : first + _AT_ONCE])
        for query in build_queries:
            if query.label == CLICKS:
                self._click(embedding, query)

    def _score(self, embedding: Any, prompted: Sequence[tuple[Query, Prompt]]) -> None:
        results, model = self.asked.results, self.model.name
        encoded = [encode_prompt(prompt, self.pair) for _, prompt in prompted]
        start = time.perf_counter()
        predictions = self.model.predict(embedding, encoded)
        seconds = time.perf_counter() - start
        if len(predictions) != len(prompted):
            raise OptionError(
                "compare",
                f"{model} returned {len(predictions)} results for {len(prompted)} prompts. Correct "
                "its predict().",
            )
        results.decode_s[model] += [seconds / len(prompted)] * len(prompted)
        for (query, prompt), prediction in zip(prompted, predictions, strict=True):
            frame = find_frame(self.pair, prediction.patch)
            target = make_target(query.l0_outline, self.l0_known, frame, SCORE_PX)
            found = overlap(target, threshold_mask(prediction.mask_logits))
            predicted_iou = float(prediction.predicted_iou)
            results.scores.append(
                Score(query.object_key, model, query.label, found.dice, found.iou, predicted_iou)
            )
            self._picture(query, query.label, prompt, prediction, 0.0, found.dice)

    def _click(self, embedding: Any, query: Query) -> None:
        def predict(encoded: EncodedPrompt) -> Prediction:
            return self.model.predict(embedding, [encoded])[0]

        target = make_target(query.l0_outline, self.l0_known, self.pair, MASK_PX)
        keep = PICTURED_CLICKS if self.asked.with_pictures else ()
        run = run_clicks(predict, target, self.pair.size_px, keep)
        self.asked.results.clicks.append(ClickScore(query.object_key, self.model.name, run))
        for number, logits in sorted(run.kept.items()):
            iou = run.iou_after(number)
            prompt = self._make_clicked_prompt(query, run.clicks[:number])
            prediction = Prediction(logits, 0.0)
            dice = 2 * iou / (1 + iou)
            self._picture(query, f"click {number}", prompt, prediction, THRESHOLD_LOGIT, dice)

    def _make_clicked_prompt(self, query: Query, clicks: Sequence[Click]) -> Prompt:
        def l0_points(positive: bool) -> Iterator[tuple[float, float]]:
            for click in clicks:
                if click.is_positive == positive:
                    at = np.array([[click.column + 0.5, click.row + 0.5]])
                    ((x, y),) = self.pair.hr_to_l0(at * self.pair.size_px / MASK_PX).tolist()
                    yield x, y

        return Prompt(
            query.object_key.object_id,
            l0_positives=tuple(l0_points(True)),
            l0_negatives=tuple(l0_points(False)),
        )

    def _picture(
        self,
        query: Query,
        label: str,
        prompt: Prompt,
        prediction: Prediction,
        threshold: float,
        dice: float,
    ) -> None:
        if not self.asked.with_pictures:
            return
        logits = (prediction.mask_logits - threshold).astype(np.float32)
        frame = find_frame(self.pair, prediction.patch)
        answer = mask_to_polygon(logits, frame, simplify_um=0.0, min_area_um2=0.0)
        self.asked.results.pictures.append(
            Picture(
                query.object_key,
                self.model.name,
                label,
                prompt,
                self.pair,
                query.l0_outline,
                answer,
                dice,
            )
        )
