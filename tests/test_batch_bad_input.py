"""Bad projects, images, disks and QuPaths: a sentence, an exit code, and nothing changed."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from shapely import from_wkt

from batch_projects import copy_of, files_of, words_of
from command_line import Answer, Feature, annotation, rectangle, run
from disks import small_disk
from odd_objects import (
    CROSSING,
    ODD,
    Odd,
    add_odd_annotations,
    features_in,
    nuclei_in,
    odd_objects_in,
)
from project_files import (
    QPDATA_HEAD,
    QPDATA_TAIL,
    altered,
    contents,
    image,
    make_project,
    metadata,
    save_data,
)
from qupath_fixtures import Seen, add_objects, add_tma_grid, objects_in, qupath, tma_core_names
from qupath_fixtures import make_project as make_qupath_project
from qupath_folders import make_qupath
from wsisam_qupath.geojson.provenance import PROMPT_KEY
from wsisam_qupath.qupath.installation import find_installation
from wsisam_qupath.qupath.process import QuPathProcess

__all__ = ["qupath"]  # a fixture

GLAND = (262, 0, 470, 302)
"""A rectangle on the tissue of conftest.py, level-0 px."""


def batch(project: Path, variables: Mapping[str, str]) -> Answer:
    """With variables of the environment."""
    return run("batch", project, cwd=None, **variables)


def complaint(answer: Answer) -> str:
    """The one line of a command that could not start."""
    assert (answer.code, answer.out) == (2, ""), answer
    (line,) = words_of(answer)
    assert line.startswith("wsisam-qupath: ")
    assert len(line) < 500
    return line


# Nothing can start: no project

NO_PROJECT = {
    "text.txt": "is not a QuPath project: pass the file that ends in .qpproj, or its folder",
    "text.qpproj": "is damaged or cut short (not JSON): put back a backup",
    "empty.qpproj": "is damaged or cut short (not JSON): put back a backup",
    "cut.qpproj": "QuPath keeps the one from before its last save in cut.qpproj.backup",
    "list.qpproj": "is not a QuPath project, for it lists no images: pass another file",
    "newer.qpproj": "QuPath 0.9.0 wrote the project",
    "without images.qpproj": "holds no images: add some in QuPath",
    "missing.qpproj": "There is no project",
    "leerer Ordner": "There is no QuPath project (.qpproj) in",
    "Ordner.qpproj": "There is no QuPath project (.qpproj) in",
    "": "holds 6 projects",
}


@pytest.fixture(scope="module")
def no_projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no projects") / "Größe 1"
    whole = make_project(folder, [image(1, "file:/gone.tif")], file_name="cut.qpproj").read_text()
    texts = {
        "text.txt": "no project",
        "text.qpproj": "no project",
        "empty.qpproj": "",
        "cut.qpproj": whole[: len(whole) // 2],
        "cut.qpproj.backup": whole,
        "list.qpproj": "[1, 2]",
        "newer.qpproj": whole.replace("0.6.0", "0.9.0"),
        "without images.qpproj": json.dumps({"version": "0.6.0", "images": []}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "leerer Ordner").mkdir()
    (folder / "Ordner.qpproj").mkdir()
    return folder


@pytest.fixture(scope="module")
def answers_to_no_projects(no_projects: Path) -> Mapping[str, Answer]:
    """Two at a time, for each takes a second to start."""
    before = contents(no_projects)
    with ThreadPoolExecutor(2) as threads:
        given = threads.map(lambda name: run("batch", no_projects / name), NO_PROJECT)
        answers = dict(zip(NO_PROJECT, given, strict=True))
    assert contents(no_projects) == before
    return answers


@pytest.mark.parametrize("name", NO_PROJECT)
def test_what_is_no_project_is_refused(
    answers_to_no_projects: Mapping[str, Answer], name: str
) -> None:
    assert NO_PROJECT[name] in complaint(answers_to_no_projects[name])


# Nothing can start: no QuPath, or the project cannot be written. No Java is needed for these.


@pytest.fixture
def sound(tissue_path: Path, tmp_path: Path) -> Path:
    """A project in which nothing is wrong, as far as can be seen without QuPath."""
    slide = image(1, tissue_path, metadata=metadata(size_px=(512, 512)))
    project = make_project(tmp_path / "Prüfung 1", [slide])
    save_data(project, 1)
    return project


@pytest.fixture
def like_qupath(tmp_path: Path) -> dict[str, str]:
    """Variables that have a QuPath found, which must not be started."""
    make_qupath(tmp_path / "QuPath-0.6.0")
    return {"PAQUO_QUPATH_DIR": str(tmp_path / "QuPath-0.6.0")}


def test_without_qupath_the_ways_to_get_it_are_named(sound: Path, tmp_path: Path) -> None:
    before = contents(sound.parent)

    answer = run(
        "batch",
        sound,
        PAQUO_QUPATH_DIR="",
        PAQUO_QUPATH_SEARCH_CONDA="false",
        PAQUO_QUPATH_SEARCH_DIRS=json.dumps([str(tmp_path)]),
    )

    assert "There is no QuPath where paquo looks for it. Run `wsisam-qupath setup`" in complaint(
        answer
    )
    assert contents(sound.parent) == before


def test_a_wrong_folder_of_qupath_is_named(sound: Path, tmp_path: Path) -> None:
    before = contents(sound.parent)

    answer = run("batch", sound, PAQUO_QUPATH_DIR=str(tmp_path / "nichts"))

    assert (
        f"PAQUO_QUPATH_DIR, or qupath_dir in .paquo.toml, names {tmp_path / 'nichts'}, which "
        in (complaint(answer))
    )
    assert contents(sound.parent) == before


def test_a_qupath_that_is_too_old_is_refused(sound: Path, tmp_path: Path) -> None:
    make_qupath(tmp_path / "QuPath", "0.3.2")
    before = contents(sound.parent)

    answer = run("batch", sound, PAQUO_QUPATH_DIR=str(tmp_path / "QuPath"))

    assert "is 0.3.2, which is too old: install 0.5.1 or newer" in complaint(answer)
    assert contents(sound.parent) == before


@pytest.mark.parametrize("options", [["--mpp", "0"], ["--mpp", "nan"]])
def test_a_scale_that_cannot_be_is_refused(sound: Path, options: list[str]) -> None:
    before = contents(sound.parent)

    assert "Pass µm per pixel, from 0.01 to 100" in complaint(run("batch", sound, *options))

    assert contents(sound.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders have no such mode")
def test_a_project_that_its_owner_protected_is_not_touched(
    sound: Path, like_qupath: dict[str, str]
) -> None:
    before = contents(sound.parent)
    sound.parent.chmod(0o555)
    try:
        answer = batch(sound, like_qupath)
    finally:
        sound.parent.chmod(0o755)

    assert f"cannot be written, for {sound.parent} is write-protected: allow writing" in complaint(
        answer
    )
    assert contents(sound.parent) == before


def test_a_project_on_a_read_only_disk_is_refused(
    sound: Path, like_qupath: dict[str, str], tmp_path: Path
) -> None:
    with read_only(sound.parent, tmp_path / "nur lesen") as folder:
        line = complaint(batch(folder / sound.name, like_qupath))

    assert f"cannot be written, for {folder} is write-protected: allow writing there, or" in line


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder at another place, where nobody can write; skips where it cannot be had."""
    at.mkdir()
    bind = ["mount", "--bind", str(folder), str(at)]
    if sys.platform != "linux" or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a folder as read-only, and on Linux only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(at)], check=True)
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_full_disk_is_refused(sound: Path, like_qupath: dict[str, str], tmp_path: Path) -> None:
    with small_disk(tmp_path, size_kib=2048) as disk:
        project = copy_of(sound, disk / "Projekt")
        before = contents(disk)

        line = complaint(batch(project, like_qupath))

        assert contents(disk) == before
    assert "kB are free): make room on it." in line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders have no such mode")
