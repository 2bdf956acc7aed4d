"""A ``create`` that is stopped at any moment goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.command_line import environment, rectangle, run, write_prompts
from fixtures.disks import fill_up, small_disk
from fixtures.qupath_fixtures import objects_in, write_slide
from wsisam_qupath.errors import FormatError, OutputError
from wsisam_qupath.files.checked_lines import make_line
from wsisam_qupath.project.create.folder import build_beside
from wsisam_qupath.project.create.unfinished import PROJECT_FILE, Plan, SlideRecord, Unfinished
from wsisam_qupath.prompts import PathClass, Skipped
from wsisam_qupath.qupath.jvm.process import QuPathProcess

PLAN = Plan("version", {"a.svs": "a", "b.svs": "b", "c.svs": "c"})
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
RECORDS = ".p.unfinished.slides"


def record(name: str, *ids: str) -> SlideRecord:
    failed, skipped = Skipped("x", "damaged"), Skipped("y", "empty")
    about = (2, 1, (failed,), (skipped,), (PathClass("Tumor", (1, 2, 3)),))
    return SlideRecord(f"{name}.svs", name, ids, *about)


def write_entries(unfinished: Unfinished, *ids: str) -> None:
    """As QuPath saves a project."""
    images = [{"entryID": int(one)} for one in ids]
    (unfinished.path / PROJECT_FILE).write_text(json.dumps({"images": images}))
    for one in ids:
        (unfinished.path / "data" / one).mkdir(parents=True, exist_ok=True)


def leave_unfinished(tmp_path: Path, *records: SlideRecord, unrecorded: str = "") -> Path:
    """What a run leaves that was stopped after these slides."""
    with pytest.raises(ZeroDivisionError), build_beside(tmp_path / "p", PLAN) as unfinished:
        write_entries(unfinished, *(one for r in records for one in r.ids), *unrecorded)
        unfinished.add(records)
        raise ZeroDivisionError
    return tmp_path / ".p.unfinished"


# The folder and its record


def test_recorded_slides_are_kept_with_all_that_was_told_of_them(tmp_path: Path) -> None:
    records = record("a", "1", "2"), record("b", "3")
    leave_unfinished(tmp_path, *records)

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        assert list(unfinished.kept.values()) == list(records)
        assert unfinished.why_new == ""

    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert [path.name for path in (tmp_path / "p").glob("*.*")] == [PROJECT_FILE]


def test_entries_without_a_record_go_with_their_folders(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path, record("a", "1"), unrecorded="2")
    (folder / "data" / "3").mkdir()

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        content = json.loads((unfinished.path / PROJECT_FILE).read_text())
        assert [one["entryID"] for one in content["images"]] == [1]
        assert [one.name for one in (unfinished.path / "data").iterdir()] == ["1"]


def test_a_record_without_its_entry_does_not_count(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path, record("a", "1"), record("b", "2"))
    (folder / PROJECT_FILE).write_text('{"images": [{"entryID": 1}]}')

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        assert list(unfinished.kept) == ["a.svs"]
        assert (tmp_path / RECORDS).read_bytes().count(b"\n") == 2


def test_a_line_that_was_cut_off_is_no_record(tmp_path: Path) -> None:
    leave_unfinished(tmp_path, record("a", "1"), record("b", "2"))
    path = tmp_path / RECORDS
    path.write_bytes(path.read_bytes()[:-9])

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        assert list(unfinished.kept) == ["a.svs"]
        write_entries(unfinished, "1", "5")
        unfinished.add([record("c", "5")])

    assert (tmp_path / "p" / "data" / "5").is_dir()


def test_of_a_project_file_that_was_cut_off_the_copy_of_qupath_is_used(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path, record("a", "1"))
    (folder / PROJECT_FILE).rename(folder / f"{PROJECT_FILE}.backup")
    (folder / PROJECT_FILE).write_text('{"images": [{"entryID"')

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        assert list(unfinished.kept) == ["a.svs"]
        assert json.loads((folder / PROJECT_FILE).read_text()) == {"images": [{"entryID": 1}]}


def test_notes_that_qupath_was_stopped_while_writing_do_not_keep_it_from_going_on(
    tmp_path: Path,
) -> None:
    folder = leave_unfinished(tmp_path, record("a", "1"))
    (folder / "data" / "metadata.json").write_bytes(b"")

    with build_beside(tmp_path / "p", PLAN) as unfinished:
        assert list(unfinished.kept) == ["a.svs"]
        assert not (unfinished.path / "data" / "metadata.json").exists()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("other", PLAN.made_of), "made with other options"),
        (Plan(PLAN.about, {**PLAN.made_of, "a.svs": "changed"}), "holds a.svs, which or"),
        (Plan(PLAN.about, {"b.svs": "b"}), "holds a.svs, which or"),
    ],
)
def test_an_unfinished_project_of_something_else_is_made_again_and_it_is_said_why(
    tmp_path: Path, plan: Plan, words: str
) -> None:
    leave_unfinished(tmp_path, record("a", "1"))

    with build_beside(tmp_path / "p", plan) as unfinished:
        assert unfinished.kept == {}
        assert words in unfinished.why_new
        assert not list(unfinished.path.iterdir())
        write_entries(unfinished, "1")


def test_more_slides_are_no_reason_to_begin_again(tmp_path: Path) -> None:
    leave_unfinished(tmp_path, record("a", "1"))
    more = Plan(PLAN.about, {**PLAN.made_of, "d.svs": "d"})

    with build_beside(tmp_path / "p", more) as unfinished:
        assert list(unfinished.kept) == ["a.svs"]


def test_who_wants_to_begin_again_does(tmp_path: Path) -> None:
    leave_unfinished(tmp_path, record("a", "1"))

    with build_beside(tmp_path / "p", PLAN, resume=False) as unfinished:
        assert (unfinished.kept, unfinished.why_new) == ({}, "")
        assert not list(unfinished.path.iterdir())
        write_entries(unfinished)


def test_a_record_of_somebody_else_is_left_alone_and_so_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text("notes of mine\n")
    (tmp_path / ".p.unfinished").mkdir()
    (tmp_path / ".p.unfinished" / "mine").touch()

    with (
        pytest.raises(OutputError, match="is not from this program"),
        build_beside(tmp_path / "p", PLAN),
    ):
        pass

    assert (tmp_path / RECORDS).read_text() == "notes of mine\n"
    assert (tmp_path / ".p.unfinished" / "mine").exists()


def test_a_record_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    newer = make_line({"unfinished_project": 2, "about": PLAN.about})
    (tmp_path / RECORDS).write_bytes(newer)

    with (
        pytest.raises(FormatError, match="format 2, which a newer version"),
        build_beside(tmp_path / "p", PLAN),
    ):
        pass

    assert (tmp_path / RECORDS).read_bytes() == newer


# The command


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.qupath
@pytest.mark.parametrize("number", [KILL, signal.SIGTERM], ids=["kill", "SIGTERM"])
@pytest.mark.walk
def test_slides_that_were_added_before_a_stop_are_not_added_again(
    tmp_path: Path, qupath: QuPathProcess, number: int
) -> None:
    for folder in ("slides", "drawn"):
        (tmp_path / folder).mkdir()
    names = [f"{n}.tif" for n in range(40)]
    for name in names:
        write_slide(tmp_path / "slides" / name, 64)
        drawn = [rectangle(f"{name} {n}", (n, n, n + 20, n + 20), "Tumor") for n in range(3)]
        write_prompts(tmp_path / "drawn" / f"{name}.geojson", drawn)
    command = [
        "create", str(tmp_path / "p"), "--images", str(tmp_path / "slides"),
        "--annotations", str(tmp_path / "drawn"),
    ]  # fmt: skip
    records = tmp_path / RECORDS
    with subprocess.Popen(
        [sys.executable, "-m", "wsisam_qupath", *command],
        env=environment(),
        stderr=subprocess.PIPE,
    ) as process:
        while not (records.exists() and records.read_bytes().count(b"\n") > 16):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode in (-number, 128 + number)
    assert not (tmp_path / "p").exists()
    kept = records.read_bytes().count(b"\n") - 1
    assert 16 <= kept < 40
    written = {
        one: one.stat().st_mtime_ns for one in (tmp_path / ".p.unfinished").rglob("*.qpdata")
    }

    answer = run(*command)

    assert answer.code == 0, answer.err
    assert f"A run that was stopped had added {kept} slides: this one goes on" in answer.err
    assert "40 images and 120 objects" in answer.err
    assert {one.name for one in tmp_path.iterdir()} == {"slides", "drawn", "p"}
    project = tmp_path / "p" / PROJECT_FILE
    images = json.loads(project.read_text("utf-8"))["images"]
    assert [one["imageName"] for one in images] == names
    assert len({one["entryID"] for one in images}) == 40
    unchanged = [
        one
        for one, time_ns in written.items()
        if (new := tmp_path / "p" / one.relative_to(tmp_path / ".p.unfinished")).exists()
        and new.stat().st_mtime_ns == time_ns
    ]
    assert len(unchanged) >= kept
    for image in images:
        assert len(qupath.run(objects_in, project, str(image["entryID"]))) == 3


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.qupath
def test_a_disk_that_fills_while_a_stopped_run_goes_on_loses_nothing(
    tmp_path: Path, qupath: QuPathProcess
) -> None:
    names = [f"{n}.tif" for n in range(20)]
    for folder in ("slides", "drawn"):
        (tmp_path / folder).mkdir()
    for name in names:
        write_slide(tmp_path / "slides" / name, 64)
        drawn = [rectangle(f"{name} {n}", (n, n, n + 20, n + 20), "Tumor") for n in range(3)]
        write_prompts(tmp_path / "drawn" / f"{name}.geojson", drawn)
    with small_disk(tmp_path, 2048) as disk:
        command = [
            "create", str(disk / "p"), "--images", str(tmp_path / "slides"),
            "--annotations", str(tmp_path / "drawn"),
        ]  # fmt: skip
        stop_after(command, disk / RECORDS, slides=16)
        kept = (disk / RECORDS).read_bytes()
        filler = fill_up(disk, pages_left=4)

        full = run(*command)

        assert full.code != 0
        assert "Traceback" not in full.err
        assert "pace" in full.err, full.err  # of the disk
        assert not (disk / "p").exists()
        assert (disk / RECORDS).read_bytes()[: len(kept)] == kept
        filler.unlink()
        answer = run(*command)
        assert answer.code == 0, answer.err
        assert "A run that was stopped had added " in answer.err
        assert "20 images and 60 objects" in answer.err
        project = disk / "p" / PROJECT_FILE
        images = json.loads(project.read_text("utf-8"))["images"]
        assert [one["imageName"] for one in images] == names
        for image in images:
            assert len(qupath.run(objects_in, project, str(image["entryID"]))) == 3


def stop_after(command: list[str], records: Path, *, slides: int) -> None:
    """Kill a ``create`` that has recorded so many slides."""
    with subprocess.Popen(
        [sys.executable, "-m", "wsisam_qupath", *command],
        env=environment(),
        stderr=subprocess.PIPE,
    ) as process:
        while not (records.exists() and records.read_bytes().count(b"\n") > slides):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        process.communicate(timeout=120)
