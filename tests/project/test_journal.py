from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.bare_project import ENTRY, SLIDE
from fixtures.killing import Killer
from wsisam_qupath.errors import ImageError
from wsisam_qupath.project.journal import Journal
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.qupath.files.entries import Project

SLOW_FILES = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


def answer(number: int) -> SerializedResult:
    ring = [[number + 0.1, 0.0], [number + 7.25, 0.0], [number + 7.25, 9.0], [number + 0.1, 0.0]]
    feature = {
        "type": "Feature",
        "id": f"result-{number}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": "Größe\n☃", "measurements": {"Area µm^2": 1 / 3}},
    }
    return SerializedResult(f"result-{number}", f"prompt-{number}", feature)


EMPTY = SerializedResult("result-none", "prompt-none", None, "the model sees nothing there")
ANSWERS = [answer(0), EMPTY, answer(1), answer(2)]


def by_id(answers: list[SerializedResult]) -> dict[str, SerializedResult]:
    return {one.id: one for one in answers}


@pytest.fixture
def journal(project: Project) -> Iterator[Journal]:
    with Journal(project, ENTRY, SLIDE) as journal:
        yield journal


def test_answers_are_read_as_they_were_appended(project: Project, journal: Journal) -> None:
    journal.append(ANSWERS[:1])
    journal.append(ANSWERS[1:])

    answers = Journal(project, ENTRY, SLIDE).read()

    assert answers == by_id(ANSWERS)
    assert list(answers) == [one.id for one in ANSWERS]


def test_answers_are_safe_before_the_journal_is_closed(journal: Journal) -> None:
    journal.append(ANSWERS)

    assert journal.read() == by_id(ANSWERS)


def test_a_journal_is_one_line_of_json_an_answer(project: Project, journal: Journal) -> None:
    journal.append(ANSWERS)

    text = (project.folder / "wsisam-qupath" / "journal" / "12.jsonl").read_text("ascii")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0][1] == {"journal": 1, "slide": SLIDE}
    assert [line[1]["id"] for line in lines[1:]] == [one.id for one in ANSWERS]


def test_reading_or_appending_nothing_makes_no_file(project: Project, journal: Journal) -> None:
    journal.append([])

    assert journal.read() == {}
    assert list(project.folder.iterdir()) == []


def test_of_two_answers_to_one_question_the_later_counts(journal: Journal) -> None:
    later = SerializedResult(EMPTY.id, EMPTY.prompt_id, None, "still nothing")
    journal.append([EMPTY, *ANSWERS])
    journal.append([later])

    assert journal.read()[EMPTY.id] == later


def test_answers_for_another_slide_are_neither_read_nor_kept(
    project: Project, journal: Journal
) -> None:
    journal.append(ANSWERS[:2])
    journal.close()

    with Journal(project, ENTRY, "another slide") as other:
        before = other.read()
        other.append(ANSWERS[2:])
        after = other.read()

    assert before == {}
    assert after == by_id(ANSWERS[2:])
    assert journal.read() == {}


def test_a_cleared_journal_holds_nothing_and_can_be_used_again(journal: Journal) -> None:
    journal.append(ANSWERS)

    journal.clear()

    assert not journal.path.exists()
    journal.clear()
    journal.append(ANSWERS[2:])
    assert journal.read() == by_id(ANSWERS[2:])


@SLOW_FILES
@given(st.data())
def test_half_a_line_is_cut_off_before_the_next_answer(
    journal: Journal, data: st.DataObject
) -> None:
    journal.clear()
    journal.append(ANSWERS)
    journal.close()
    content = journal.path.read_bytes()
    length = data.draw(st.integers(0, len(content)))
    journal.path.write_bytes(content[:length])
    whole = max(0, content[:length].count(b"\n") - 1)

    before = journal.read()
    journal.append([answer(77)])

    assert before == by_id(ANSWERS[:whole])
    assert journal.read() == by_id([*ANSWERS[:whole], answer(77)])


