"""A ``segment`` that is stopped at any moment goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.command_line import environment, features_of, rectangle, run, write_prompts
from fixtures.disks import fill_up, small_disk
from wsisam_qupath.cli.segment_part import open_part
from wsisam_qupath.errors import FormatError, OutputError
from wsisam_qupath.files.checked_lines import make_line, parse_line
from wsisam_qupath.prompts import Prompt, Skipped
from wsisam_qupath.prompts.results import SerializedResult

ABOUT = {"slide": "a", "prompts": "b", "model": "c", "options": "d"}
PROMPTS = [Prompt(name, l0_positives=((1.0, 1.0),)) for name in "xyz"]
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def result(name: str) -> SerializedResult:
    return SerializedResult(f"id of {name}", name, {"of": name})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.geojson"


def leave_unfinished(output: Path, *names: str) -> Path:
    """The part file of a run that was stopped after so many results."""
    with pytest.raises(ZeroDivisionError), open_part(output, ABOUT, resume=True) as part:
        for name in names:
            part.append(result(name))
        raise ZeroDivisionError
    return output.with_name("out.geojson.part")


# The file


def test_results_are_read_again_in_the_order_of_the_prompts(output: Path) -> None:
    leave_unfinished(output, "z")

    with open_part(output, ABOUT, resume=True) as part:
        assert (part.kept, part.why_new) == (1, "")
        part.append(SerializedResult("id", "y", None, "nothing there"))
        part.append(result("x"))

        assert list(part.features(PROMPTS)) == [{"of": "x"}, {"of": "z"}]
        assert part.empty(PROMPTS) == (Skipped("y", "nothing there"),)
    assert list(output.parent.iterdir()) == []


def test_a_line_that_was_cut_off_is_no_result_and_goes(output: Path) -> None:
    path = leave_unfinished(output, "x", "y")
    path.write_bytes(path.read_bytes()[:-9])

    with open_part(output, ABOUT, resume=True) as part:
        assert [prompt.id for prompt in PROMPTS if prompt.id in part] == ["x"]
        part.append(result("z"))
        assert list(part.features(PROMPTS)) == [{"of": "x"}, {"of": "z"}]


@pytest.mark.parametrize("changed", ABOUT)
def test_results_of_something_else_are_not_used_and_it_is_said_of_what(
    output: Path, changed: str
) -> None:
    leave_unfinished(output, "x")

    with open_part(output, {**ABOUT, changed: "other"}, resume=True) as part:
        assert (part.kept, part.why_new) == (0, f"of another {changed}")
        part.append(result("y"))
        assert list(part.features(PROMPTS)) == [{"of": "y"}]


def test_who_wants_to_begin_again_does(output: Path) -> None:
    leave_unfinished(output, "x", "y")

    with open_part(output, ABOUT, resume=False) as part:
        assert (part.kept, part.why_new) == (0, "")
        part.append(result("z"))
        assert list(part.features(PROMPTS)) == [{"of": "z"}]


def test_a_file_of_somebody_else_is_left_alone(output: Path) -> None:
    path = output.with_name("out.geojson.part")
    path.write_bytes(b"notes of mine\n")

    with (
        pytest.raises(OutputError, match="is not from this program"),
        open_part(output, ABOUT, resume=True),
    ):
        pass

    assert path.read_bytes() == b"notes of mine\n"


def test_the_results_of_a_newer_version_are_left_alone(output: Path) -> None:
    path = output.with_name("out.geojson.part")
    newer = make_line({"unfinished_outlines": 2, **ABOUT})
    path.write_bytes(newer)

    with (
        pytest.raises(FormatError, match="a newer version of this program wrote"),
        open_part(output, ABOUT, resume=True),
    ):
        pass

    assert path.read_bytes() == newer


def test_two_at_once_are_told_apart(output: Path) -> None:
    with (
        open_part(output, ABOUT, resume=True),
        pytest.raises(OutputError, match="Another program is writing"),
        open_part(output, ABOUT, resume=True),
    ):
        pass


def test_a_disk_that_is_full_costs_nothing_that_was_done(tmp_path: Path) -> None:
    with small_disk(tmp_path, 256) as disk:
        output = disk / "out.geojson"
        leave_unfinished(output, "x")
        filler = fill_up(disk, 1)
        with (
            pytest.raises(OutputError, match="Free space"),
            open_part(output, ABOUT, resume=True) as part,
        ):
            for number in range(1000):
                part.append(result(f"long {'name ' * 50} {number}"))
        filler.unlink()

        with open_part(output, ABOUT, resume=True) as part:
            assert "x" in part
            assert 1 < part.kept < 1000
            part.append(result("y"))
            assert list(part.features(PROMPTS)) == [{"of": "x"}, {"of": "y"}]


# The command


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.parametrize("number", [KILL, signal.SIGTERM], ids=["kill", "SIGTERM"])
def test_what_was_outlined_before_a_stop_is_not_outlined_again(
    tissue_path: Path, tmp_path: Path, number: int
) -> None:
    boxes = [
        rectangle(f"{x}, {y}", (x, y, x + 40, y + 40))
        for x in range(0, 470, 94)
        for y in range(0, 470, 94)
    ]
    prompts = write_prompts(tmp_path / "prompts.geojson", boxes)
    output, whole = tmp_path / "out.geojson", tmp_path / "whole.geojson"
    part = output.with_name("out.geojson.part")
    command = ["segment", str(tissue_path), str(prompts), "-o", str(output)]
    with subprocess.Popen(
        [sys.executable, "-m", "wsisam_qupath", *command],
        env=environment(),
        stderr=subprocess.PIPE,
    ) as process:
        while not (part.exists() and part.read_bytes().count(b"\n") > 5):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number)
    assert not output.exists()
    kept = sum(parse_line(line) is not None for line in part.read_bytes().splitlines(True)) - 1
    assert kept >= 5

    answer = run(*command)

    assert f"{kept} prompts were answered by a run that was stopped" in answer.err
    assert run("segment", tissue_path, prompts, "-o", whole).code == 0
    assert features_of(output) == features_of(whole)
    assert not part.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_a_program_reads_every_line_on_stderr_as_json(tissue_path: Path, tmp_path: Path) -> None:
    answer = run(
        "segment", tissue_path, "--box", "100,100,200,200", "-o", tmp_path / "x.geojson",
        "--progress", "json",
    )  # fmt: skip

    events = [json.loads(line) for line in answer.err.splitlines()]
    assert events[-1]["event"] == "message"
    last = [one for one in events if one.get("what") == "Outlining prompts"][-1]
    assert (last["event"], last["done"], last["total"]) == ("progress", 1, 1)
    wrong = run("segment", tmp_path / "none.svs", "--box", "1,1,2,2", "--progress", "json")
    refused = json.loads(wrong.err.splitlines()[-1])
    assert refused["event"] == "error"
    assert refused["message"] == f"wsisam-qupath: {refused['reason']}"
    option = run("segment", tissue_path, "--mpp", "-1", "--box", "1,1,2,2", "--progress", "json")
    refused = json.loads(option.err.splitlines()[-1])
    assert refused["message"] == f"wsisam-qupath: --mpp: {refused['reason']}"