def test_an_image_that_cannot_be_written_fails_before_it_is_read(
    sound: Path, like_qupath: dict[str, str]
) -> None:
    data = sound.parent / "data" / "1"
    before = contents(data)
    data.chmod(0o555)
    try:
        answer = batch(sound, like_qupath)
    finally:
        data.chmod(0o755)

    assert (answer.code, answer.out) == (3, "")
    assert f"image 1: failed. {data} is write-protected: allow writing there, or leave" in (
        answer.err
    )
    assert contents(data) == before


def test_an_image_that_the_disk_has_no_room_for_fails_before_it_is_read(
    sound: Path, like_qupath: dict[str, str], tmp_path: Path
) -> None:
    save_data(sound, 1, qpdata=QPDATA_HEAD + bytes(3 << 19) + QPDATA_TAIL)
    with small_disk(tmp_path, size_kib=7 << 10) as disk:
        project = copy_of(sound, disk / "Projekt")
        before = contents(project.parent / "data")

        answer = batch(project, like_qupath)

        assert contents(project.parent / "data") == before
    assert (answer.code, answer.out) == (3, "")
    assert "image 1: failed. saving it needs 7 MB on the project's disk, of which 5 MB are" in (
        answer.err
    )


# Some images fail, the others are done

GONE, CUT, EMPTY, TEXT, NOISE, FOREIGN = "weg", "gekürzt", "leer", "Text", "Rauschen", "fremd"
MISCOUNTED, LEFTOVER, ROTATED, GREY = "verzählt", "mitten drin", "gedreht", "grau"
WITHOUT_SUMMARY, UNSEEN, ODD_ONES, CROWDED, MANY = "ohne", "nie offen", "seltsam", "voll", "viele"

