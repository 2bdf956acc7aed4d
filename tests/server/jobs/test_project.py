"""Project jobs on real projects: QuPath itself says what is in them then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fixtures.batch_projects import (
    BLANK,
    BOX,
    CLICKS,
    HIGH_BOX,
    MIRRORED,
    PLAIN_BOX,
    SECTION,
    STACK,
    Batched,
    batched_copy,
    created,
    data_of,
    files_of,
    leftovers,
    project,
    seen_by,
)
from fixtures.command_line import rectangle, run
from fixtures.job_servers import JobServer, job_server
from fixtures.qupath_fixtures import resave
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.qupath.files.classes import read_class_names
from wsisam_qupath.qupath.files.reading import read_project
from wsisam_qupath.qupath.jvm.process import QuPathProcess

__all__ = ["created", "project"]  # fixtures

pytestmark = [pytest.mark.qupath, pytest.mark.slow, pytest.mark.walk]


@pytest.fixture(scope="module")
def segmenter(plain_torch: Predictor) -> Segmenter:
    return Segmenter(plain_torch)


@pytest.fixture
def server(tmp_path: Path, segmenter: Segmenter) -> Iterator[JobServer]:
    with job_server(tmp_path / "jobs", segmenter) as found:
        yield found


@pytest.fixture(scope="module")
def batched(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, created: Path
) -> Batched:
    """What a batch with the model of the server does to the project."""
    options = ("--backend", "torch", "--adapter", "none")
    return batched_copy(qupath, created, tmp_path_factory.mktemp("batched") / "p", *options)


def id_of(project: Path, name: str) -> str:
    return data_of(project, name).parent.name


def java_pids() -> set[int]:
    """The processes of this one that QuPath may live in."""
    children = psutil.Process().children()
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}


def test_a_job_writes_what_batch_writes(
    server: JobServer, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    status = server.ended(server.add(project))

    assert (status["state"], status["failures"], status["reason"]) == ("done", [], "")
    assert (status["images"], status["images_ended"]) == (4, 4)
    assert (status["prompts"], status["prompts_answered"]) == (5, 5)
    states = {one["name"]: (one["state"], one["outlined"]) for one in status["ended_images"]}
    assert states == {
        SECTION: ("done", 2),
        MIRRORED: ("done", 1),
        STACK: ("done", 2),
        BLANK: ("nothing to do", 0),
    }
    assert seen_by(qupath, project) == batched.after
    assert set(read_class_names(read_project(project))) >= {"Gland"}
    assert not leftovers(project)
    assert any("never trained on" in note for note in status["notes"])


def test_what_qupath_has_open_stays_and_its_results_come_over_http(
    server: JobServer, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    before, shown = files_of(project, ours=False), id_of(project, SECTION)

    job_id = server.add(project, project_is_open=True, open_image=shown)
    status = server.ended(job_id)

    assert (status["state"], status["failures"], status["results"]) == ("done", [], 2)
    states = {one["name"]: one["state"] for one in status["ended_images"]}
    assert (states[SECTION], states[MIRRORED]) == ("kept", "done")
    after = files_of(project, ours=False)
    kept = [name for name in before if not name.startswith("data/")]
    kept += [name for name in before if name.startswith(f"data/{shown}/")]
    assert "project.qpproj" in kept
    assert f"data/{shown}/data.qpdata" in kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name for name in after if name.startswith(("class", f"data/{shown}/"))} <= set(before)
    seen = seen_by(qupath, project)
    assert seen[MIRRORED] == batched.after[MIRRORED]
    results = server.results(job_id)
    assert results == server.results(job_id)
    expected = {
        key: one
        for key, one in batched.after[SECTION].items()
        if key not in batched.before[SECTION]
    }
    assert {one["id"] for one in results} == set(expected)
    assert {(one["image"], one["parent"]) for one in results} == {(shown, BOX), (shown, CLICKS)}
    assert [one["replaces"] for one in results] == [[], []]

    assert server.ask("DELETE", f"/v1/jobs/{job_id}").status_code == 204
    assert server.ask("GET", f"/v1/jobs/{job_id}/results").status_code == 404
    again = server.ended(server.add(project, images=[SECTION]))

    assert (again["prompts"], again["prompts_answered"], again["results"]) == (2, 2, 0)
    assert seen_by(qupath, project) == batched.after


def test_an_image_that_a_person_opens_meanwhile_is_not_written(
    server: JobServer, project: Path
) -> None:
    old = {name: data_of(project, name).read_bytes() for name in (SECTION, MIRRORED, STACK)}
    shown = [id_of(project, name) for name in (MIRRORED, STACK)]

    job_id = server.add(project, project_is_open=True, options={"class": "Neu"})
    answer = server.ask("PUT", f"/v1/jobs/{job_id}/open-images", {"images": shown})
    status = server.ended(job_id)

    assert answer.status_code == 200
    assert status["results"] == 3
    assert data_of(project, SECTION).read_bytes() != old[SECTION]
    assert data_of(project, MIRRORED).read_bytes() == old[MIRRORED]
    assert data_of(project, STACK).read_bytes() == old[STACK]
    assert {one["parent"] for one in server.results(job_id)} >= {PLAIN_BOX, HIGH_BOX}
    assert not leftovers(project)
    assert [one["name"] for one in status["new_classes"]] == ["Neu"]
    assert any("class list lacks Neu" in note for note in status["notes"])
    assert "Neu" not in read_class_names(read_project(project))


def test_qupath_may_save_its_project_and_an_image_while_a_job_is_at_it(
    server: JobServer, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    job_id = server.add(project, project_is_open=True)
    server.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)
    qupath.run(resave, project, id_of(project, STACK))
    os.utime(project)
    status = server.ended(job_id)

    failed = [one["name"] for one in status["failures"]]
    assert status["state"] == "done"
    assert failed in ([STACK], [])  # it may have been read after that
    seen = seen_by(qupath, project)
    assert seen[SECTION] == batched.after[SECTION]
    assert seen[MIRRORED] == batched.after[MIRRORED]
    for one in status["failures"]:
        assert "run again" in one["reason"]


@pytest.mark.skipif(os.name == "nt", reason="kills are POSIX's")
def test_a_crash_of_java_fails_an_image_with_its_cure_and_the_server_lives(
    server: JobServer, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    others = java_pids()
    job_id = server.add(project)
    server.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)
    (java,) = java_pids() - others
    entry = data_of(project, SECTION).parent
    deadline = time.monotonic() + 120
    while not (entry / "data.qpdata.wsisam-new").exists():
        assert time.monotonic() < deadline
    os.kill(java, signal.SIGKILL)
    status = server.ended(job_id)

    (failure,) = status["failures"]
    assert (status["state"], failure["name"]) == ("done", SECTION)
    assert "QuPath's Java virtual machine ended unexpectedly" in failure["reason"]
    assert seen_by(qupath, project)[SECTION] == batched.before[SECTION]
    assert not leftovers(project)
    assert server.ask("GET", "/healthz").status_code == 200

    again = server.ended(server.add(project))

    assert again["failures"] == []
    assert seen_by(qupath, project) == batched.after


def test_a_click_is_answered_while_a_job_runs(server: JobServer, project: Path) -> None:
    entry = next(one for one in read_project(project).images if one.name == MIRRORED)
    slide = {"uri": entry.uri, "width": 512, "height": 512, "mpp_x": 0.5, "mpp_y": 0.5}
    wanted = {"slide": slide, "prompts": [rectangle(BOX, (20, 20, 240, 230))]}

    job_id = server.add(project)
    server.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)
    answer = server.ask("POST", "/v1/segment", wanted)

    assert server.status(job_id)["state"] == "running"
    assert answer.status_code == 200
    assert len(answer.json["features"]) == 1
    assert server.ended(job_id)["failures"] == []


def test_a_cancelled_job_stops_and_leaves_each_image_old_or_new(
    server: JobServer, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    job_id = server.add(project)
    server.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)
    came = time.monotonic()
    answer = server.ask("DELETE", f"/v1/jobs/{job_id}")
    status = server.ended(job_id)

    assert answer.status_code == 202
    assert status["state"] == "cancelled"
    assert time.monotonic() - came < 60
    for name, objects in seen_by(qupath, project).items():
        assert objects in (batched.before[name], batched.after[name])
    assert not leftovers(project)


def test_a_restart_goes_on_from_the_journal(
    tmp_path: Path, segmenter: Segmenter, project: Path, batched: Batched, qupath: QuPathProcess
) -> None:
    with job_server(tmp_path / "jobs", segmenter) as first:
        job_id = first.add(project)
        first.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)
    for name, objects in seen_by(qupath, project).items():
        assert objects in (batched.before[name], batched.after[name])
    answered = segmenter.tally.prompts_answered
    with job_server(tmp_path / "jobs", segmenter) as second:
        status = second.ended(job_id)

    assert (status["state"], status["failures"]) == ("done", [])
    assert any("goes on where it was" in note for note in status["notes"])
    assert segmenter.tally.prompts_answered - answered < 5
    assert seen_by(qupath, project) == batched.after


def test_two_commands_do_not_write_one_project(server: JobServer, project: Path) -> None:
    job_id = server.add(project)
    server.wait_until(job_id, lambda status: status["prompts_answered"] >= 1)

    answer = run("batch", project)

    assert answer.code == 2
    assert "Another project job works on" in answer.err
    assert server.ended(job_id)["state"] == "done"
