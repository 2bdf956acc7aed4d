"""A QuPath project goes through batch, as a user has it; QuPath itself says what is in it then."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from shapely import from_wkt

from fixtures.batch_projects import (
    BLANK,
    BOX,
    CELL,
    CLICKS,
    HIGH_BOX,
    LOW_BOX,
    MIRRORED,
    PLAIN_BOX,
    SECTION,
    STACK,
    Objects,
    copy_of,
    data_of,
    files_of,
    journaled,
    leftovers,
    seen_by,
)
from fixtures.command_line import Answer, features_of, run
from fixtures.qupath_fixtures import Seen
from fixtures.qupath_program import told_by_script
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.batch.command import run_batch
from wsisam_qupath.project.batch.request import BatchRequest
from wsisam_qupath.project.restore import run_restore
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow]

PROMPTS = {
    SECTION: [BOX, CLICKS],
    MIRRORED: [PLAIN_BOX],
    STACK: [LOW_BOX, HIGH_BOX],
    BLANK: [],
}
COARSE = OutlineOptions(simplify_um=2.0)
MEASUREMENTS = {"Predicted IoU", "Stability score", "Area µm^2"}

COUNT = """
import qupath.lib.io.GsonTools
def told = getDetectionObjects().collect { [
    id: it.getID().toString(), parent: it.getParent().getID().toString(),
    path_class: it.getPathClass()?.toString(), measurements: it.getMeasurements(),
    metadata: it.getMetadata(),
] }
println 'TOLD ' + GsonTools.getInstance().toJson([
    image: getProjectEntry().getImageName(), objects: getAllObjects(false).size(), detections: told,
])
"""

TAKE_OVER = """
def results = getDetectionObjects().findAll { it.getMetadata().containsKey('wsisam_prompt_id') }
def name = getProjectEntry().getImageName()
if (name == 'Schnitt 1.tif') {
    results[0].setLocked(true)
    results[1].setName('geprüft')
}
if (name == 'Schnitt 2.tif') {
    // As QuPath's own command does it: a new object, of which the outline alone is the same.
    def annotation = PathObjects.createAnnotationObject(results[0].getROI(), getPathClass('Gland'))
    removeObject(results[0], true)
    addObject(annotation)
}
println 'TOLD {"results": ' + results.size() + '}'
"""


@dataclass(frozen=True)
class Story:
    """What a batch did to a project.

    Attributes:
        before, after: what QuPath sees in it, by the names of the images.
        old, new: its files.
    """

    project: Path
    answer: Answer
    before: Objects
    after: Objects
    old: Mapping[str, tuple[bytes, int]]
    new: Mapping[str, tuple[bytes, int]]
    report: list[dict[str, str]]

    def results(self, name: str) -> list[Seen]:
        return results_in(self.after[name])


def results_in(objects: Mapping[str, Seen]) -> list[Seen]:
    return [one for one in objects.values() if "wsisam_prompt_id" in one.metadata]


def overlap(one: Seen, other: Seen) -> float:
    """What two outlines share, as a share of both together."""
    ours, theirs = from_wkt(one.wkt), from_wkt(other.wkt)
    return float(ours.intersection(theirs).area / ours.union(theirs).area)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, created: Path) -> Story:
    folder = tmp_path_factory.mktemp("story")
    project, report = copy_of(created, folder / "Größe 1"), folder / "report.csv"
    before, old = seen_by(qupath, project), files_of(project)
    answer = run("batch", project, "--report", report)
    after, new = seen_by(qupath, project), files_of(project)
    with report.open(encoding="utf-8-sig", newline="") as file:
        return Story(project, answer, before, after, old, new, list(csv.DictReader(file)))


@pytest.fixture
def done(story: Story, tmp_path: Path) -> Path:
    """A copy of the project that went through batch."""
    return copy_of(story.project, tmp_path / "done")


# The story


def test_a_project_is_done_with_exit_code_0_and_nothing_on_stdout(story: Story) -> None:
    assert (story.answer.code, story.answer.out) == (0, "")
    assert f"{SECTION}: 2 outlined, 1 other area left alone" in story.answer.err
    assert "4 images: 3 done, 1 with nothing to do, 0 failed. 5 outlines in" in story.answer.err


@pytest.mark.parametrize("name", PROMPTS)
def test_each_prompt_has_one_detection_below_it_of_its_class(story: Story, name: str) -> None:
    found = story.results(name)

    assert sorted(str(one.parent) for one in found) == sorted(PROMPTS[name])
    for one in found:
        prompt = story.after[name][str(one.parent)]
        assert one.type == "PathDetectionObject"
        assert (one.path_class, one.plane) == (prompt.path_class, prompt.plane)
        assert one.metadata["wsisam_prompt_id"] == prompt.id
        assert set(one.measurements) == MEASUREMENTS
        assert from_wkt(one.wkt).is_valid
        assert from_wkt(one.wkt).area > 100


def test_what_people_drew_is_as_it_was(story: Story) -> None:
    drawn = {
        name: {key: one for key, one in objects.items() if key in story.before[name]}
        for name, objects in story.after.items()
    }

    assert drawn == story.before
    assert drawn[SECTION][BOX].is_locked
    assert drawn[SECTION][CELL].measurements == {"DAB": 0.5}


def test_only_the_objects_of_images_with_prompts_are_written(story: Story) -> None:
    changed = {name for name in story.old if story.new[name] != story.old[name]}
    written = [data_of(story.project, name).parent.name for name in (SECTION, MIRRORED, STACK)]

    assert changed == {
        f"data/{n}/{file}" for n in written for file in ("data.qpdata", "summary.json")
    }
    assert "project.qpproj" not in changed
    new = {name for name in story.new if name not in story.old}
    blank = data_of(story.project, BLANK).parent.name
    assert not [name for name in new if name.startswith(f"data/{blank}/")]
    assert {name for name in new if ".wsisam-backup" not in name} == {
        "wsisam-qupath/lock",
        *(f"wsisam-qupath/history/{n}.json" for n in written),
    }


def test_a_dated_copy_of_the_objects_as_they_were_is_kept(story: Story) -> None:
    for name in (SECTION, MIRRORED, STACK):
        data = data_of(story.project, name)
        (backup,) = data.parent.glob("data-0001-batch-20??????-??????Z.wsisam-backup2.qpdata")
        assert backup.read_bytes() == story.old[f"data/{data.parent.name}/data.qpdata"][0]


def test_each_plane_of_a_stack_is_answered_by_its_own_pixels(story: Story) -> None:
    low, high = sorted(story.results(STACK), key=lambda one: one.plane)
    (plain,) = story.results(MIRRORED)

    assert (low.plane, high.plane) == ((-1, 0, 0), (-1, 1, 0))
    # The slides are stored as JPEG, the stack is not.
    assert overlap(high, plain) > 0.98


def test_the_report_names_what_is_in_the_project(story: Story) -> None:
    rows = {
        (row["image"], row["prompt_id"]): row["result_id"]
        for row in story.report
        if row["result_id"]
    }

    assert rows == {
        (name, str(one.parent)): one.id for name in PROMPTS for one in story.results(name)
    }
    others = [(row["image"], row["state"]) for row in story.report if not row["result_id"]]
    assert others == [(BLANK, ""), (MIRRORED, "skipped")]


def test_qupath_itself_counts_the_same(story: Story, tmp_path: Path) -> None:
    project, script = copy_of(story.project, tmp_path / "p"), tmp_path / "count.groovy"
    script.write_text(COUNT, encoding="utf-8")

    told = {one["image"]: one for one in told_by_script("-p", project, script)}

    assert {name: one["objects"] for name, one in told.items()} == {
        name: len(objects) for name, objects in story.after.items()
    }
    for name in PROMPTS:
        theirs = {one.pop("id"): one for one in told[name]["detections"] if one["metadata"]}
        assert theirs == {
            one.id: {
                "parent": one.parent,
                **({"path_class": one.path_class} if one.path_class else {}),
                "measurements": pytest.approx(one.measurements),
                "metadata": one.metadata,
            }
            for one in story.results(name)
        }


# Again


def test_a_second_run_has_nothing_to_do_loads_no_model_and_changes_no_byte(
    done: Path, tmp_path: Path
) -> None:
    before = files_of(done)

    answer = run("batch", done, "--mpp", "3", WSISAM_QUPATH_CACHE=str(tmp_path / "cache"))

    assert (answer.code, answer.out) == (0, "")
    assert "0 done, 4 with nothing to do, 0 failed. 0 outlines" in answer.err
    assert list((tmp_path / "cache").iterdir()) == []
    assert files_of(done) == before


@pytest.mark.walk
def test_newer_answers_replace_older_ones_or_stand_beside_them(
    story: Story, done: Path, qupath: QuPathProcess
) -> None:
    def results() -> list[Seen]:
        return results_in(seen_by(qupath, done)[MIRRORED])

    (first,) = story.results(MIRRORED)
    only = BatchRequest(done, images=(MIRRORED,))

    assert run_batch(replace(only, options=OutlineOptions(class_name="Drüse"))).is_complete
    (again,) = results()
    assert (again.id, again.wkt, again.path_class) == (first.id, first.wkt, "Drüse")
    assert (again.parent, again.metadata["wsisam_class"]) == (PLAIN_BOX, "Drüse")

    assert run_batch(replace(only, options=COARSE)).is_complete
    (coarse,) = results()
    assert coarse.id != first.id
    assert coarse.parent == PLAIN_BOX
    assert len(coarse.wkt) < len(first.wkt) / 2

    assert run_batch(replace(only, keep=True)).is_complete
    assert {one.id: (one.wkt, one.parent) for one in results()} == {
        one.id: (one.wkt, PLAIN_BOX) for one in (first, coarse)
    }

    classes = json.loads((done.parent / "classifiers" / "classes.json").read_bytes())
    names = [one["name"] for one in classes["pathClasses"]]
    assert names.count("Drüse") == 1
    assert len(list(data_of(done, MIRRORED).parent.glob("*.wsisam-backup2.qpdata"))) == 4


@pytest.mark.walk
def test_outdated_answers_stay_until_they_are_to_be_renewed_and_the_original_comes_back(
    project: Path,
    qupath: QuPathProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only = BatchRequest(project, images=(MIRRORED,))
    before = seen_by(qupath, project)
    with monkeypatch.context() as early:
        early.setattr("wsisam_qupath.inference.chosen.ANSWERS", 1)
        assert run_batch(only).is_complete
    (first,) = results_in(seen_by(qupath, project)[MIRRORED])
    written = files_of(project)

    plain = run("batch", project, "--images", MIRRORED)
    assert files_of(project) == written
    assert (
        "1 result is of an older version of this program or of another precision, which answered "
        "otherwise. To renew "
        "them, add --redo outdated." in plain.err
    )

    answer = run("batch", "--images", MIRRORED, "--redo", "outdated", project)
    (renewed,) = results_in(seen_by(qupath, project)[MIRRORED])
    assert (renewed.wkt, renewed.parent) == (first.wkt, first.parent)
    assert renewed.id != first.id
    assert "of an older version" not in answer.err

    run_restore(project, (), "original")
    assert seen_by(qupath, project) == before


def test_where_the_model_now_sees_nothing_the_earlier_result_stays(done: Path) -> None:
    before = files_of(done, ours=False)
    blind = BatchRequest(done, images=(MIRRORED,), options=OutlineOptions(min_area_um2=1e9))

    assert run_batch(blind).is_complete
    assert files_of(done, ours=False) == before

    known = files_of(done)
    assert run_batch(blind).is_complete
    assert files_of(done) == known


def test_what_a_person_took_over_is_neither_replaced_nor_a_prompt(
    done: Path, qupath: QuPathProcess, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "take over.groovy"
    script.write_text(TAKE_OVER, encoding="utf-8")
    told = told_by_script("-p", done, "--save", script)
    assert sorted(one["results"] for one in told) == [0, 1, 2, 2]
    before = seen_by(qupath, done)
    assert [one.type for one in before[MIRRORED].values()] == ["PathAnnotationObject"] * 3

    assert run_batch(
        BatchRequest(done, images=("Schnitt *",), redo="all", options=COARSE)
    ).is_complete

    assert seen_by(qupath, done) == before
    said = capfd.readouterr().err
    assert f"{SECTION}: 2 left to their reviewer, 1 other area left alone" in said
    assert f"{MIRRORED}: 1 left to their reviewer, 1 skipped" in said


@pytest.mark.walk
def test_without_writing_outlines_go_to_files_and_later_into_the_project(
    story: Story, project: Path, tmp_path: Path, qupath: QuPathProcess
) -> None:
    before, report, out = files_of(project, ours=False), tmp_path / "r.json", tmp_path / "out"
    some = BatchRequest(project, images=("Schnitt *",), limit=2)

    assert run_batch(replace(some, write=False, export=out, report=report)).is_complete

    assert files_of(project, ours=False) == before
    features = features_of(out / f"{SECTION}.geojson")
    assert {one["id"] for one in features} == {one.id for one in story.results(SECTION)}
    told = json.loads(report.read_bytes())
    assert told["counts"]["prompts"] == {"outlined": 2, "skipped": 1}
    assert [row["result_id"] for row in told["rows"] if row["result_id"]] == [
        one["id"] for one in features
    ]

    # What was computed is not computed again, not even after a run that wrote a part of it.
    assert len(journaled(project, SECTION)) == 2
    for _ in range(2):
        answer = run("batch", project, "--limit", "1", WSISAM_QUPATH_CACHE=str(tmp_path / "cache"))
        assert "failed. 1 outline in" in answer.err
    assert list((tmp_path / "cache").iterdir()) == []
    after = seen_by(qupath, project)
    assert after[SECTION] == story.after[SECTION]
    assert not results_in(after[MIRRORED])
    assert not leftovers(project)


def test_images_are_chosen_by_name_pattern_or_id(
    story: Story, done: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = data_of(done, STACK).parent.name

    assert run_batch(BatchRequest(done, images=("*2.tif", stack))).is_complete

    lines = [line.split(":")[0] for line in capfd.readouterr().err.splitlines()]
    assert [line for line in lines if line.startswith("[")] == [
        f"[1/2] {MIRRORED}",
        f"[2/2] {STACK}",
    ]
