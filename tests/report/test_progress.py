from __future__ import annotations

import pytest

from wsisam_qupath.prompts import Skipped
from wsisam_qupath.report.progress import count_noun, duration, name_cases, stderr_console


def test_names_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name_cases(stderr_console(), "Failed:", [Skipped(":dog: [bold].svs", "no :cat: in it")])

    assert capsys.readouterr().err == "Failed: :dog: [bold].svs: no :cat: in it.\n"


def test_of_very_many_cases_only_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    name_cases(stderr_console(), "Failed:", [Skipped(f"{n}.svs", "gone") for n in range(60)])

    lines = capsys.readouterr().err.splitlines()
    assert lines[49:] == ["Failed: 49.svs: gone.", "Failed: 10 more."]


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 outlines"), (1, "1 outline"), (2, "2 outlines")]
)
def test_a_number_has_its_noun(number: int, words: str) -> None:
    assert count_noun(number, "outline") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (83.4, "1 min 23 s"), (122.6, "2 min 03 s"),
     (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_a_duration_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words