@SLOW_FILES
@given(st.data())
def test_a_damaged_byte_costs_two_answers_at_most_unless_it_names_the_slide(
    journal: Journal, data: st.DataObject
) -> None:
    journal.clear()
    journal.append(ANSWERS)
    journal.close()
    content = bytearray(journal.path.read_bytes())
    header = content.index(b"\n") + 1
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    journal.path.write_bytes(content)

    answers = journal.read()

    assert answers.items() <= by_id(ANSWERS).items()
    assert len(answers) == 0 if place < header else len(answers) >= len(ANSWERS) - 2
    journal.append([answer(77)])
    assert journal.read()["result-77"] == answer(77)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 5000, b"[]\n{}\n", b"\xff\xfe\n" * 3])
def test_a_file_that_is_no_journal_becomes_one(journal: Journal, content: bytes) -> None:
    journal.path.parent.mkdir(parents=True)
    journal.path.write_bytes(content)

    assert journal.read() == {}

    journal.append(ANSWERS)
    assert journal.read() == by_id(ANSWERS)


def test_zeros_at_the_end_as_after_a_power_cut_go(journal: Journal) -> None:
    journal.append(ANSWERS)
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b"\0" * 4096)

    journal.append([answer(77)])

    assert journal.read() == by_id([*ANSWERS, answer(77)])
    assert b"\0" not in journal.path.read_bytes()


APPENDING = """
import itertools, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from wsisam_qupath.qupath.files.entries import ImageEntry, Project
from wsisam_qupath.project.journal import Journal
from wsisam_qupath.prompts.results import SerializedResult
entry = ImageEntry("12", "", Path("data/12"), "", None)
journal = Journal(Project(Path(sys.argv[1]), "0.6.0", (entry,)), entry, "slide")
for number in itertools.count(len(journal.read())):
    journal.append([SerializedResult(f"result-{number}", "prompt", {"ring": [0.1] * number})])
    print(number, flush=True)
"""
"""Appends for ever, and says so each time."""


def test_a_kill_loses_no_answer_that_was_appended(project: Project) -> None:
    chance = random.Random(3)
    command = [sys.executable, "-c", APPENDING, str(project.path), *sys.path]

    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            appended = [int(process.stdout.readline())]
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            appended += map(int, process.stdout.read().split())

        answers = Journal(project, ENTRY, "slide").read().values()

        assert len(answers) - (appended[-1] + 1) in (0, 1)
        assert [len((one.feature or {})["ring"]) for one in answers] == list(range(len(answers)))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no kill -9")
def test_a_kill_at_any_call_leaves_a_journal_that_can_be_continued(project: Project) -> None:
    with Killer() as killer:
        for nth in count(1):
            journal = Journal(project, ENTRY, SLIDE)
            journal.clear()
            journal.append(ANSWERS[:2])
            journal.close()
            with journal.path.open("ab") as file:
                file.write(b'["half')

            done = killer.lives_through(nth, journal.append, ANSWERS[2:])

            assert journal.read() in (by_id(ANSWERS[:2]), by_id(ANSWERS))
            journal.append(ANSWERS[2:])
            assert journal.read() == by_id(ANSWERS)
            journal.close()
            if done:
                break

    assert nth > 5


def test_a_full_disk_costs_no_earlier_answer(full_disk: Project) -> None:
    filler = full_disk.folder / "filler"
    filler.write_bytes(b"\0" * 32768)
    appended = []
    with Journal(full_disk, ENTRY, SLIDE) as journal:
        with pytest.raises(ImageError) as caught:
            for number in range(1000):
                journal.append([answer(number)])
                appended.append(answer(number))
        assert journal.read() == by_id(appended)

        filler.unlink()
        journal.append([answer(2000)])

        assert journal.read() == by_id([*appended, answer(2000)])
    assert str(caught.value) == (
        f"The journal of image Präparat 1, {journal.path}, cannot be written (No space left on "
        "device): check the free space and permissions there, then run again."
    )


def test_a_journal_that_is_a_folder_is_said_to_be_unreadable(journal: Journal) -> None:
    journal.path.mkdir(parents=True)

    with pytest.raises(ImageError, match="cannot be read"):
        journal.read()
    with pytest.raises(ImageError, match="cannot be"):
        journal.append(ANSWERS)
    with pytest.raises(ImageError, match="cannot be removed"):
        journal.clear()
