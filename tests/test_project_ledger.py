from __future__ import annotations

import json
import os
from itertools import count

import pytest

from bare_project import ENTRY, SLIDE, full_disk, project
from killing import Killer
from wsisam_qupath.errors import ImageError
from wsisam_qupath.project.entries import Project
from wsisam_qupath.project.ledger import Ledger, Record, Written

__all__ = ["full_disk", "project"]  # fixtures


@pytest.fixture
def ledger(project: Project) -> Ledger:
    return Ledger(project, ENTRY)


def written(number: int) -> Written:
    drawn = f"{number}.00 0.00 7.25 9.00 63.00 32.50"
    return Written(f"result-{number}", f"prompt-{number}", drawn, "Größe: ☃", "detection")


NO_CLASS = Written("result-5", "prompt \ud83d", "1.00", None, "annotation")


def test_a_ledger_holds_what_was_added(project: Project, ledger: Ledger) -> None:
    ledger.add([written(1)], {"result-9": "nichts über 1 µm"}, SLIDE)
    ledger.add(iter([NO_CLASS, written(2)]), {"result-8": "nothing"}, SLIDE)

    record = Ledger(project, ENTRY).read()

    assert record == Record(
        (written(1), NO_CLASS, written(2)),
        {"result-9": "nichts über 1 µm", "result-8": "nothing"},
        SLIDE,
    )
    assert ledger.path == project.folder / "wsisam-qupath" / "ledger" / "12.json"


def test_reading_where_there_is_no_ledger_makes_none(project: Project, ledger: Ledger) -> None:
    assert ledger.read() == Record()
    assert list(project.folder.iterdir()) == []


def test_a_result_written_twice_is_recorded_once_and_as_the_newest(ledger: Ledger) -> None:
    ledger.add([written(1), written(2)], {})
    ledger.add([written(1)], {})

    assert ledger.read().written == (written(2), written(1))


def test_a_result_redrawn_is_known_by_both_outlines(ledger: Ledger) -> None:
    redrawn = Written("result-1", "prompt-1", "0.01", "Größe: ☃", "detection")
    ledger.add([written(1)], {})
    ledger.add([redrawn], {})

    assert ledger.read().written == (written(1), redrawn)


def test_what_was_empty_and_is_written_now_is_not_empty(ledger: Ledger) -> None:
    ledger.add([], {"result-1": "nothing", "result-2": "nothing"})
    ledger.add([written(1)], {})

    assert ledger.read().empty == {"result-2": "nothing"}


def test_what_was_empty_on_another_slide_is_forgotten_and_what_was_written_is_not(
    ledger: Ledger,
) -> None:
    ledger.add([written(1)], {"result-9": "nothing"}, SLIDE)
    ledger.add([written(2)], {"result-8": "nothing"}, "another slide")

    assert ledger.read() == Record(
        (written(1), written(2)), {"result-8": "nothing"}, "another slide"
    )


def test_the_newest_records_are_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsisam_qupath.project.ledger.MOST_RECORDS", 4)
    ledger.add([written(0), written(1)], {"result-7": "first", "result-8": "first"})

    ledger.add(map(written, (2, 3, 4)), {f"result-{n}": "later" for n in (9, 10, 11)})

    record = ledger.read()
    assert record.written == tuple(map(written, (1, 2, 3, 4)))
    assert list(record.empty) == ["result-8", "result-9", "result-10", "result-11"]


SOUND = '{"ledger":1,"slide":"","written":[%s],"empty":%s}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"ledger":1,"sli',
        b"\xff\xfe\x00",
        b"\0" * 4096,
        b"[]",
        b"7",
        b"{}",
        b"[" * 100_000,
        b'{"ledger":2,"slide":"","written":[],"empty":{}}',
        (SOUND % ('{"id":"1"}', "{}")).encode(),
        (SOUND % ("7", "{}")).encode(),
        (SOUND % ("", "[]")).encode(),
        (SOUND % ("", '{"1":2}')).encode(),
        (SOUND % (json.dumps(vars(written(1)) | {"drawn": None}), "{}")).encode(),
        (SOUND % (json.dumps(vars(written(1)) | {"class_name": 7}), "{}")).encode(),
    ],
)
def test_a_damaged_ledger_is_kept_aside(ledger: Ledger, content: bytes) -> None:
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_bytes(content)

    record = ledger.read()
    aside = ledger.add([written(1)], {})

    assert record == Record(damaged=ledger.path)
    assert aside == ledger.path.with_name("12.damaged-1.json")
    assert aside.read_bytes() == content
    assert ledger.read() == Record((written(1),))


def test_every_damaged_ledger_is_kept(ledger: Ledger) -> None:
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_bytes(b"first")
    ledger.add([], {})
    ledger.path.write_bytes(b"second")

    aside = ledger.add([], {})

    assert aside == ledger.path.with_name("12.damaged-2.json")
    assert ledger.path.with_name("12.damaged-1.json").read_bytes() == b"first"
    assert ledger.add([], {}) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no kill -9")
def test_a_kill_at_any_call_leaves_the_old_ledger_or_the_new(ledger: Ledger) -> None:
    seen = []
    with Killer() as killer:
        for nth in count(1):
            ledger.path.unlink(missing_ok=True)
            ledger.add([written(1)], {})

            done = killer.lives_through(nth, ledger.add, [written(2)], {})

            seen.append(len(ledger.read().written))
            assert ledger.read() == Record((written(1), written(2))[: seen[-1]])
            if done:
                break

    assert seen == sorted(seen)
    assert {*seen} == {1, 2}


def test_a_full_disk_leaves_the_ledger_as_it_was(full_disk: Project) -> None:
    ledger = Ledger(full_disk, ENTRY)
    ledger.add([written(1)], {})

    with pytest.raises(ImageError) as caught:
        ledger.add([written(number) for number in range(1000)], {})

    assert ledger.read() == Record((written(1),))
    assert str(caught.value) == (
        f"The ledger of image Präparat 1, {ledger.path}, cannot be written: free space and "
        "permissions there, then run again."
    )
    assert list(ledger.path.parent.iterdir()) == [ledger.path]


def test_a_ledger_that_is_a_folder_is_said_to_be_unreadable(ledger: Ledger) -> None:
    ledger.path.mkdir(parents=True)

    with pytest.raises(ImageError, match="cannot be read"):
        ledger.read()
