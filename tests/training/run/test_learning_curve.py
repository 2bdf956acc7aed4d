"""Whether more annotations are worth it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from fixtures.training_runs import ONE_DECODER, export_of
from wsisam_qupath.options import ModelSpec
from wsisam_qupath_training.report.learning_curve import CurvePoint, LearningCurve, draw_curve
from wsisam_qupath_training.run.command import run_plan, run_train
from wsisam_qupath_training.run.request import TrainRequest
from wsisam_qupath_training.settings import Recipe

CROSSED = ONE_DECODER.model_copy(update={"cross_validated_below": 3, "views": 4})


def curve(gain: float, low: float | None, high: float | None) -> LearningCurve:
    points = tuple(
        CurvePoint(objects, dice, dice - 5, dice + 5, {"box": dice, "1_points": dice - 10})
        for objects, dice in ((0, 60.0), (10, 70.0), (40, 70.0 + gain))
    )
    return LearningCurve("points", points, gain, low, high, measured_on=12, folds=1)


@pytest.mark.parametrize(
    ("gain", "low", "high", "says"),
    [
        (3, 1, 5, "More annotations are likely to help: from 10 to 40 objects the Dice still rose"),
        (0.2, -0.5, 0.9, "More annotations of the same kind will hardly help: from 10 to 40"),
        (-3, -5, -1, "More annotations of the same kind will hardly help"),
        (2, -1, 5, "Whether more annotations help cannot be told: from 10 to 40 objects"),
        (2, None, None, "One object alone does not tell whether more annotations help"),
    ],
)
def test_a_curve_ends_in_a_sentence(
    gain: float, low: float | None, high: float | None, says: str
) -> None:
    assert curve(gain, low, high).verdict.startswith(says)


def test_a_sentence_states_the_gain_and_its_interval() -> None:
    assert curve(3, 1, 5).verdict.endswith("rose by 3.0 (95 % interval +1.0 to +5.0).")


@pytest.mark.slow
def test_a_curve_is_drawn() -> None:
    with Image.open(io.BytesIO(draw_curve(curve(3, None, None)))) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height


def ask(export: Path, recipe: Recipe) -> TrainRequest:
    return TrainRequest(
        export,
        export.parent / "mine.safetensors",
        recipe=recipe,
        model=ModelSpec(adapter=None, device="cpu"),
        cache=export.parent / "features",
        learning_curve=True,
    )


def run(request: TrainRequest) -> str:
    console = Console(file=io.StringIO(), width=200)
    assert run_train(request, console) is not None
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
@pytest.mark.walk
def test_a_curve_is_trained_measured_told_and_kept(tmp_path: Path) -> None:
    request = ask(export_of(tmp_path), CROSSED)

    words = run(request)
    kept = json.loads((tmp_path / "mine.learning-curve.json").read_text("utf-8"))
    measured = request.run_folder / "all" / "learning-curve" / "1-objects.json"
    first = measured.read_bytes()
    measured.unlink()  # as a kill after its trainings leaves it
    again = run(request)

    assert re.search(r"Learning curve of all: 1 object, 2 times each, about .* s\.", words)
    (told,) = kept["curves"]
    assert [point["objects"] for point in told["points"]] == [0, 1, 3]
    assert told["measured_on"] >= 2
    assert told["verdict"] in words
    assert "all on 1 object, fold 2 of 2: step" in words
    assert "all on 1 object, fold 2 of 2: step" not in again  # its checkpoints say that it is over
    assert measured.read_bytes() == first
    assert json.loads((tmp_path / "mine.learning-curve.json").read_text("utf-8")) == kept
    assert (tmp_path / "mine.learning-curve.png").is_file()
    page = (tmp_path / "mine.report.html").read_text("utf-8")
    assert "Is it worth annotating more?" in page


@pytest.mark.slow
@pytest.mark.walk
def test_one_image_has_no_curve_and_a_plan_names_its_time(tmp_path: Path) -> None:
    lonely = ask(export_of(tmp_path / "one", ("a.tif",)), ONE_DECODER)
    pair = ask(export_of(tmp_path / "two"), CROSSED)

    words = run(lonely)
    plan = run_plan(pair, Console(file=io.StringIO()))

    assert "No learning curve: nothing is left to measure on" in words
    assert not (tmp_path / "one" / "mine.learning-curve.json").exists()
    assert re.search(r"Learning curve: trainings on 1 object too, about", plan)
