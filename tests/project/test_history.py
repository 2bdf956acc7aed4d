from __future__ import annotations

import json
import os
from itertools import count

import pytest

from fixtures.bare_project import ENTRY, SLIDE
from fixtures.killing import Killer
from wsisam_qupath.errors import ImageError
from wsisam_qupath.project.history import History, Record, Written
from wsisam_qupath.qupath.files.entries import Project


@pytest.fixture
def history(project: Project) -> History:
    return History(project, ENTRY)


def written(number: int) -> Written:
    drawn = f"{number}.00 0.00 7.25 9.00 63.00 32.50"
    return Written(f"result-{number}", f"prompt-{number}", drawn, "Größe: ☃", "detection")


NO_CLASS = Written("result-5", "prompt \ud83d", "1.00", None, "annotation")


def test_a_history_holds_what_was_added(project: Project, history: History) -> None:
    history.add([written(1)], {"result-9": "nichts über 1 µm"}, SLIDE)
    history.add(iter([NO_CLASS, written(2)]), {"result-8": "nothing"}, SLIDE)

    record = History(project, ENTRY).read()

    assert record == Record(
        (written(1), NO_CLASS, written(2)),
        {"result-9": "nichts über 1 µm", "result-8": "nothing"},
        SLIDE,
    )
    assert history.path == project.folder / "wsisam-qupath" / "history" / "12.json"


def test_reading_where_there_is_no_history_makes_none(project: Project, history: History) -> None:
    assert history.read() == Record()
    assert list(project.folder.iterdir()) == []


def test_a_result_written_twice_is_recorded_once_and_as_the_newest(history: History) -> None:
    history.add([written(1), written(2)], {})
    history.add([written(1)], {})

    assert history.read().written == (written(2), written(1))


def test_a_result_redrawn_is_known_by_both_outlines(history: History) -> None:
    redrawn = Written("result-1", "prompt-1", "0.01", "Größe: ☃", "detection")
    history.add([written(1)], {})
    history.add([redrawn], {})

    assert history.read().written == (written(1), redrawn)


def test_what_was_empty_and_is_written_now_is_not_empty(history: History) -> None:
    history.add([], {"result-1": "nothing", "result-2": "nothing"})
    history.add([written(1)], {})

    assert history.read().empty == {"result-2": "nothing"}


def test_what_was_empty_on_another_slide_is_forgotten_and_what_was_written_is_not(
    history: History,
) -> None:
    history.add([written(1)], {"result-9": "nothing"}, SLIDE)
    history.add([written(2)], {"result-8": "nothing"}, "another slide")

    assert history.read() == Record(
        (written(1), written(2)), {"result-8": "nothing"}, "another slide"
    )


def test_the_newest_records_are_kept(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsisam_qupath.project.history.MOST_RECORDS", 4)
    history.add([written(0), written(1)], {"result-7": "first", "result-8": "first"})

    history.add(map(written, (2, 3, 4)), {f"result-{n}": "later" for n in (9, 10, 11)})

    record = history.read()
    assert record.written == tuple(map(written, (1, 2, 3, 4)))
    assert list(record.empty) == ["result-8", "result-9", "result-10", "result-11"]


SOUND = '{"history":1,"slide":"","written":[%s],"empty":%s}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"history":1,"sli',
        b"\xff\xfe\x00",
        b"\0" * 4096,
        b"[]",
        b"7",
        b"{}",
        b"[" * 100_000,
        b'{"history":"1","slide":"","written":[],"empty":{}}',
        (SOUND % ('{"id":"1"}', "{}")).encode(),
        (SOUND % ("7", "{}")).encode(),
        (SOUND % ("", "[]")).encode(),
        (SOUND % ("", '{"1":2}')).encode(),
        (SOUND % (json.dumps(vars(written(1)) | {"drawn": None}), "{}")).encode(),
        (SOUND % (json.dumps(vars(written(1)) | {"class_name": 7}), "{}")).encode(),
    ],
)
def test_a_damaged_history_is_kept_aside(history: History, content: bytes) -> None:
    history.path.parent.mkdir(parents=True)
    history.path.write_bytes(content)

    record = history.read()
    aside = history.add([written(1)], {})

    assert record == Record(damaged=history.path)
    assert aside == history.path.with_name("12.damaged-1.json")
    assert aside.read_bytes() == content
    assert history.read() == Record((written(1),))


def test_every_damaged_history_is_kept(history: History) -> None:
    history.path.parent.mkdir(parents=True)
    history.path.write_bytes(b"first")
    history.add([], {})
    history.path.write_bytes(b"second")

    aside = history.add([], {})

    assert aside == history.path.with_name("12.damaged-2.json")
    assert history.path.with_name("12.damaged-1.json").read_bytes() == b"first"
    assert history.add([], {}) is None


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no kill -9")
def test_a_kill_at_any_call_leaves_the_old_history_or_the_new(history: History) -> None:
    seen = []
    with Killer() as killer:
        for nth in count(1):
            history.path.unlink(missing_ok=True)
            history.add([written(1)], {})

            done = killer.lives_through(nth, history.add, [written(2)], {})

            seen.append(len(history.read().written))
            assert history.read() == Record((written(1), written(2))[: seen[-1]])
            if done:
                break

    assert seen == sorted(seen)
    assert {*seen} == {1, 2}


def test_a_full_disk_leaves_the_history_as_it_was(full_disk: Project) -> None:
    history = History(full_disk, ENTRY)
    history.add([written(1)], {})

    with pytest.raises(ImageError) as caught:
        history.add([written(number) for number in range(1000)], {})

    assert history.read() == Record((written(1),))
    assert str(caught.value) == (
        f"The history of image Präparat 1, {history.path}, cannot be written "
        "(No space left on device): check the free space and permissions there, then run again."
    )
    assert list(history.path.parent.iterdir()) == [history.path]


def test_a_history_that_is_a_folder_is_said_to_be_unreadable(history: History) -> None:
    history.path.mkdir(parents=True)

    with pytest.raises(ImageError, match="cannot be read"):
        history.read()
