"""One rule for all commands: how far the work is, for people, for log files and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from fixtures.command_line import identity, rectangle, run, write_prompts
from fixtures.qupath_fixtures import write_slide
from wsisam_qupath.cli.main import cli

NAMES = cli.list_commands(click.Context(cli))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_can_be_quiet_or_speak_to_programs(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert {"quiet", "progress"} <= {one.name for one in command.params}


def start_create(folder: Path) -> list[object]:
    """It is refused, since the annotations are of another slide."""
    drawn = write_prompts(folder / "b.geojson", [rectangle(identity(1), (1, 1, 9, 9))])
    for name in ("a.tif", "c.tif"):
        write_slide(folder / name, 64)
    return ["create", folder / "p", "--images", folder / "*.tif", "--annotations", drawn]


def start_segment(folder: Path) -> list[object]:
    return ["segment", write_slide(folder / "a.tif", 64), folder / "none.geojson"]


STARTED: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "cache": (lambda _: ["cache"], "Measuring the cache"),
    "create": (start_create, "Reading annotations"),
    "segment": (start_segment, "Opening the slide"),
    "train": (
        lambda folder: ["train", folder, "-o", folder / "x.safetensors"],
        "Reading annotations",
    ),
    "evaluate": (lambda folder: ["evaluate", folder], "Reading annotations"),
    "doctor": (lambda _: ["doctor"], "Checking this computer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTED)
def test_programs_read_every_line_as_json_and_how_far_the_work_is(
    tmp_path: Path, name: str
) -> None:
    start, what = STARTED[name]

    answer = run(*start(tmp_path), "--progress", "json")

    events = [json.loads(line) for line in answer.err.splitlines()]
    assert what in {one["what"] for one in events if one["event"] == "progress"}


@pytest.mark.slow
def test_quiet_commands_tell_only_what_is_wrong(tmp_path: Path) -> None:
    answer = run(*start_create(tmp_path), "--quiet")

    assert answer.code == 2
    assert answer.err.startswith("wsisam-qupath: ")
