"""Files of version 0.1 are read, and files of a newer version refused and left alone.

The bytes are made by formula, as that version wrote them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from fixtures.bare_project import ENTRY, SLIDE
from fixtures.project_files import contents
from wsisam_qupath.errors import FormatError, ProjectError
from wsisam_qupath.project.history import History, Record, Written
from wsisam_qupath.project.journal import Journal
from wsisam_qupath.project.lock import project_lock
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.qupath.files.entries import Project

WRITTEN: dict[str, Any] = {
    "id": "result-1",
    "prompt_id": "prompt-1",
    "drawn": "1.00 0.00 7.25 9.00 63.00 32.50",
    "class_name": "Größe",
    "object_type": "detection",
}
EMPTY = {"result-9": "the model sees no object there"}
ANSWER: dict[str, Any] = {
    "id": "result-2",
    "prompt_id": "prompt-2",
    "feature": None,
    "reason": "nothing there",
}


def compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def line(content: dict[str, Any]) -> bytes:
    """A line of a journal."""
    body = compact(content)
    return b'["%08x",%s]\n' % (zlib.crc32(body), body)


def put(project: Project, place: str, content: bytes) -> Path:
    path = project.own_folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_ledger(project: Project, **changes: Any) -> Path:
    content = {"ledger": 1, "slide": SLIDE, "written": [WRITTEN], "empty": EMPTY, **changes}
    return put(project, "ledger/12.json", compact(content))


def test_the_ledger_of_version_0_1_is_the_history_of_today(project: Project) -> None:
    ledger = put_ledger(project)
    before = ledger.read_bytes()
    history = History(project, ENTRY)

    record = history.read()
    history.add([Written("result-3", "prompt-3", "1.00", None, "annotation")], {}, SLIDE)

    assert record == Record((Written(**WRITTEN),), EMPTY, SLIDE)
    assert [one.id for one in History(project, ENTRY).read().written] == ["result-1", "result-3"]
    assert ledger.read_bytes() == before
    assert json.loads(history.path.read_bytes())["history"] == 1


def test_a_damaged_ledger_is_kept_aside(project: Project) -> None:
    ledger = put(project, "ledger/12.json", b'{"ledger":1,"sli')
    history = History(project, ENTRY)

    aside = history.add([Written(**WRITTEN)], {}, SLIDE)

    assert aside == ledger.with_name("12.damaged-1.json")
    assert history.read() == Record((Written(**WRITTEN),), {}, SLIDE)


def test_the_journal_of_version_0_1_is_continued(project: Project) -> None:
    path = put(
        project, "journal/12.jsonl", line({"journal": 1, "slide": SLIDE}) + line(ANSWER) + b'["ha'
    )

    with Journal(project, ENTRY, SLIDE) as journal:
        before = journal.read()
        journal.append([SerializedResult("result-4", "prompt-4", None)])
        after = journal.read()

    assert before == {"result-2": SerializedResult(**ANSWER)}
    assert list(after) == ["result-2", "result-4"]
    assert path.read_bytes().count(b"\n") == 3


def test_further_keys_are_ignored(project: Project) -> None:
    put(
        project,
        "journal/12.jsonl",
        line({"journal": 1, "slide": SLIDE}) + line({**ANSWER, "seconds": 1.5}),
    )
    put(
        project,
        "history/12.json",
        compact(
            {
                "history": 1,
                "slide": SLIDE,
                "written": [{**WRITTEN, "by": "somebody"}],
                "empty": {},
                "more": [],
            }
        ),
    )

    assert Journal(project, ENTRY, SLIDE).read() == {"result-2": SerializedResult(**ANSWER)}
    assert History(project, ENTRY).read().written == (Written(**WRITTEN),)


def test_the_journal_of_a_newer_version_is_neither_read_nor_replaced(project: Project) -> None:
    # Also if it is of another slide: its results are not ours to drop.
    put(project, "journal/12.jsonl", line({"journal": 2, "slide": {"new": 1}}) + line({"x": 1}))
    before = contents(project.folder)

    with Journal(project, ENTRY, SLIDE) as journal:
        with pytest.raises(FormatError, match="is a journal of results in format 2"):
            journal.read()
        with pytest.raises(FormatError):
            journal.append([SerializedResult("result-4", "prompt-4", None)])

    assert contents(project.folder) == before


@pytest.mark.parametrize("place", ["history", "ledger"])
def test_the_history_of_a_newer_version_is_neither_read_nor_replaced(
    project: Project, place: str
) -> None:
    put(project, f"{place}/12.json", compact({place: 2, "other": "things"}))
    before = contents(project.folder)
    history = History(project, ENTRY)

    with pytest.raises(FormatError, match="is the history of results in format 2"):
        history.read()
    with pytest.raises(FormatError):
        history.add([Written(**WRITTEN)], {}, SLIDE)

    assert contents(project.folder) == before


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        (
            {"what": "batch", "pid": 7, "host": "lab", "since": "2026-11-21 10:00:00+01:00"},
            r"Another batch works on .* \(process 7 on lab, since 2026-11-21 10:00:00\+01:00\)",
        ),
        (
            {"format": 3, "who": {}},
            r"Another program, of a newer version than this, works on .*process \? on an unknown",
        ),
    ],
)
def test_who_holds_the_lock_is_told_as_well_as_it_is_known(
    project: Project, holder: dict[str, Any], said: str
) -> None:
    project.path.write_text("{}")
    with project_lock(project, what="batch"):
        put(project, "lock.json", json.dumps(holder).encode("ascii"))

        with pytest.raises(ProjectError, match=said), project_lock(project, what="batch"):
            pass


def test_a_lock_states_its_format(project: Project) -> None:
    project.path.write_text("{}")
    with project_lock(project, what="restore"):
        holder = json.loads((project.own_folder / "lock.json").read_bytes())

    assert (holder["format"], holder["what"]) == (2, "restore")
