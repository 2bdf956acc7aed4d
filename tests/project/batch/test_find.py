"""``batch --find`` over a real project: what QuPath sees in it before and after."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import shapely

from fixtures.batch_projects import (
    BLANK,
    BOX,
    MIRRORED,
    OUTLINE,
    REGION,
    SECTION,
    STACK,
    Batched,
    batched_copy,
    copy_of,
    data_of,
    files_of,
    journaled,
    leftovers,
    seen_by,
)
from fixtures.command_line import run
from fixtures.qupath_fixtures import Seen
from fixtures.qupath_program import told_by_script
from fixtures.running_batches import Moment, RunningBatch
from wsisam_qupath.errors import OptionError
from wsisam_qupath.project.batch.request import BatchRequest
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.report.progress import count_noun

FIND = ("--find", "Gland", "--min-score", "0.6")

REJECT = """
def found = getDetectionObjects().findAll { it.getMetadata().containsKey('wsisam_search') }
def one = found.max { it.getROI().getArea() }
one?.setPathClass(getPathClass('Gland*'))
println 'TOLD {"id": "' + one?.getID() + '"}'
"""


def finds(objects: Mapping[str, Seen]) -> dict[str, Seen]:
    return {key: one for key, one in objects.items() if "wsisam_search" in one.metadata}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searched") / "p"


@pytest.fixture(scope="module")
def story(qupath: QuPathProcess, created: Path, folder: Path) -> Batched:
    return batched_copy(qupath, created, folder, *FIND)


@pytest.fixture
def found(story: Batched, folder: Path, tmp_path: Path) -> Path:
    """A copy of the project in which everything is found."""
    assert story.after
    return copy_of(folder / "project.qpproj", tmp_path / "again")


@pytest.mark.qupath
@pytest.mark.slow
def test_more_of_a_class_is_found_in_each_image_that_has_examples(story: Batched) -> None:
    found = {name: finds(objects) for name, objects in story.after.items()}

    assert found[SECTION]
    assert found[STACK]
    assert not found[MIRRORED], "its only example lies outside of the slide"
    assert not found[BLANK]
    assert {one.path_class for one in found[SECTION].values()} == {"Gland"}
    assert {one.type for one in found[SECTION].values()} == {"PathDetectionObject"}
    assert {one.plane[1] for one in found[STACK].values()} == {0, 1}, "on both planes"
    for name, objects in story.before.items():
        assert objects.items() <= story.after[name].items(), "nothing else changes"


@pytest.mark.qupath
@pytest.mark.slow
def test_a_find_lies_below_the_smallest_area_that_holds_it_and_not_in_an_example(
    story: Batched,
) -> None:
    drawn = shapely.from_wkt(story.before[SECTION][BOX].wkt)
    edge = shapely.from_wkt(story.before[SECTION][OUTLINE].wkt)

    for one in finds(story.after[SECTION]).values():
        outline = shapely.from_wkt(one.wkt)
        in_edge = edge.intersects(outline.representative_point()) and outline.area < edge.area
        assert one.parent == (OUTLINE if in_edge else REGION)
        assert outline.intersection(drawn).area <= 0.5 * min(outline.area, drawn.area)


@pytest.mark.qupath
@pytest.mark.slow
def test_what_was_searched_is_not_searched_again_unless_it_is_asked_for(
    story: Batched, found: Path, qupath: QuPathProcess
) -> None:
    before = files_of(found, ours=False)

    again = run("batch", found, *FIND)

    count = len(finds(story.after[SECTION]))
    assert again.code == 0, again.err
    assert files_of(found, ours=False) == before
    assert f"{count} answered before" in again.err
    assert "no annotation of this class is an example here" in again.err
    assert f"{BLANK}: no Gland is annotated: nothing is looked for." in again.err

    redone = run("batch", found, *FIND, "--redo", "--images", SECTION)

    assert redone.code == 0, redone.err
    assert f"{count_noun(count, 'outline')} in" in redone.err
    assert seen_by(qupath, found) == story.after

    back = run("restore", found, "--to", "original")

    assert back.code == 0, back.err
    assert seen_by(qupath, found) == story.before


@pytest.mark.qupath
@pytest.mark.slow
def test_a_rejected_find_is_not_found_again_and_the_others_stay(
    story: Batched, found: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    script = tmp_path / "reject.groovy"
    script.write_text(REJECT, encoding="utf-8")
    told_by_script("-p", found, "-i", SECTION, "--save", script)

    answer = run("batch", found, *FIND, "--images", SECTION)

    assert answer.code == 0, answer.err
    after = finds(seen_by(qupath, found)[SECTION])
    assert set(finds(story.after[SECTION])) <= set(after)
    (rejected,) = (one for one in after.values() if one.path_class == "Gland*")
    wrong = shapely.from_wkt(rejected.wkt)
    for one in after.values():
        shared = shapely.from_wkt(one.wkt).intersection(wrong).area
        assert one.id == rejected.id or shared <= 0.5 * wrong.area


STOPS = [
    None,
    ("os.rename", "history/{}.json"),
    ("os.rename", "data/{}/data.qpdata"),
    ("os.rename", "data/{}/summary.json"),
    ("os.remove", "journal/{}.jsonl"),
]
"""When a find is in the journal, then just before something is done to a file of the image."""


@pytest.mark.qupath
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills are POSIX's")
def test_after_any_kill_the_end_is_that_of_an_undisturbed_search(
    story: Batched, project: Path, qupath: QuPathProcess
) -> None:
    options = (*FIND, "--images", SECTION)
    entry_id = data_of(project, SECTION).parent.name
    for stop in STOPS:
        kill, at = signal.SIGKILL, stop and Moment(stop[0], stop[1].format(entry_id))
        with RunningBatch(project, *options, at=at, signal_number=kill) as batch:
            if at is None:
                batch.wait_until(lambda: bool(journaled(project, SECTION)))
                batch.kill()
            assert batch.ended().code == -kill
        assert seen_by(qupath, project)[SECTION] in (story.before[SECTION], story.after[SECTION])

    last = run("batch", project, *options)

    assert last.code == 0, last.err
    assert seen_by(qupath, project)[SECTION] == story.after[SECTION]
    assert not leftovers(project)
    assert not journaled(project, SECTION)
    assert "answered before" in run("batch", project, *options).err


@pytest.mark.parametrize(
    ("option", "value"),
    [("find", " "), ("find", "Gland*"), ("prompts", ("Gland",)), ("keep", True), ("limit", 3)],
)
def test_what_a_search_cannot_do_is_refused(option: str, value: object) -> None:
    choices = {"find": "Gland", option: value}

    with pytest.raises(OptionError) as caught:
        BatchRequest(Path("project.qpproj"), **choices)  # type: ignore[arg-type]

    assert caught.value.option == option
