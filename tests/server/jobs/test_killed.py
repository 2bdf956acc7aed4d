"""Servers that end in the middle of a project job, as processes: the next one goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from fixtures.batch_projects import BLANK, copy_of, leftovers, seen_by
from fixtures.command_line import identity, rectangle, run, write_prompts
from fixtures.job_servers import Json
from fixtures.servers import PATIENCE_SECONDS, Running, running
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.walk,
    pytest.mark.qupath,
    pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's"),
]

BOXES = [(x, y, x + 90, y + 90) for x in range(0, 400, 100) for y in range(0, 400, 100)]


@pytest.fixture(scope="module")
def created(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, tissue: ImageArray
) -> Path:
    """A project with a section with many rectangles and one without; not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    slides, drawn = folder / "slides", folder / "drawn"
    slides.mkdir()
    drawn.mkdir()
    for name in ("a.tif", BLANK):
        write_pyramid(slides / name, tissue, mpp=0.5)
    boxes = [rectangle(identity(number), corners) for number, corners in enumerate(BOXES)]
    write_prompts(drawn / "a.tif.geojson", boxes)
    answer = run("create", folder / "p", "--images", slides, "--annotations", drawn)
    assert answer.code == 0, answer.err
    return folder / "p" / "project.qpproj"


def status_of(server: Running, job_id: str) -> Json:
    found: Json = json.load(server.ask("GET", f"/v1/jobs/{job_id}"))
    return found


def wait_for_answers(server: Running, job_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not status_of(server, job_id)["prompts_answered"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_ends_in_the_middle_of_a_job_goes_on_after_its_restart(
    created: Path, tmp_path: Path, qupath: QuPathProcess, how: str
) -> None:
    project = copy_of(created, tmp_path / "p")
    before = seen_by(qupath, project)
    with running(tmp_path, "--adapter", "none") as server:
        answer = server.ask("POST", "/v1/jobs", {"project": str(project)})
        job_id = json.load(answer)["id"]
        wait_for_answers(server, job_id)
        if how == "killed":
            server.process.kill()
            server.process.wait()
        else:
            assert server.stop() == 0
    between = seen_by(qupath, project)
    with running(tmp_path, "--adapter", "none") as server:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (status := status_of(server, job_id))["ended"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert between == before
    assert (status["state"], status["failures"]) == ("done", [])
    assert any("goes on where it was" in note for note in status["notes"])
    after = seen_by(qupath, project)
    parents = [one.parent for one in after["a.tif"].values() if one.parent is not None]
    assert sorted(parents) == sorted(before["a.tif"])
    assert not leftovers(project)
