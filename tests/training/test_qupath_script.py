"""The worst cases of a training, opened in QuPath's own window."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures.qupath_fixtures import add_objects, make_project
from fixtures.qupath_window import open_window
from fixtures.training_data import drawn, ellipse
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath_training.report.qupath_script import write_qupath_script
from wsisam_qupath_training.report.worst_cases import Case

pytestmark = [pytest.mark.qupath, pytest.mark.slow, pytest.mark.window]

OBJECT = "0a4f9c1e-5b52-4c8e-9d3b-7f1f7a2c9e10"
CHOOSE = (
    "javafx.stage.Window.getWindows().find { it instanceof javafx.stage.Stage && it.getTitle() == "
    "'Worst cases' }.getScene().getRoot().getSelectionModel().select(0)"
)


def test_a_click_on_a_case_shows_its_image_at_the_object(
    qupath: QuPathProcess, tissue_path: Path, tmp_path: Path
) -> None:
    slides = [Path(shutil.copy(tissue_path, tmp_path / name)) for name in ("a.tif", "b.tif")]
    project = qupath.run(make_project, tmp_path / "project", slides)
    qupath.run(add_objects, project, "2", [{**drawn(ellipse(300, 200, 40, 30)), "id": OBJECT}])
    case = Case("points", "1_points", 12.3, "export", "b.tif", OBJECT, b"")
    script = tmp_path / "mine.worst-cases.groovy"
    script.write_text(write_qupath_script([case]), encoding="utf-8")

    with open_window(tmp_path, project, "a.tif") as window:
        assert window.state()["objects"] == []
        window.run(
            "gui.getProject().getEntry(gui.getImageData()).saveImageData(gui.getImageData())"
        )
        window.run(f"new GroovyShell(gui.class.classLoader).evaluate(new File('{script}'))")
        # Behind what the script has put off, which opens its list.
        window.run(f"javafx.application.Platform.runLater {{ {CHOOSE} }}")
        seen = window.wait(
            lambda s: s["objects"] and abs(s["center"][0] - 300) < 3, "the object in the middle"
        )

    assert [one["id"] for one in seen["objects"]] == [OBJECT]
    assert abs(seen["center"][1] - 200) < 3
