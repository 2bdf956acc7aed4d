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
from rich.progress import Progress
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.backends import Prediction
from wsisam_qupath.console import TASK, progress_bar
from wsisam_qupath.errors import OptionError, PromptError, SlideError
from wsisam_qupath.geometry import Box, PatchPair
from wsisam_qupath.polygons import mask_to_polygon
from wsisam_qupath.prompts import Prompt, Skipped
from wsisam_qupath.slide import Slide
from wsisam_qupath.tokens import MASK_PX, Tokens, tokens_of

from ..clicker import Click
from .answerers import Answerer
from .boxes import matched
from .choosing import Chosen
from .noc import CLICKS_MOST, THRESHOLD_LOGIT, ClickRun, run_clicks
from .protocol import (
    CLICKS,
    GIVEN_BOX,
    Asking,
    ProtocolSettings,
    Question,
    Subject,
    longest_um,
    subject_of,
)
from .scoring import SCORE_PX, known_part, overlap, predicted_mask, target_of

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

    subject: Subject
    model: str
    label: str
    dice: float
    iou: float
    predicted_iou: float | None


@dataclass(frozen=True)
class ClickScore:
    """One object, clicked until it was right."""

    subject: Subject
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

    subject: Subject
    model: str
    label: str
    prompt: Prompt
    pair: PatchPair
    l0_outline: Polygon | MultiPolygon
    l0_answer: Polygon | MultiPolygon | None
    dice: float


@dataclass
class Findings:
    """All that was found out.

    Attributes:
        scores, clicks: of all models, object by object.
        encode_s, decode_s: seconds of each patch pair and each prompt, by model.
        skipped: fields and objects that could not be measured, and why.
        pictures: by field, where they were wanted.
        spare_boxes: of the other model, that belong to no object.
    """

    scores: list[Score] = field(default_factory=list)
    clicks: list[ClickScore] = field(default_factory=list)
    encode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decode_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    skipped: list[Skipped] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    spare_boxes: int = 0


def ask_all(
    chosen: Sequence[Chosen],
    answerers: Sequence[Answerer],
    settings: ProtocolSettings,
    console: Console,
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    with_pictures: bool = False,
) -> Findings:
    """Ask every model about every object, with the same prompts.

    Args:
        boxes: of another model, by field; see :func:`.matched`.
        with_pictures: keep outlines to draw.

    Raises:
        PromptError: nothing could be measured.
        OptionError: a model answered in a wrong shape or number.
    """
    findings = Findings()
    sizes_um = _median_sizes_um(chosen) if settings.scale == "median" else {}
    total = len(answerers) * sum(len(c.truths) for c in chosen)
    with progress_bar(console, "Measuring", total) as progress:
        for one in chosen:
            asked = _Asked(one, answerers, settings, findings, progress, with_pictures)
            own_boxes = None if boxes is None else boxes.get(one.field.name, ())
            try:
                asked.ask(sizes_um, own_boxes)
            except SlideError as exc:
                findings.skipped.append(Skipped(one.field.name, str(exc)))
    if not findings.scores and not findings.clicks:
        reason = f": {findings.skipped[0].reason}" if findings.skipped else ""
        raise PromptError(f"No object could be measured{reason or '. Choose others.'}")
    return findings


def _median_sizes_um(chosen: Sequence[Chosen]) -> Mapping[tuple[str, str], float]:
    """Of all objects of a class in a dataset, those that are not asked about too."""
    sizes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in chosen:
        try:
            with one.field.slide.open() as slide:
                mpp = slide.mpp
        except SlideError:
            continue  # named when it is measured
        for truth in one.field.truths:
            sizes[one.field.dataset, truth.class_name].append(longest_um(truth, mpp))
    return {key: float(np.median(values)) for key, values in sizes.items()}


@dataclass(frozen=True)
class _Asked:
    """One field's turn."""

    chosen: Chosen
    answerers: Sequence[Answerer]
    settings: ProtocolSettings
    findings: Findings
    progress: Progress
    with_pictures: bool

    def ask(self, sizes_um: Mapping[tuple[str, str], float], boxes: Sequence[Box] | None) -> None:
        one = self.chosen.field
        given = matched(one.truths, boxes or ())
        self.findings.spare_boxes += len(boxes or ()) - len(given)
        own_sizes = {name: um for (dataset, name), um in sizes_um.items() if dataset == one.dataset}
        with one.slide.open() as slide:
            slide_box = shapely.box(*slide.l0_box.corners().ravel())
            l0_known = known_part(one, slide_box)
            for answerer in self.answerers:
                if boxes is not None:
                    self._note_missed(given, answerer.name)
                asking = Asking(self.settings, answerer, one, slide.mpp, own_sizes, given)
                for pair, questions in self._by_pair(asking).items():
                    _Pair(self, answerer, slide, pair, l0_known).ask(questions)
                self.progress.advance(TASK, len(self.chosen.truths))

    def _by_pair(self, asking: Asking) -> Mapping[PatchPair, list[Question]]:
        """Each pair is encoded once."""
        found: dict[PatchPair, list[Question]] = defaultdict(list)
        for truth in self.chosen.truths:
            questions = list(asking.questions(truth))
            if not questions:
                name = f"{asking.field.name}, object {truth.id}"
                case = Skipped(name, "nothing of it lies in the window round its middle")
                if case not in self.findings.skipped:  # by another model, whose window is as wide
                    self.findings.skipped.append(case)
            for question in questions:
                found[question.pair].append(question)
        return found

    def _note_missed(self, given: Mapping[str, Box], model: str) -> None:
        for truth in self.chosen.truths:
            if truth.id not in given:
                subject = subject_of(self.chosen.field, truth)
                self.findings.scores.append(Score(subject, model, GIVEN_BOX, 0.0, 0.0, None))


