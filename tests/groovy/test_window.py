"""The whole story in QuPath's own window: mouse and keys, and no server at the start."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fixtures.qupath_fixtures import make_project, objects_in
from fixtures.qupath_window import State, Window, open_window
from fixtures.script_runs import RunningServer, note_program
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow, pytest.mark.window]

RECTANGLE = ((150, 150), (290, 290))
FIRST_CLICK, SECOND_CLICK, OUTSIDE_CLICK = (370, 360), (395, 405), (450, 455)
THIRD_CLICK = (350, 410)


def results(state: State) -> list[dict[str, Any]]:
    return [one for one in state["objects"] if one["is_result"]]


def ids(state: State) -> set[str]:
    return {one["id"] for one in results(state)}


def changed_area(state: State, other: State) -> float:
    (area,) = (one["area"] for one in results(state) if one["id"] not in ids(other))
    return float(area)


def has_other_results(state: State, before: State) -> bool:
    return len(results(state)) == len(results(before)) and ids(state) != ids(before)


def points(state: State) -> list[int]:
    return sorted(one["points"] for one in state["objects"] if one["points"])


def take_back_before_the_outline(window: Window, before: State) -> None:
    """Click, and undo that while its outline is on the way."""
    window.click(100, 420)
    window.wait(lambda s: "…" in s["line"], "that the outline is on the way")
    window.keys("ctrl+z")
    back = window.wait(lambda s: points(s) == points(before), "the state before the click")
    assert ids(back) == ids(before)


def choose_larger(window: Window, before: State) -> State:
    """Choose a larger thing that the last click may mean."""
    window.keys("bracketright")
    chosen = window.wait(lambda s: has_other_results(s, before), "a larger one")
    assert changed_area(chosen, before) > changed_area(before, chosen)
    return chosen


def go_on_after_the_undo(window: Window, before: State) -> None:
    """Click again, which goes on with the same object, and undo that too."""
    window.click(*THIRD_CLICK)
    clicked = window.wait(lambda s: points(s) == [3], "a click that goes on after an undo")
    assert len(clicked["objects"]) == len(before["objects"])
    window.wait(lambda s: has_other_results(s, before), "its outline")
    window.keys("ctrl+z")
    window.wait(lambda s: points(s) == [2] and ids(s) == ids(before), "the state before it")


def test_from_the_first_rectangle_to_the_saved_image(
    qupath: QuPathProcess, tissue_path: Path, tmp_path: Path
) -> None:
    shutil.copy(tissue_path, tmp_path / "tissue.tif")
    project = qupath.run(make_project, tmp_path / "project", [tmp_path / "tissue.tif"])
    note_program(tmp_path, sys.executable, "-m", "wsisam_qupath")

    with open_window(tmp_path, project, "tissue.tif") as window:
        window.show(256, 256, 1)
        window.press_button()
        window.wait(lambda s: "ready" in (s["line"] or ""), "a server that started by itself")

        window.keys("r")
        window.drag(*RECTANGLE)
        seen = window.wait(lambda s: len(results(s)) == 1, "the outline in the rectangle")
        assert seen["objects"][0]["id"] == results(seen)[0]["parent"]
        assert "[ ]" not in seen["line"], "a rectangle says how large its object is"

        window.choose_points_tool()
        window.keys("Return")
        window.hover(*FIRST_CLICK)
        window.wait(lambda s: s["preview"], "the outline under the resting mouse")
        window.click(*FIRST_CLICK)
        one = window.wait(lambda s: len(results(s)) == 2, "the outline of the click")
        window.click(*SECOND_CLICK)
        two = window.wait(lambda s: has_other_results(s, one), "the outline of two clicks")
        assert points(two) == [2]
        window.keys("x")
        window.wait(lambda s: "OUTSIDE" in s["line"], "clicks that lie outside")
        window.click(*OUTSIDE_CLICK)
        window.wait(lambda s: has_other_results(s, two), "the outline without what is outside")
        window.keys("x")
        window.wait(lambda s: "inside" in s["line"], "clicks that lie inside")

        window.keys("ctrl+z")
        after = window.wait(lambda s: points(s) == [2], "the state before that click")
        assert ids(after) == ids(two), "one step takes back a click with its outline"
        assert set(after["thick"]) == ids(two), "and what is drawn over the slide"

        go_on_after_the_undo(window, after)
        window.keys("Return")
        take_back_before_the_outline(window, two)
        window.keys("Return")
        window.click(100, 420)
        three = window.wait(lambda s: len(results(s)) == 3, "the next object")
        last = choose_larger(window, three)
        saved = project.parent / "data" / "1" / "data.qpdata"
        window.keys("Return")
        window.choose("Segment all")
        done = window.wait_for_line("Nothing is left to do", "that all is outlined")
        assert ids(done) == ids(last), "what was accepted stays, whatever the size is now"
        window.keys("ctrl+s")
        window.wait(lambda _: saved.is_file(), "the saved image")
        assert "Ready: lite-medsam" in window.log, "the server's log is in QuPath's"

    read = qupath.run(objects_in, project, "1")
    assert len(read) == len(last["objects"])
    assert {one.id for one in read if "wsisam_prompt_id" in one.metadata} == ids(last)


def test_other_drawings_another_server_corrections_and_a_change_of_the_image(
    qupath: QuPathProcess, tissue_path: Path, tmp_path: Path
) -> None:
    slides = [Path(shutil.copy(tissue_path, tmp_path / name)) for name in ("a.tif", "b.tif")]
    project = qupath.run(make_project, tmp_path / "project", slides)
    saved = project.parent / "data" / "1" / "data.qpdata"

    with open_window(tmp_path, project, "a.tif") as window, ExitStack() as stack:
        window.show(256, 256, 1)
        window.press_button()
        window.wait(lambda s: "No server" in (s["line"] or ""), "that there is no server")
        window.keys("o")
        window.drag(*RECTANGLE)
        window.wait(lambda s: len(s["objects"]) == 1, "an ellipse")
        window.keys("Return")
        server = RunningServer.start(tmp_path, "--adapter", "none")
        stack.callback(server.stop)
        one = window.wait(lambda s: len(results(s)) == 1, "what waited for the server")
        assert results(one)[0]["parent"] == one["objects"][0]["id"]

        window.run("viewer.setSelectedObject(viewer.getHierarchy().getDetectionObjects()[0])")
        window.choose("Refine")
        window.wait(lambda s: "too small" in s["line"], "what to click")
        window.click(*FIRST_CLICK)
        window.wait(lambda s: has_other_results(s, one), "the corrected outline")

        window.press_button()
        off = window.wait(lambda s: s["line"] is None, "the end of live mode")
        window.run("viewer.getHierarchy().clearAll()")
        window.wait(lambda s: not s["objects"], "an empty image")
        window.run("gui.getUndoRedoManager().undoOnce()")
        window.wait(lambda s: ids(s) == ids(off), "what QuPath takes back without live mode")
        boxes = ", ".join(f"[{40 + 70 * (n % 6)}, {40 + 110 * (n // 6)}]" for n in range(24))
        window.run(
            "viewer.getHierarchy().clearAll();"
            f"viewer.getHierarchy().addObjects([{boxes}].collect {{"
            "qupath.lib.objects.PathObjects.createAnnotationObject(qupath.lib.roi.ROIs"
            ".createRectangleROI(it[0], it[1], 60, 60, viewer.getImagePlane())) })"
        )
        window.choose("Segment all")
        first = window.wait(results, "the first outlines")
        window.run(
            "def data = viewer.getImageData(); def list = gui.getProject().getImageList();"
            "list[0].saveImageData(data); gui.openImageEntry(list[1])"
        )
        window.wait(lambda s: not s["objects"], "the other image")
        then = saved.stat().st_mtime_ns
        window.wait(lambda _: saved.stat().st_mtime_ns > then, "the others in their image")

    read = qupath.run(objects_in, project, "1")
    answered = {one.metadata["wsisam_prompt_id"] for one in read if "Detection" in one.type}
    assert len(answered) > len(results(first))


EXAMPLE = (
    "def like = qupath.lib.objects.classes.PathClass.fromString('gland');"
    "def area = qupath.lib.objects.PathObjects.createAnnotationObject(qupath.lib.roi.ROIs"
    ".createRectangleROI(248, 298, 144, 212, viewer.getImagePlane()), like);"
    "viewer.getHierarchy().addObject(area); viewer.setSelectedObject(area)"
)
SELECT_EXAMPLE = "viewer.setSelectedObject(viewer.getHierarchy().getAnnotationObjects()[0])"


def outlines(state: State) -> set[tuple[str, float]]:
    """What is found, by class and area: ids change with the examples."""
    return {(one["path_class"], one["area"]) for one in results(state)}


def test_objects_like_an_example_are_found_and_what_is_rejected_is_not_found_again(
    qupath: QuPathProcess, tissue_path: Path, tmp_path: Path
) -> None:
    shutil.copy(tissue_path, tmp_path / "tissue.tif")
    project = qupath.run(make_project, tmp_path / "project", [tmp_path / "tissue.tif"])

    with open_window(tmp_path, project, "tissue.tif") as window, ExitStack() as stack:
        stack.callback(RunningServer.start(tmp_path).stop)
        window.show(256, 256, 1)
        window.run(EXAMPLE)
        window.choose("Find all")
        window.answer("Find all objects")
        first = window.wait_for_line("objects found.", "what was found")
        found = results(first)
        assert len(found) >= 3
        assert {one["path_class"] for one in found} == {"gland"}
        assert {one["type"] for one in found} == {"PathDetectionObject"}
        assert f"{len(found)} objects found." in window.log

        window.run("gui.getUndoRedoManager().undoOnce()")
        window.wait(lambda s: not results(s), "the image before the search, by one step")
        window.run("gui.getUndoRedoManager().redoOnce()")
        window.wait(lambda s: len(results(s)) == len(found), "what was found, again")

        gone, renamed = sorted(found, key=lambda one: one["area"])[-2:]
        window.run(
            "def byId = viewer.getHierarchy().getDetectionObjects()"
            ".collectEntries { [it.getID().toString(), it] };"
            f"viewer.getHierarchy().removeObject(byId['{gone['id']}'], true);"
            f"byId['{renamed['id']}']"
            ".setPathClass(qupath.lib.objects.classes.PathClass.fromString('gland*'));"
            + SELECT_EXAMPLE
        )
        window.choose("Find all")
        window.answer("Find all objects")
        again = window.wait_for_line("No further objects", "the second search")

    assert gone["id"] not in ids(again)
    assert not any(one["area"] == gone["area"] for one in results(again))
    assert ("gland*", renamed["area"]) in outlines(again)
    assert ("gland", renamed["area"]) not in outlines(again)
    kept = outlines(first) - {("gland", gone["area"]), ("gland", renamed["area"])}
    assert kept <= outlines(again)
    assert again["steps"] == first["steps"]
