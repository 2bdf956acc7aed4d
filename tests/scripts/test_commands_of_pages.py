"""Every command of the program in a block of code on a page is run, or it is said why not."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fixtures.command_line import (
    GLAND,
    LARGE_GLAND,
    annotation,
    environment,
    identity,
    rectangle,
    ring,
    run,
    write_prompts,
)
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.slide.pyramid import write_pyramid

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "training").glob("*.md"),
    *(ROOT / "wsisam_qupath" / "model" / "adapters").glob("*.md"),
]
BLOCK = re.compile(r"^ *(`{3,})[^\n]*\n(.*?)^ *\1", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?<![\w@.])(?:[\w./-]+/)?wsisam-qupath ([a-z]+(?: [^|;&]*)?)$")

QUICK = ("--views", "4", "--steps", "2")
"""Training as a page has it takes hours."""


class Story(NamedTuple):
    """Commands in the order in which a reader gives them, and options that make some quick."""

    name: str
    needs_qupath: bool
    in_project: bool
    commands: tuple[tuple[str, tuple[str, ...]], ...]


def in_order(*given: str | tuple[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((one, ()) if isinstance(one, str) else one for one in given)


STORIES = (
    Story(
        "a slide alone",
        False,
        False,
        in_order(
            "demo",
            "segment slide.svs prompts.geojson -o outlines.geojson --overlay look.png",
            "prepare slide.svs prompts.geojson --embeddings-gb 20",
            "segment slide.svs prompts.geojson -o outlines.geojson --embeddings-gb 20",
            "find slide.svs examples.geojson -o found.geojson",
            "find slide.svs examples.geojson -o found.geojson --overlay look.png",
        ),
    ),
    Story(
        "a project",
        True,
        True,
        in_order(
            "batch project.qpproj --dry-run",
            "batch project.qpproj --report report.html",
            ("batch project.qpproj --report report.html", ("--redo", "all", "--simplify", "0.5")),
            ("batch project.qpproj --report report.html", ("--redo", "all", "--simplify", "1")),
            ("batch project.qpproj --find Gland --report report.html", ("--min-score", "0.5")),
            "restore project.qpproj --list",
            "restore project.qpproj --to 3 --images a.svs",
            "restore project.qpproj",
            "restore project.qpproj --to original",
        ),
    ),
    Story(
        "a project on a cluster",
        True,
        True,
        in_order(
            "batch project.qpproj --to-table slides.csv",
            "segment --table slides.csv -o OUT/",
            "segment --table slides.csv -o OUT/ --format geoparquet --labels",
            "segment --table slides.csv -o OUT/ --summarize",
            "batch project.qpproj --from OUT/",
        ),
    ),
    Story(
        "slides and annotations",
        True,
        False,
        in_order(
            "create study --images slides --annotations annotations",
            "batch study --dry-run",
            "batch study",
            "batch study --report report.html",
            "batch study/project.qpproj",
        ),
    ),
    Story(
        "training",
        True,
        True,
        in_order(
            "export project.qpproj OUT/",
            # Two slides would be cross-validated, and none be left to evaluate on.
            ("train OUT/ -o mine.safetensors", (*QUICK, "--init", "none")),
            (
                "evaluate OUT/ --split mine.split.tsv --part val --adapter mine.safetensors "
                "--compare none --compare default",
                ("--kinds", "box"),
            ),
            "batch project.qpproj --adapter mine.safetensors",
        ),
    ),
)

ELSEWHERE = {
    "doctor": "tests/cli/test_doctor.py: what it finds depends on the machine",
    "serve": "tests/server/test_process.py: it ends when it is told to",
    "setup": "tests/cli/test_setup.py, in a home of its own",
    "setup --startup-script": "tests/cli/test_setup.py, in a home of its own",
    "weights mobile-sam": "tests/model/test_weights_download.py, from a server of this machine",
    "serve --samapi": "tests/server/test_samapi.py",
    "view slide.svs": "tests/server/viewer/test_browser.py: it ends when it is told to",
    'segment "$slide" "prompts/$name.geojson" -o "outlines/$name.geojson"': "below, as a script",
    'segment --table slides.csv -o OUT/ --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"': (
        "below, as a script"
    ),
    "evaluate DATA --compare none": "tests/training/evaluate/test_cli.py, DATA is the reader's",
    "train training/recipes/lite-medsam.toml --init none -o tissue-lite-medsam.safetensors": (
        "it needs the data that the adapter was trained on, and hours"
    ),
    "batch project.qpproj --dask ADDRESS": "tests/project/batch/test_outputs.py, with a cluster",
}
"""Commands that other tests run, and what cannot be run here."""


def blocks() -> Iterator[str]:
    """The blocks of code of all pages, without the ends of lines that go on."""
    for path in PAGES:
        for block in BLOCK.finditer(path.read_text("utf-8")):
            yield re.sub(r"\\\n\s*", " ", block[2])


def commands() -> Iterator[str]:
    """What is given to the program in blocks of code."""
    for block in blocks():
        for line in block.splitlines():
            plain = re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
            plain = re.sub(r'^sbatch .*--wrap "(.*)"$', r"\1", plain)
            called = CALL.search(plain) or re.search(r"# wsisam-qupath ([a-z]+ .*)", line)
            if called and not re.match(r"docker|ExecStart=", plain):
                yield " ".join(called[1].split())


def test_each_command_of_a_page_is_run_by_a_test_and_each_test_is_of_a_page() -> None:
    run_here = {command for story in STORIES for command, _ in story.commands}
    assert {*commands()} == run_here | {*ELSEWHERE}
    assert not run_here & {*ELSEWHERE}


@pytest.fixture
def desk(tmp_path: Path, tissue: ImageArray) -> Path:
    """A folder as the pages suppose it: slides, prompts and annotations of them."""
    folder = tmp_path / "desk"
    for name in ("slides", "annotations"):
        (folder / name).mkdir(parents=True)
    corners = [(20, 20), (140, 40), (120, 180), (30, 160)]
    drawn = [
        rectangle(identity(1), GLAND, "Gland"),
        rectangle(identity(2), LARGE_GLAND, "Gland"),
        annotation(identity(3), "Polygon", [ring(*corners)], "Gland"),
    ]
    write_prompts(folder / "prompts.geojson", drawn)
    write_prompts(folder / "examples.geojson", drawn[:1])
    write_pyramid(folder / "slide.svs", tissue, mpp=0.5)
    for name, picture in (("a", tissue), ("b", np.ascontiguousarray(tissue[::-1]))):
        write_pyramid(folder / "slides" / f"{name}.svs", picture, mpp=0.5)
        write_prompts(folder / "annotations" / f"{name}.geojson", drawn)
    return folder


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.parametrize(
    "story",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.qupath] * one.needs_qupath)
        for one in STORIES
    ],
)
def test_the_commands_of_a_page_can_be_given_in_its_order(
    desk: Path, story: Story, request: pytest.FixtureRequest
) -> None:
    if story.needs_qupath:
        request.getfixturevalue("qupath")
    folder = desk
    if story.in_project:
        folder = desk / "project"
        made = run("create", folder, "--images", "slides", "--annotations", "annotations", cwd=desk)
        assert made.code == 0, made.err

    for command, quick in story.commands:
        answer = run(*shlex.split(command), *quick, cwd=folder)
        assert answer.code == 0, f"{command}: {answer.err}"


def run_job_array(folder: Path, of: str, task: int, count: int) -> None:
    """Run the script of a page that holds some words, as one task of an array."""
    scripts = [block for block in blocks() if block.startswith("#!/bin/bash\n#SBATCH")]
    (script,) = (block for block in scripts if of in block)
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "wsisam-qupath"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wsisam_qupath "$@"\n')
    program.chmod(0o755)
    variables = environment(SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT=str(count))
    subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**variables, "PATH": f"{programs}:{variables['PATH']}"},
        check=True,
    )


@pytest.mark.slow
def test_the_script_of_a_job_array_outlines_the_slide_of_its_number(
    desk: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "slides").symlink_to(desk / "slides")
    for file in (desk / "annotations").iterdir():
        (tmp_path / "prompts" / file.name).write_bytes(file.read_bytes())

    run_job_array(tmp_path, "prompts/$name", 1, 2)

    assert [path.name for path in (tmp_path / "outlines").glob("*.geojson")] == ["b.geojson"]


@pytest.mark.slow
@pytest.mark.walk
def test_the_jobs_of_an_array_share_a_table(desk: Path) -> None:
    rows = (f"slides/{name}.svs,annotations/{name}.geojson" for name in ("a", "b"))
    (desk / "slides.csv").write_text("\n".join(["slide,prompts", *rows]))

    for task, found in ((1, ["a"]), (2, ["a", "b"])):
        run_job_array(desk, "--table", task, 2)
        assert sorted(path.stem for path in (desk / "OUT").glob("*.geojson")) == found