@dataclass(frozen=True)
class _Pair:
    """One patch pair and one model."""

    asked: _Asked
    answerer: Answerer
    slide: Slide
    pair: PatchPair
    l0_known: Polygon | MultiPolygon

    def ask(self, questions: Sequence[Question]) -> None:
        findings, model = self.asked.findings, self.answerer.name
        start = time.perf_counter()
        embedding = self.answerer.embed(self.slide, self.pair)
        findings.encode_s[model].append(time.perf_counter() - start)
        prompted = [(q, q.prompt) for q in questions if q.prompt is not None]
        for first in range(0, len(prompted), _AT_ONCE):
            self._score(embedding, prompted[first : first + _AT_ONCE])
        for question in questions:
            if question.label == CLICKS:
                self._click(embedding, question)

    def _score(self, embedding: Any, prompted: Sequence[tuple[Question, Prompt]]) -> None:
        findings, model = self.asked.findings, self.answerer.name
        tokens = [tokens_of(prompt, self.pair) for _, prompt in prompted]
        start = time.perf_counter()
        predictions = self.answerer.answer(embedding, tokens)
        seconds = time.perf_counter() - start
        if len(predictions) != len(prompted):
            raise OptionError(
                f"{model} gave {len(predictions)} answers to {len(prompted)} prompts. Correct its "
                "answer()."
            )
        findings.decode_s[model] += [seconds / len(prompted)] * len(prompted)
        for (question, prompt), prediction in zip(prompted, predictions, strict=True):
            target = target_of(question.l0_outline, self.l0_known, self.pair, SCORE_PX)
            found = overlap(target, predicted_mask(prediction.mask_logits))
            predicted_iou = float(prediction.predicted_iou)
            findings.scores.append(
                Score(question.subject, model, question.label, found.dice, found.iou, predicted_iou)
            )
            self._picture(question, question.label, prompt, prediction, 0.0, found.dice)

    def _click(self, embedding: Any, question: Question) -> None:
        def answer(tokens: Tokens) -> Prediction:
            return self.answerer.answer(embedding, [tokens])[0]

        target = target_of(question.l0_outline, self.l0_known, self.pair, MASK_PX)
        keep = PICTURED_CLICKS if self.asked.with_pictures else ()
        run = run_clicks(answer, target, self.pair.size_px, keep)
        self.asked.findings.clicks.append(ClickScore(question.subject, self.answerer.name, run))
        for number, logits in sorted(run.kept.items()):
            iou = run.iou_after(number)
            prompt = self._clicked(question, run.clicks[:number])
            prediction = Prediction(logits, 0.0)
            dice = 2 * iou / (1 + iou)
            self._picture(question, f"click {number}", prompt, prediction, THRESHOLD_LOGIT, dice)

    def _clicked(self, question: Question, clicks: Sequence[Click]) -> Prompt:
        def l0_points(positive: bool) -> Iterator[tuple[float, float]]:
            for click in clicks:
                if click.is_positive == positive:
                    at = np.array([[click.column + 0.5, click.row + 0.5]])
                    ((x, y),) = self.pair.hr_to_l0(at * self.pair.size_px / MASK_PX).tolist()
                    yield x, y

        return Prompt(
            question.subject.object_id,
            l0_positives=tuple(l0_points(True)),
            l0_negatives=tuple(l0_points(False)),
        )

    def _picture(
        self,
        question: Question,
        label: str,
        prompt: Prompt,
        prediction: Prediction,
        threshold: float,
        dice: float,
    ) -> None:
        if not self.asked.with_pictures:
            return
        logits = (prediction.mask_logits - threshold).astype(np.float32)
        answer = mask_to_polygon(logits, self.pair, simplify_um=0.0, min_area_um2=0.0)
        self.asked.findings.pictures.append(
            Picture(
                question.subject,
                self.answerer.name,
                label,
                prompt,
                self.pair,
                question.l0_outline,
                answer,
                dice,
            )
        )
