"""What became of the slides of a table, in files that other programs and versions read."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from wsisam_qupath.errors import FormatError
from wsisam_qupath.files import compute_sha256
from wsisam_qupath.project.slide_table.rows import TableRow
from wsisam_qupath.project.slide_table.status import (
    EmptyResult,
    SlideFiles,
    SlideStatus,
    SlideTakenError,
    read_states,
    write_summary,
)

DONE = SlideStatus(
    "a",
    "/slides/a.svs",
    "done",
    started="2026-01-01T10:00:00+00:00",
    ended="2026-01-01T10:00:05+00:00",
    seconds=5.0,
    inputs={"model": "x"},
    prompts=3,
    outlined=2,
    empty=(EmptyResult("1", "2", "nothing there"),),
    outputs={".geojson": "0" * 64},
)


@pytest.fixture
def files(tmp_path: Path) -> SlideFiles:
    return SlideFiles(tmp_path, "a")


def test_a_status_is_read_as_it_was_written(files: SlideFiles) -> None:
    files.write_status(DONE)

    assert files.read_status() == DONE
    assert json.loads(files.status.read_bytes())["format"] == 1


def test_a_newer_status_is_refused_and_left(files: SlideFiles) -> None:
    files.status.write_text('{"format": 2, "state": "done"}')

    with pytest.raises(FormatError, match="newer version"):
        files.read_status()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": "x"}'])
def test_a_damaged_status_says_nothing(files: SlideFiles, text: str) -> None:
    files.status.write_text(text)

    assert files.read_status() is None


def test_one_process_at_a_time_has_a_slide(files: SlideFiles) -> None:
    with files.hold(), pytest.raises(SlideTakenError), files.hold():
        pass
    with files.hold():
        pass


def test_the_summary_tells_stopped_from_running_and_waiting(tmp_path: Path) -> None:
    rows = [TableRow(n + 2, f"/s/{one}", Path("p"), one) for n, one in enumerate("abcd")]
    SlideFiles(tmp_path, "a").write_status(DONE)
    for name in "bc":
        SlideFiles(tmp_path, name).write_status(replace(DONE, name=name, state="running"))

    with SlideFiles(tmp_path, "b").hold():
        states = read_states(tmp_path, rows)
    path = write_summary(tmp_path, rows, states)

    assert [one.state for one in states] == ["done", "running", "stopped", "waiting"]
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [one["line"] for one in table] == ["2", "3", "4", "5"]
    assert [one["state"] for one in table] == ["done", "running", "stopped", "waiting"]
    assert (table[0]["outlined"], table[0]["empty"], table[0]["seconds"]) == ("2", "1", "5.0")
    assert (table[0]["outputs"], table[3]["outputs"]) == (".geojson", "")


def test_outputs_that_were_changed_or_are_gone_are_not_intact(files: SlideFiles) -> None:
    (files.folder / "a.geojson").write_text("{}")
    (files.folder / "a.labels.ome.tif").write_text("II")
    sha256 = compute_sha256(files.path(".geojson"))
    outputs = {".geojson": sha256, ".labels.ome.tif": sha256, ".parquet": sha256}

    assert files.find_intact(replace(DONE, outputs=outputs)) == {".geojson": sha256}
