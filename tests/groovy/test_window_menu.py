"""What the menu has beside live mode, chosen in QuPath's own window: server and settings."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from shapely.geometry import box

from fixtures.command_line import identity
from fixtures.qupath_fixtures import add_objects, make_project, objects_in
from fixtures.qupath_program import run_qupath
from fixtures.qupath_window import State, Window, open_window
from fixtures.script_runs import note_program
from fixtures.training_data import drawn
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow, pytest.mark.window]

PROMPTS = [
    {**drawn(area, None), "id": identity(number)}
    for number, area in enumerate([box(150, 150, 290, 290), box(300, 300, 440, 460)], start=1)
]

KEYS = """gui.getMenuBar().getMenus().collectMany { menu ->
    def all
    all = { it instanceof javafx.scene.control.Menu ? it.getItems().collectMany(all) : [it] }
    all(menu)
}.findResults { it.getAccelerator()?.toString() }"""
BOXES = "dialog('Results are').lookupAll('.combo-box')"


def types(state: State) -> Counter[str]:
    return Counter(one["type"] for one in state["objects"] if one["is_result"])


def servers(home: Path) -> list[Path]:
    return list((home / ".wsisam-qupath" / "servers").glob("*.json"))


@pytest.fixture
def two_images(qupath: QuPathProcess, tissue_path: Path, tmp_path: Path) -> Path:
    """A project with the same two rectangles on each of its images; its folder is a home, too."""
    slides = [Path(shutil.copy(tissue_path, tmp_path / name)) for name in ("a.tif", "b.tif")]
    project: Path = qupath.run(make_project, tmp_path / "project", slides)
    for entry_id in ("1", "2"):
        qupath.run(add_objects, project, entry_id, PROMPTS)
    note_program(tmp_path, sys.executable, "-m", "wsisam_qupath")
    return project


def test_what_was_accepted_is_not_doubled_and_the_workflow_repeats_the_run(
    qupath: QuPathProcess, two_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_window(tmp_path, two_images, "a.tif") as window:
        start_and_stop_the_server(window, tmp_path)
        set_the_class(window, "Tumor")
        window.choose("Segment all")
        two = window.wait(lambda s: types(s) == {"PathDetectionObject": 2}, "two outlines")
        new = {one["id"] for one in two["objects"] if one["is_result"]}
        window.wait(lambda s: set(s["thick"]) == new, "that they are drawn thick")
        window.wait(lambda s: not s["thick"], "and then as QuPath draws detections")
        window.choose("Turn detections")
        window.wait(lambda s: types(s) == {"PathAnnotationObject": 2}, "two annotations")
        window.choose("Segment all")
        window.wait_for_line("Nothing is left to do", "that all is answered")
        seen = window.wait(lambda s: s["steps"], "the step in the workflow")
        steps = "viewer.getImageData().getHistoryWorkflow().getSteps()"
        script = window.evaluate(f"{steps}.find {{ it.getName().contains('WSI-SAM') }}.getScript()")

    assert types(seen) == {"PathAnnotationObject": 2}
    assert seen["steps"].count("WSI-SAM: segment all prompts") == 1
    path = tmp_path / "workflow.groovy"
    path.write_text(script, encoding="utf-8")
    (tmp_path / "preferences").mkdir()  # without the class that was chosen above
    own = (f"-Duser.home={tmp_path}", f"-Djava.util.prefs.userRoot={tmp_path / 'preferences'}")
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["script", "-p", two_images, "-i", "b.tif", "-s", path]
    done = run_qupath(*command, java_options=own)
    assert "prompts: 2, without outline: []" in done.stdout, done.stdout + done.stderr
    found = [one for one in qupath.run(objects_in, two_images, "2") if "Detection" in one.type]
    assert [one.path_class for one in found] == ["Tumor", "Tumor"]


def set_the_class(window: Window, name: str) -> None:
    """Have all results get a class, in the settings."""
    window.choose("Settings")
    window.wait(lambda s: s["dialogs"], "the settings")
    window.run(f"{BOXES}.find {{ '{name}' in it.getItems() }}.setValue('{name}')")
    window.answer("Results are")


def start_and_stop_the_server(window: Window, home: Path) -> None:
    window.choose("Start", ">Server")
    window.wait_for_line("The server runs.", "that the server runs")
    assert len(servers(home)) == 1
    window.choose("Stop", ">Server")
    window.wait_for_line("The server is stopped.", "that it is stopped")
    window.wait(lambda _: not servers(home), "the end of the server")


def test_the_menu_takes_no_key_of_another_and_the_line_says_what_is_set(
    two_images: Path, tmp_path: Path, opened_pages: Path
) -> None:
    with open_window(tmp_path, two_images, "a.tif") as window:
        keys = window.evaluate(KEYS)
        ours = "gui.getMenu('Extensions>WSI-SAM', false).getItems()"
        names = window.evaluate(f"{ours}.collect {{ it.getText() }}")
        tip = window.evaluate("gui.getToolBar().lookup('#wsisam-live').getTooltip().getText()")
        window.choose("Help")
        window.wait_for(opened_pages.is_file, "the documentation")
        window.press_button()
        window.wait(lambda s: "ready" in (s["line"] or ""), "a server")
        window.keys("x")
        window.wait(lambda s: "OUTSIDE" in s["line"], "clicks that lie outside")
        window.choose("Settings")
        window.wait(lambda s: s["dialogs"], "the settings")
        choices = window.evaluate(f"{BOXES}.collectMany {{ it.getItems() }}")
        window.run("dialog('Results are').getScene().getWindow().hide()")
        set_the_class(window, "Tumor")
        window.wait(lambda s: "class Tumor" in s["line"], "the class on the viewer")
        window.press_button()
        window.wait(lambda s: s["line"] is None, "the end of live mode")
        drawn_as = "qupath.lib.gui.prefs.PathPrefs.autoSetAnnotationClassProperty().get()"
        window.wait_for(lambda: window.evaluate(drawn_as) is None, "clicks that lie inside")

    assert "X" in keys
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    assert {name for name in names if name and name.endswith("…")} == {
        "Segment whole project…",
        "Find all like the selected…",
        "Train on this project…",
        "Settings…",
    }
    assert tip.startswith("WSI-SAM live mode")
    assert opened_pages.read_text().endswith("docs/qupath.md\n")
    assert {"default", "gland (60 µm)", "annotation", "Stroma"} <= set(choices)