TROUBLES = {
    GONE: r"Its slide .* is not there: put it back, or say with --remap OLD=NEW which folder",
    CUT: r"data\.qpdata is cut short\. ",
    EMPTY: r"data\.qpdata is empty\. ",
    TEXT: r"data\.qpdata is not what QuPath writes\. ",
    NOISE: r"failed in QuPath \(StreamCorrupted.*\): put back a copy of data\.qpdata",
    FOREIGN: r"data\.qpdata reads as 1 objects, but summary\.json counts 2\. ",
    MISCOUNTED: r"data\.qpdata reads as 2 objects, but summary\.json counts 77\. ",
    LEFTOVER: r"QuPath was stopped while it saved the image, for .*data\.qpdata\.bkp is still",
    ROTATED: r"QuPath shows its slide rotated.*: add the slide to the project as it is",
    GREY: r"Its slide is not RGB, and only brightfield can be outlined: leave it out",
}
NAMES = (*TROUBLES, WITHOUT_SUMMARY, UNSEEN, ODD_ONES, CROWDED, MANY)
N_MANY = 5000


def identity(number: int) -> str:
    """QuPath keeps ids that are UUIDs."""
    return f"{number:08d}-2fa1-51d2-883f-0016d3cca427"


BOX, CELL, BARE_CELL, SPOT, HIGH = map(identity, range(1, 6))
NUCLEUS = "POLYGON ((310 60, 312 70, 320 62, 310 60))"


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


def build(folder: Path, qupath: QuPathProcess, slide: Path) -> tuple[Path, dict[str, str]]:
    """The project and the ids of its images by their names; each has a rectangle."""
    slides = folder / "Schöne Bilder"
    slides.mkdir()
    for name in NAMES:
        shutil.copy(slide, slides / f"{name}.tif")
    paths = [slides / f"{name}.tif" for name in NAMES]
    project = qupath.run(make_qupath_project, folder / "Prüfung 1, neu", paths)
    ids = {name: str(number) for number, name in enumerate(NAMES, start=1)}
    qupath.run(add_objects, project, ids[GONE], [rectangle(BOX, GLAND, "Gland")])
    data = project.parent / "data"
    for name in NAMES:
        if name not in (GONE, UNSEEN):
            shutil.copytree(data / ids[GONE], data / ids[name], dirs_exist_ok=True)
    qupath.run(add_odd_annotations, project, ids[ODD_ONES])
    crowd(qupath, project, ids[CROWDED])
    qupath.run(add_objects, project, ids[MANY], many_outlines())
    (slides / f"{GONE}.tif").rename(folder / f"{GONE}.tif")
    damage({name: data / ids[name] for name in NAMES})
    alter(project, ids)
    return project, ids


