from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

import wsisam_qupath.report.progress as progress_module
from wsisam_qupath.options import PROGRESS_STYLE
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.report.progress import (
    Progress,
    count_noun,
    duration,
    name_cases,
    show_progress,
    stderr_console,
)


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


# How far the work is


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SILENCE_SECONDS_MAX", 0.05)


def test_elsewhere_than_on_a_terminal_nothing_is_silent_for_long(
    capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    with show_progress(stderr_console(), "Counting", 4) as progress:
        progress.advance()
        wait_for_words(capsys, "Counting: 1 of 4, ")
        progress.advance(2)
        wait_for_words(capsys, "Counting: 3 of 4, ")


def wait_for_words(capsys: pytest.CaptureFixture[str], words: str) -> None:
    found = ""
    for _ in range(1000):
        found += capsys.readouterr().err
        if words in found:
            return
        time.sleep(0.01)
    raise AssertionError(found)


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(stderr_console(), "Counting", 4) as progress:
        assert list(progress.track("abcd")) == list("abcd")

    assert capsys.readouterr().err == ""


def test_quiet_work_says_nothing_however_long(
    capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    token = PROGRESS_STYLE.set("quiet")
    try:
        with show_progress(stderr_console(), "Counting", 4):
            time.sleep(0.2)
    finally:
        PROGRESS_STYLE.reset(token)

    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar_and_leaves_nothing_behind() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)

    with show_progress(console, "Counting", 4) as progress:
        progress.advance(3)
        time.sleep(0.2)

    assert "Counting" in screen.getvalue()
    assert "3 of 4" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K")


def test_what_an_earlier_run_did_counts_but_not_for_the_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("Counting", 100, 50, "")
    now[0] += 10
    progress.advance(10)

    assert progress.describe() == "60 of 100, 1.0/s, 40.0 s left"
    assert progress.as_event()["seconds_left"] == 40.0


def test_what_comes_before_the_first_of_the_work_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("Outlining", 8, 0, "")
    now[0] = 50.0  # the model is loaded
    progress.advance()
    assert progress.describe() == "1 of 8, 1.2/min, 5 min 50 s left"

    now[0] = 52.0
    progress.advance()
    assert progress.describe().startswith("2 of 8, 2.3/min"), "two at once tell no speed yet"

    now[0] = 60.0
    progress.update(done=6)
    assert progress.describe() == "6 of 8, 0.5/s, 4.0 s left"
    assert progress.as_event()["seconds_left"] == 4.0
    assert progress.as_event()["seconds"] == 60.0


def test_work_of_unknown_length_tells_how_long_it_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("Loading", None, 0, "")
    now[0] += 12

    assert progress.describe() == "12.0 s so far"


def test_a_total_that_is_an_estimate_is_said_to_be_one() -> None:
    progress = Progress("Outlining prompts", None, 0, "")
    progress.update(total=4, is_estimated=True)
    estimated = progress.describe()
    progress.update(total=3, is_estimated=False)

    assert estimated.startswith("0 of about 4, ")
    assert progress.describe().startswith("0 of 3, ")
