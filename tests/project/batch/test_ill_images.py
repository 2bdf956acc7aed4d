"""Ill images fail with a sentence, stay as they are, and stop none of the others."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from shapely import from_wkt

from fixtures.batch_projects import copy_of, files_of
from fixtures.command_line import Answer, Feature, identity, run
from fixtures.ill_projects import (
    BARE_CELL,
    BOX,
    CELL,
    CROWDED,
    GONE,
    HIGH,
    MANY,
    N_MANY,
    NAMES,
    NUCLEUS,
    ODD_ONES,
    SPOT,
    TROUBLES,
    UNSEEN,
    WITHOUT_SUMMARY,
    build,
    odd_in,
    seen_in,
)
from fixtures.odd_objects import CROSSING, ODD, Odd, features_in, nuclei_in
from fixtures.qupath_fixtures import Seen, objects_in, tma_core_names
from wsisam_qupath.geojson.provenance import PROMPT_KEY
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.slow, pytest.mark.walk]


@dataclass(frozen=True)
class Ward:
    """A project with every ill, and what batch made of it.

    Attributes:
        ids: of its images, by their names.
        before, after: what QuPath sees in the images that are whole, by their names.
        odd_before, odd_after: the same of the image of odd objects.
        many_before, many_after: the same of the image of many, as GeoJSON.
        old, new: its files.
        report: of the batch, by the names of the images.
    """

    project: Path
    answer: Answer
    ids: Mapping[str, str]
    before: Mapping[str, dict[str, Seen]]
    after: Mapping[str, dict[str, Seen]]
    odd_before: Mapping[str, Odd]
    odd_after: Mapping[str, Odd]
    many_before: Mapping[str, Feature]
    many_after: Mapping[str, Feature]
    old: Mapping[str, tuple[bytes, int]]
    new: Mapping[str, tuple[bytes, int]]
    report: Mapping[str, dict[str, Any]]

    def results(self, name: str) -> list[Seen]:
        return [one for one in self.after[name].values() if PROMPT_KEY in one.metadata]

    def others(self, name: str) -> list[Seen]:
        return [one for one in self.after[name].values() if PROMPT_KEY not in one.metadata]


@pytest.fixture(scope="module")
def ward(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, tissue_path: Path
) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    project, ids = build(folder, qupath, tissue_path)
    before, odd_before = seen_in(qupath, project, ids), odd_in(qupath, project, ids)
    many_before = qupath.run(features_in, project, ids[MANY])
    old = files_of(project, ours=False)
    report = folder / "report.json"

    answer = run("batch", project, "--device", "cpu", "--report", report)

    told = json.loads(report.read_bytes())["images"]
    return Ward(
        project,
        answer,
        ids,
        before,
        seen_in(qupath, project, ids),
        odd_before,
        odd_in(qupath, project, ids),
        many_before,
        qupath.run(features_in, project, ids[MANY]),
        old,
        files_of(project, ours=False),
        {one["name"].removesuffix(".tif"): one for one in told},
    )


@pytest.mark.qupath
def test_failed_images_stop_none_of_the_others(ward: Ward) -> None:
    assert (ward.answer.code, ward.answer.out) == (3, "")
    assert "Traceback" not in ward.answer.err
    assert "\tat " not in ward.answer.err  # of Java
    assert ward.answer.err.endswith("\nWhere slides were moved, add --remap OLD=NEW.\n")
    done = {name for name, one in ward.report.items() if one["state"] == "done"}
    assert done == {WITHOUT_SUMMARY, ODD_ONES, CROWDED, MANY}
    assert ward.report[UNSEEN]["state"] == "nothing to do"
    assert f"{len(NAMES)} images: 4 done, 1 with nothing to do, 10 failed." in ward.answer.err


@pytest.mark.qupath
@pytest.mark.parametrize("name", TROUBLES)
def test_an_ill_image_fails_with_a_sentence_and_stays_as_it_is(ward: Ward, name: str) -> None:
    assert ward.report[name]["state"] == "failed"
    assert re.search(TROUBLES[name], ward.report[name]["reason"])
    told = [line for line in ward.answer.words if line.startswith(f"{name}.tif: failed. ")]
    assert len(told) == 1
    assert re.search(TROUBLES[name], told[0])
    assert "please report" not in told[0]
    assert files_below(ward.new, ward.ids[name]) == files_below(ward.old, ward.ids[name])


def files_below(files: Mapping[str, tuple[bytes, int]], entry_id: str) -> dict[str, object]:
    return {path: file for path, file in files.items() if path.startswith(f"data/{entry_id}/")}


@pytest.mark.qupath
def test_the_project_file_and_images_without_prompts_stay_as_they_are(ward: Ward) -> None:
    assert ward.new[ward.project.name] == ward.old[ward.project.name]
    assert files_below(ward.new, ward.ids[UNSEEN]) == files_below(ward.old, ward.ids[UNSEEN])


@pytest.mark.qupath
def test_a_missing_summary_is_ordinary_and_written_anew(ward: Ward) -> None:
    (result,) = ward.results(WITHOUT_SUMMARY)

    assert (result.parent, result.path_class) == (BOX, "Gland")
    summary = json.loads(ward.new[f"data/{ward.ids[WITHOUT_SUMMARY]}/summary.json"][0])
    assert summary["hierarchy"]["nObjects"] == 3


@pytest.mark.qupath
def test_a_class_that_the_project_does_not_know_reaches_its_list(ward: Ward) -> None:
    results = new_in(ward.odd_before, ward.odd_after)
    listed = json.loads(ward.new["classifiers/classes.json"][0])["pathClasses"]

    assert {result.path_class for result in results} == {"Gland", ODD}
    colors = {one["name"]: one["color"] for one in listed}
    assert colors[ODD] == next(one.color for one in results if one.path_class == ODD)
    assert "Tumor" in colors  # QuPath's own, since this project had no list


@pytest.mark.qupath
def test_what_marks_no_object_is_skipped_by_name_and_kept(ward: Ward) -> None:
    assert len(new_in(ward.odd_before, ward.odd_after)) == 2
    for words in (
        "it has no area",
        "its coordinates are not all finite",
        "its coordinates are empty",
        "it lies outside of the slide",
    ):
        assert f": {words}" in ward.answer.err
    assert f"{ODD_ONES}.tif: 2 outlined, 8 skipped, 1 other area left alone" in ward.answer.err


@pytest.mark.qupath
def test_cores_cells_detections_and_other_planes_are_left_untouched(
    ward: Ward, qupath: QuPathProcess
) -> None:
    entry_id = ward.ids[CROWDED]

    assert ward.others(CROWDED) == list(ward.before[CROWDED].values())
    assert {CELL, BARE_CELL, SPOT, HIGH} < ward.before[CROWDED].keys()
    assert ward.before[CROWDED][HIGH].plane == (-1, 3, 1)
    assert qupath.run(tma_core_names, ward.project, entry_id) == [False, True]
    assert qupath.run(nuclei_in, ward.project, entry_id) == {CELL: NUCLEUS}
    (result,) = ward.results(CROWDED)
    assert result.parent == BOX


@pytest.mark.qupath
def test_five_thousand_annotations_are_left_alone_and_their_prompts_done(ward: Ward) -> None:
    assert len(ward.many_before) == N_MANY
    results = new_in(ward.many_before, ward.many_after)
    assert {one["parent"] for one in results} == {BOX, identity(50), identity(51)}
    assert f"{MANY}.tif: 3 outlined, {N_MANY - 3} other areas left alone" in ward.answer.err
    assert ward.report[MANY]["seconds"] < 60


# What cures them


@pytest.mark.qupath
def test_a_moved_slide_is_found_and_a_crossing_outline_refined(
    ward: Ward, qupath: QuPathProcess, tmp_path: Path
) -> None:
    project = copy_of(ward.project, tmp_path / "Kopie")
    folder, name = ward.project.parent.parent, f"{GONE}.tif"

    answer = run(
        "batch",
        project,
        *("--images", name, "--images", f"{ODD_ONES}.tif"),
        *("--prompts", "Gland", "--prompts", ODD),
        *("--remap", f"{folder / 'Schöne Bilder' / name}={folder / name}"),
        *("--device", "cpu"),
    )

    assert (answer.code, answer.out) == (0, ""), answer.err
    assert len(qupath.run(objects_in, project, ward.ids[GONE])) == 2
    (refined,) = new_in(ward.odd_after, odd_in(qupath, project, ward.ids))
    assert ward.odd_before[str(refined.parent)].corners == str(list(CROSSING))
    assert from_wkt(refined.wkt).is_valid


T = TypeVar("T")


def new_in(before: Mapping[str, T], after: Mapping[str, T]) -> list[T]:
    """What was added; all else is as it was."""
    assert {object_id: after.get(object_id) for object_id in before} == before
    return [one for object_id, one in after.items() if object_id not in before]


@pytest.mark.qupath
@pytest.mark.skipif(sys.platform != "linux", reason="QuPath is laid out otherwise elsewhere")
def test_a_qupath_newer_than_any_known_is_tried(ward: Ward, tmp_path: Path) -> None:
    found = find_installation()
    lib = tmp_path / "QuPath-9.9.9" / "lib"
    (lib / "app").mkdir(parents=True)
    (lib / "runtime").symlink_to(found.runtime_dir)
    for jar in found.app_dir.iterdir():
        (lib / "app" / jar.name.replace(f"-{found.version}.jar", "-9.9.9.jar")).symlink_to(jar)
    before = files_of(ward.project)

    answer = run(
        *("batch", ward.project, "--dry-run", "--images", f"{WITHOUT_SUMMARY}.tif"),
        PAQUO_QUPATH_DIR=str(lib.parent),
    )

    assert answer.code == 0, answer.err
    assert "1 answered before" in answer.out
    assert files_of(ward.project) == before
