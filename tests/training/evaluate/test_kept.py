"""An evaluation that is stopped keeps the images that it measured, and the same one goes on."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fixtures.evaluate_models import SQUARE, TALL, OutlineModel, make_image
from wsisam_qupath.errors import OutputError
from wsisam_qupath.files import CACHE_VARIABLE, cache_folder
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.prompts.encoding import EncodedPrompt
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.evaluate.choosing import SelectedObjects
from wsisam_qupath_training.evaluate.kept import open_kept
from wsisam_qupath_training.evaluate.protocol import Kind, ProtocolSettings
from wsisam_qupath_training.evaluate.results import EvaluationResults
from wsisam_qupath_training.evaluate.run import evaluate_models
from wsisam_qupath_training.evaluate.summary import summarize

KINDS: tuple[Kind, ...] = ("box", "noc")


@dataclass
class StoppedModel(OutlineModel):
    """Its user presses Ctrl-C while it answers about another image than the first.

    Attributes:
        answers: how many it gives before.
        estimate: what it says of each of its answers.
    """

    answers: float = math.inf
    estimate: float = 0.75

    def predict(self, embedding: PatchPair, encoded: Sequence[EncodedPrompt]) -> list[Prediction]:
        if len(self.asked) >= self.answers:
            raise KeyboardInterrupt
        answers = super().predict(embedding, encoded)
        return [one._replace(predicted_iou=self.estimate) for one in answers]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return cache_folder() / "evaluations"


@pytest.fixture
def images(tmp_path: Path) -> list[AnnotatedImage]:
    return [make_image(tmp_path, name) for name in "abc"]


def model(**changes: Any) -> StoppedModel:
    return StoppedModel("truth", (SQUARE, TALL), **changes)


def evaluate(
    images: Sequence[AnnotatedImage], one: StoppedModel, **settings: Any
) -> tuple[EvaluationResults, str]:
    """What was found, and what was told."""
    words = io.StringIO()
    resume = settings.pop("resume", True)
    found = evaluate_models(
        [SelectedObjects(image, image.truths) for image in images],
        [one],
        ProtocolSettings(**{"kinds": KINDS, **settings}),
        Console(file=words, width=200),
        resume=resume,
    )
    return found, words.getvalue()


def stop_in_the_second(images: Sequence[AnnotatedImage], **changes: Any) -> int:
    """Stop an evaluation in its second image; how many prompts an image has."""
    whole = model()
    evaluate(images[:1], whole)
    count = len(whole.asked)
    with pytest.raises(KeyboardInterrupt):
        evaluate(images, model(answers=count + 1, **changes))
    return count


def without_times(found: EvaluationResults) -> tuple[object, ...]:
    clicks = [replace(one, run=replace(one.run, seconds=())) for one in found.clicks]
    return found.scores, clicks, found.skipped, found.spare_boxes


def test_a_stopped_evaluation_goes_on_and_ends_as_an_undisturbed_one(
    images: list[AnnotatedImage], cache: Path
) -> None:
    count = stop_in_the_second(images)
    assert [one.suffix for one in cache.iterdir()] == [".part"]

    goes_on, undisturbed = model(), model()
    found, told = evaluate(images, goes_on)

    assert "A run that was stopped had measured 1 image: this one goes on there." in told
    assert len(goes_on.asked) == 2 * count
    assert not list(cache.iterdir())  # it is finished
    expected, told = evaluate(images, undisturbed)
    assert "stopped" not in told
    assert len(undisturbed.asked) == 3 * count
    assert without_times(found) == without_times(expected)
    assert len(found.encode_s["truth"]) == len(expected.encode_s["truth"])
    assert len(summarize(found, ("truth",), "image")) == 4


def test_ctrl_c_says_that_the_rest_can_be_measured_later(images: list[AnnotatedImage]) -> None:
    words = io.StringIO()

    with pytest.raises(KeyboardInterrupt):
        evaluate_models(
            [SelectedObjects(image, image.truths) for image in images],
            [model(answers=1)],
            ProtocolSettings(kinds=KINDS),
            Console(file=words, width=200),
        )

    assert "The images that were done are kept: the same command goes on there." in words.getvalue()


def test_a_line_that_a_kill_cut_off_is_measured_again(
    images: list[AnnotatedImage], cache: Path
) -> None:
    count = stop_in_the_second(images)
    (part,) = cache.iterdir()
    content = part.read_bytes()
    for kept in (len(content) - 1, content.index(b"\n") // 2, 0):
        part.write_bytes(content[:kept])

        again = model()
        evaluate(images, again)

        assert len(again.asked) == 3 * count


@pytest.mark.parametrize("change", ["settings", "an image", "an outline", "an order to"])
def test_of_something_else_nothing_is_used(images: list[AnnotatedImage], change: str) -> None:
    count = stop_in_the_second(images)
    settings: dict[str, Any] = {}
    match change:
        case "settings":
            settings["seed"] = 7
        case "an image":
            os.utime(images[0].slide.location, (0, 0))
        case "an outline":
            moved = replace(images[0].truths[0], l0_outline=SQUARE.buffer(3))
            images[0] = replace(images[0], truths=(moved, images[0].truths[1]))
        case _:
            settings["resume"] = False

    again = model()
    evaluate(images, again, **settings)

    assert len(again.asked) >= 3 * count - 2


def test_an_estimate_that_is_no_number_stays_none(images: list[AnnotatedImage]) -> None:
    stop_in_the_second(images, estimate=math.nan)

    found, told = evaluate(images, model(estimate=math.nan))

    assert "goes on there" in told
    estimates = [one.predicted_iou for one in found.scores if one.model == "truth"]
    assert all(one is not None and math.isnan(one) for one in estimates)


def test_an_image_that_could_not_be_read_is_tried_again(
    images: list[AnnotatedImage], tmp_path: Path
) -> None:
    slide = Path(images[0].slide.location)
    slide.rename(tmp_path / "away.tif")
    count = stop_in_the_second(images[::-1])

    (tmp_path / "away.tif").rename(slide)
    again = model()
    found, _ = evaluate(images, again)

    assert not found.skipped
    assert len(again.asked) == 2 * count


def test_the_same_evaluation_twice_at_once_is_refused() -> None:
    with (
        open_kept({"models": "one"}, resume=True),
        open_kept({"models": "another"}, resume=True),
        pytest.raises(
            OutputError, match=r"Another program is measuring these models on these data"
        ),
        open_kept({"models": "one"}, resume=True),
    ):
        pass
