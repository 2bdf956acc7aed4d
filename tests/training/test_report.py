"""The page at the end of a training run."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fixtures.evaluate_models import make_image
from fixtures.models import PLAIN_BASE
from fixtures.training_runs import WHOLE
from wsisam_qupath.errors import OutputError
from wsisam_qupath_training.report.changes import Change
from wsisam_qupath_training.report.learning_curve import CurvePoint, LearningCurve, draw_curve
from wsisam_qupath_training.report.page import Findings, write_report
from wsisam_qupath_training.report.qupath_script import write_qupath_script
from wsisam_qupath_training.report.worst_cases import Case
from wsisam_qupath_training.settings import Recipe, routes_to
from wsisam_qupath_training.trainer.trained import Clock, TrainedDecoder

pytestmark = pytest.mark.slow

ROW = {"train_loss": 1.5, "box": 60.0, "outline": 70.0, "dice": 65.0, "iou_correlation": 0.125}
HISTORY = (
    {"step": 400.0, **ROW},
    {"step": 800.0, **ROW, "train_loss": 0.75, "box": 91.25, "outline": 88.75, "dice": 90.0},
    {"step": 1200.0, **ROW, "train_loss": 0.7, "box": 80.0},
)
TRAINED = TrainedDecoder(
    state={},
    decoder={},
    encoder={},
    best_step=800,
    best_dice=90.0,
    history=HISTORY,
    clock=Clock(waiting=1.0, working=39.0),
    start_share=0.0,
)
RECIPE = Recipe(
    decoders={"boxes": WHOLE.decoders["boxes"]},
    blends={},
    routes=routes_to("boxes"),
    seed=41,
)


def jpeg() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(encoded, format="JPEG")
    return encoded.getvalue()


OBJECT = "0a4f9c1e-5b52-4c8e-9d3b-7f1f7a2c9e10"
CASE = Case("boxes", "outline", 12.34, "set", "<slide> & more", OBJECT, jpeg())


FINDINGS = Findings(cases=(CASE,), verdict=("box: better (Dice 80.0 before, <b>90.0 after)",))


def written(folder: Path, trained: TrainedDecoder = TRAINED, findings: Findings = FINDINGS) -> str:
    image = make_image(folder)
    images = [replace(image, part="train"), replace(image, name="two", group="p2", part="val")]
    path = folder / "mine.report.html"
    write_report(path, RECIPE, PLAIN_BASE, images, {"boxes": trained}, findings)
    return path.read_text(encoding="utf-8")


def cells_of(page: str, first: str) -> list[str]:
    """The texts of the table row that begins with a word."""
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    texts = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return next(row for row in texts if row and row[0] == first)


def test_a_report_tells_the_dice_of_the_best_step(tmp_path: Path) -> None:
    page = written(tmp_path)

    assert cells_of(page, "boxes") == [
        "boxes", "91.2", "88.8", "", "90.0", "0.12", "800", "1200", "2.5 %",
    ]  # fmt: skip


def test_a_report_of_a_run_that_was_over_does_not_say_how_long_it_waited(tmp_path: Path) -> None:
    page = written(tmp_path, replace(TRAINED, clock=Clock()))

    assert cells_of(page, "boxes")[-1] == "no step in this run"


def test_a_report_tells_the_split_and_all_settings(tmp_path: Path) -> None:
    page = written(tmp_path)

    assert re.findall(r"<td>set</td><td>(\w+)</td>", page) == ["train", "val"]
    assert "<dt>seed</dt><dd>41</dd>" in page
    assert "<dt>mix.outline</dt><dd>0.25</dd>" in page
    assert "<dt>routes.box.decoder</dt><dd>boxes</dd>" in page


def test_a_report_holds_its_pictures_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    page = written(tmp_path)

    sources = re.findall(r'src="([^"]*)"', page)
    kinds = [source.partition(",")[0] for source in sources]
    assert kinds == ["data:image/png;base64", "data:image/jpeg;base64"]
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).verify()
    assert "://" not in page


def test_names_of_images_are_text_in_a_report(tmp_path: Path) -> None:
    page = written(tmp_path)

    assert "<slide>" not in page
    assert "&lt;slide&gt; &amp; more" in page


def test_a_report_has_a_script_that_opens_the_objects_of_qupath(tmp_path: Path) -> None:
    evil = replace(CASE, object_id="');evil('")
    page = written(tmp_path, findings=Findings(cases=(CASE, CASE, evil)))

    (script,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert html.unescape(script).count(OBJECT) == 2
    assert "evil" not in script
    assert "mine.worst-cases.groovy" in page


def test_names_of_images_are_text_in_a_script_of_qupath() -> None:
    name = 'it\'s \\u0027 $x ${y}\n"é".svs'

    script = write_qupath_script([replace(CASE, image=name)])

    quoted = r"'it\'s \\u0027 $x ${y}\n\"\u00e9\".svs'"  # Groovy evaluates nothing in single quotes
    assert f"image: {quoted}," in script
    assert "label: 'Dice 12.3, coarse mask: it" in script


def test_a_report_of_other_objects_has_no_script(tmp_path: Path) -> None:
    numbered = Findings(cases=(replace(CASE, object_id="7"),))

    assert "Script editor" not in written(tmp_path, findings=numbered)
    assert write_qupath_script(numbered.cases) == ""


def test_a_report_shows_before_and_after_side_by_side(tmp_path: Path) -> None:
    change = Change("set", "<slide>", OBJECT, "3 points", 41.26, 87.5, jpeg())

    page = written(tmp_path, findings=replace(FINDINGS, changes=(change,)))

    assert "<b>Dice 41.3 → 87.5</b>, 3 points" in page
    assert f"set: &lt;slide&gt;, object {OBJECT}" in page
    assert page.count("data:image/jpeg;base64") == 2


def test_a_report_shows_learning_curves_with_their_verdict(tmp_path: Path) -> None:
    point = CurvePoint(0, 60.0, 50.0, 70.0, {"box": 60.0})
    curve = LearningCurve(
        "boxes",
        (point, replace(point, objects=3, dice=64.0)),
        4.0,
        1.0,
        7.0,
        measured_on=5,
        folds=1,
    )

    page = written(tmp_path, findings=replace(FINDINGS, curves=((curve, draw_curve(curve)),)))

    assert curve.verdict in page
    assert page.count("data:image/png;base64") == 2


def test_a_report_replaces_the_last_one_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "mine.report.html").mkdir()

    with pytest.raises(OutputError, match="is a folder"):
        written(tmp_path)

    assert [path.name for path in tmp_path.glob(".*.tmp")] == []
