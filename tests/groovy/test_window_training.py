"""Train on this project… in QuPath's own window: asked for, watched, stopped, and to its end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from fixtures.command_line import identity
from fixtures.qupath_fixtures import add_objects, make_project
from fixtures.qupath_window import State, Window, open_window
from fixtures.script_runs import note_program
from fixtures.training_data import OUTLINES, drawn, write_slide
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow, pytest.mark.window]

_PATIENCE_S = 3600

IN_ITS_PLACE = """
import sys
if "train" in sys.argv:
    TRAIN
"""
"""Run by Python when it starts, in the process that trains too."""

SHORT = 'sys.argv += ["--steps", "2", "--views", "8"]'

BETTER = """
    import importlib.resources, json, os, shutil
    adapters = importlib.resources.files("wsisam_qupath.model.adapters")
    out = sys.argv[sys.argv.index("-o") + 1]
    shutil.copy(adapters / "tissue-lite-medsam.safetensors", out)
    open(out.replace(".safetensors", ".report.html"), "w").write("<p>Report</p>")
    event = {"event": "comparison", "kind": "point", "says": "better",
             "before": 0.5, "after": 0.6, "low": 0.01, "high": 0.2}
    print(json.dumps(event), file=sys.stderr, flush=True)
    os._exit(0)
"""
"""Says at once that the model that is there already is better than itself."""

MODELS = """dialog('Results are').lookupAll('.combo-box')
    .collect { it.getItems() }.find { it.any { one -> one.startsWith('(the first') } }"""


@pytest.fixture
def three_slides(qupath: QuPathProcess, tmp_path: Path) -> Path:
    """A project with a gland on each of three slides; its folder is a home, too."""
    slides = [write_slide(tmp_path / f"{name}.tif") for name in "abc"]
    project: Path = qupath.run(make_project, tmp_path / "project", slides)
    for number in (1, 2, 3):
        gland = {**drawn(OUTLINES[0]), "id": identity(number)}
        qupath.run(add_objects, project, str(number), [gland])
    note_program(tmp_path, sys.executable, "-m", "wsisam_qupath")
    return project


def replace_training(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_ITS_PLACE.replace("TRAIN", code.strip()))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def start_training(window: Window) -> None:
    window.choose("Train on")
    window.answer("The server trains a model")
    window.answer("How long may the training take?")


def progress(state: State) -> str:
    """What the window with the progress says, as one line."""
    return " ".join((state["progress"] or "").split())


def dialog_about(state: State, words: str) -> str:
    return next((one for one in state["dialogs"] if one.startswith(words)), "")


def test_a_training_is_watched_and_stopped(three_slides: Path, tmp_path: Path) -> None:
    with open_window(tmp_path, three_slides, "a.tif") as window:
        start_training(window)
        window.wait(lambda s: s["progress"], "how far it is")
        (server,) = window.wait_for(
            lambda: list((tmp_path / ".wsisam-qupath" / "servers").glob("*.json")), "the server"
        )
        process = psutil.Process(json.loads(server.read_text())["pid"])
        window.wait_for(lambda: process.children(recursive=True), "the process that trains")
        window.run("progress.lookup('.button').fire()")
        window.wait_for_line("The training is stopped", "the end")
        window.wait(lambda s: s["progress"] is None, "the end of the window with its progress")
        window.wait(lambda _: not process.children(recursive=True), "the end of the process")


def test_what_is_better_is_offered_and_used(
    three_slides: Path, tmp_path: Path, opened_pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(tmp_path / "replaced", BETTER, monkeypatch)
    with open_window(tmp_path, three_slides, "a.tif") as window:
        window.press_button()
        window.wait(lambda s: "ready" in (s["line"] or ""), "a server")
        start_training(window)
        window.answer("The model project is better")
        window.wait(lambda s: "·  project  ·" in s["line"], "the new model on the viewer")
        window.wait_for(opened_pages.is_file, "the report")
        report = opened_pages.read_text()
        window.choose("Settings")
        window.wait(lambda s: s["dialogs"], "the settings")
        models = window.evaluate(MODELS)
        window.run("dialog('Results are').getScene().getWindow().hide()")
        window.show(80, 70, 1)
        window.keys("r")
        window.drag((35, 35), (125, 105))
        seen = window.wait(lambda s: any(o["is_result"] for o in s["objects"]), "its outline")

    assert models[1:] == ["default", "project"]
    assert Path(report.strip().removeprefix("file:")).suffix == ".html"
    assert sum(one["is_result"] for one in seen["objects"]) == 1


@pytest.mark.walk
def test_a_training_comes_to_its_end(
    three_slides: Path, tmp_path: Path, opened_pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_training(tmp_path / "replaced", SHORT, monkeypatch)
    with open_window(tmp_path, three_slides, "a.tif") as window:
        start_training(window)
        window.wait(lambda s: "Only 3 objects" in progress(s), "what it says of so few")
        ended = window.wait(
            lambda s: dialog_about(s, "The model project"), "the end", patience_s=_PATIENCE_S
        )
        window.wait_for(opened_pages.is_file, "the report")
        window.answer("The model project")

    kept = list((tmp_path / ".wsisam-qupath" / "adapters").rglob("project.safetensors"))
    told = dialog_about(ended, "The model project").replace("\n", " ")
    assert ("is better on slides" in told) == bool(kept)
    assert ("no better than before, and not offered" in told) == (not kept)
