"""An evaluation as it is requested: its table, its files, and what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from fixtures.evaluate_models import make_image
from wsisam_qupath.errors import OptionError
from wsisam_qupath_training.dataset import Dataset
from wsisam_qupath_training.evaluate.command import EvaluateRequest, Evaluation, run_evaluate
from wsisam_qupath_training.evaluate.protocol import ProtocolSettings
from wsisam_qupath_training.evaluate.results import PROMPTED_BOX

pytestmark = pytest.mark.slow


QUIET = Console(quiet=True)
TRUTH_MODEL = "fixtures.evaluate_models:truth_model"


def evaluated(tmp_path: Path, **request: Any) -> Evaluation:
    images = (make_image(tmp_path, "a", group="p1"), make_image(tmp_path, "b", group="p2"))
    return run_evaluate(Dataset(images), EvaluateRequest(models=(TRUTH_MODEL,), **request), QUIET)


def test_an_evaluation_prints_a_table(tmp_path: Path) -> None:
    table = evaluated(tmp_path).table

    lines = table.splitlines()
    assert lines[0].startswith("Asked as in use. Points come with no size; noise of box edges 5 %")
    assert lines[1:4] == ["truth: a model from elsewhere", "", "set: 4 objects, 2 patients"]
    assert lines[4].split(maxsplit=1)[0] == "truth"
    assert lines[4].endswith(PROMPTED_BOX)
    assert "NoC@80 1.00 [1.00, 1.00] - -" in [" ".join(line.split()) for line in lines]
    assert "failures at 80, % 0.0 [0.0, 0.0] - -" in [" ".join(line.split()) for line in lines]
    assert all(line == line.rstrip() for line in lines)


def test_an_evaluation_writes_all_of_it_as_json(tmp_path: Path) -> None:
    path = tmp_path / "result.json"

    evaluated(tmp_path, json_file=path, limit=2)

    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["settings"]["box_noise"] == 0.05
    assert record["settings"]["limit"] == 2
    assert record["hardware"]["cores"] > 0
    assert record["split"] == [
        {"dataset": "set", "part": None, "group": "p1", "images": 1},
        {"dataset": "set", "part": None, "group": "p2", "images": 1},
    ]
    assert [model["name"] for model in record["models"]] == ["truth"]
    assert sum(answer["model"] == "truth" for answer in record["answers"]) == 2 * 7
    assert [len(run["clicks"]) for run in record["clicks"]] == [1, 1]
    assert set(record["summary"]) == {"dataset", "class", "image", "patient"}


def test_an_evaluation_draws_plots_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evaluated(tmp_path, plots=tmp_path / "plots", figures=tmp_path / "figures", figures_count=3)

    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["dice-by-points.png", "iou-by-click.png", "predicted-iou.png"]
    figures = sorted((tmp_path / "figures").iterdir())
    assert len(figures) == 3
    with Image.open(figures[0]) as sheet:
        assert sheet.size == (2 * 320, (7 + 4) * (320 + 18))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"limit": 0}, "limit: 0 is too small"),
        ({"models": ()}, "no model"),
        ({"figures_count": -1}, "-1"),
    ],
)
def test_a_request_out_of_range_is_refused(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        EvaluateRequest(**request_)


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="datasets: 'other' is none of set"):
        evaluated(tmp_path, datasets=("other",))


def test_without_an_adapter_it_is_said_that_the_base_alone_answers(tmp_path: Path) -> None:
    told = Console(record=True, width=200, file=io.StringIO())

    run_evaluate(
        Dataset((make_image(tmp_path),)),
        EvaluateRequest(models=("none",), settings=ProtocolSettings(kinds=("box",))),
        told,
    )

    assert "No adapter is measured: bases alone answer." in told.export_text()