def crowd(qupath: QuPathProcess, project: Path, entry_id: str) -> None:
    """All else that an image may hold: cores, cells, detections, and objects on other planes."""
    qupath.run(add_tma_grid, project, entry_id)
    cells = [
        annotation(CELL, "Polygon", [ring((300, 50), (330, 55), (310, 90))], "Gland"),
        annotation(BARE_CELL, "Polygon", [ring((400, 50), (430, 55), (410, 90))]),
    ]
    for cell in cells:
        cell["properties"] |= {"objectType": "cell", "measurements": {"DAB: mean": 0.25}}
    corners = [[*map(float, corner.split())] for corner in NUCLEUS[10:-2].split(", ")]
    cells[0]["nucleusGeometry"] = {"type": "Polygon", "coordinates": [corners]}
    spot = annotation(SPOT, "Polygon", [ring((350, 50), (380, 55), (360, 90))], "Tumor")
    spot["properties"] |= {"objectType": "detection", "name": "von Hand"}
    high = annotation(HIGH, "Polygon", [ring((20, 300), (120, 310), (60, 420))], "Tumor")
    high["geometry"]["plane"] = {"c": -1, "z": 3, "t": 1}
    qupath.run(add_objects, project, entry_id, [*cells, spot, high])


def ring(*corners: tuple[float, float]) -> list[list[float]]:
    return [[*corner] for corner in (*corners, corners[0])]


def many_outlines() -> list[Feature]:
    """Stars of 20 corners, as somebody's work looks like; and two more rectangles."""
    turns = [math.tau * n / 20 for n in range(20)]
    features = []
    for number in range(N_MANY - 3):
        x, y = 10 + 5 * (number % 98), 10 + 9 * (number // 98)
        corners = [
            (x + (2 + n % 2) * math.cos(turn), y + (2 + n % 2) * math.sin(turn))
            for n, turn in enumerate(turns)
        ]
        features.append(annotation(identity(100 + number), "Polygon", [ring(*corners)], "Zelle"))
    boxes = [(0, 0, 280, 266), (10, 300, 240, 500)]
    return [*features, *(rectangle(identity(50 + n), box) for n, box in enumerate(boxes))]


def damage(data: Mapping[str, Path]) -> None:
    """Of the folders of images' data."""
    whole = (data[GONE] / "data.qpdata").read_bytes()
    noise = random.Random(1).randbytes(len(whole) - len(QPDATA_HEAD + QPDATA_TAIL))
    damaged = {
        CUT: whole[: len(whole) // 2],
        EMPTY: b"",
        TEXT: "Das war einmal ein Präparat.\n".encode() * 100,
        NOISE: QPDATA_HEAD + noise + QPDATA_TAIL,
        FOREIGN: whole.replace(b"PathRootObject", b"PathR00tObject"),  # of an extension, say
    }
    for name, content in damaged.items():
        (data[name] / "data.qpdata").write_bytes(content)
    (data[WITHOUT_SUMMARY] / "summary.json").unlink()
    summary = json.loads((data[MISCOUNTED] / "summary.json").read_bytes())
    summary["hierarchy"]["nObjects"] = 77
    (data[MISCOUNTED] / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    shutil.copy(data[LEFTOVER] / "data.qpdata", data[LEFTOVER] / "data.qpdata.bkp")


def alter(project: Path, ids: Mapping[str, str]) -> None:
    """Have QuPath show some slides otherwise than they are."""
    content = json.loads(project.read_bytes())
    by_id = {str(entry["entryID"]): entry for entry in content["images"]}
    rotated, grey = by_id[ids[ROTATED]], by_id[ids[GREY]]
    rotated["serverBuilder"] = altered("rotated", rotated["serverBuilder"])
    grey["serverBuilder"]["metadata"]["isRGB"] = False
    project.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def seen_in(
    qupath: QuPathProcess, project: Path, ids: Mapping[str, str]
) -> dict[str, dict[str, Seen]]:
    """Every object but the roots by its id, by the names of the images that are whole."""
    return {
        name: {one.id: one for one in qupath.run(objects_in, project, ids[name])}
        for name in (WITHOUT_SUMMARY, CROWDED)
    }


def odd_in(qupath: QuPathProcess, project: Path, ids: Mapping[str, str]) -> dict[str, Odd]:
    return qupath.run(odd_objects_in, project, ids[ODD_ONES])


@pytest.mark.qupath
def test_failed_images_stop_none_of_the_others(ward: Ward) -> None:
    assert (ward.answer.code, ward.answer.out) == (3, "")
    assert "Traceback" not in ward.answer.err
    assert "\tat " not in ward.answer.err  # of Java
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
