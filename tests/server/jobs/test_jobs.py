"""The queue of project jobs; a workshop stands for the work."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from fixtures.job_servers import PROBLEM, JobServer, Workshop, idle_server, job_server, project_in
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.server.jobs import queue as jobs_module


def states(server: JobServer) -> list[str]:
    return [job["state"] for job in server.ask("GET", "/v1/jobs").json["jobs"]]


# The queue


def test_jobs_are_done_one_at_a_time_in_their_order(
    server: JobServer, workshop: Workshop, tmp_path: Path
) -> None:
    projects = [project_in(tmp_path / name) for name in "abc"]
    ids = [server.add(one) for one in projects]
    server.wait_until(ids[0], lambda status: status["state"] == "running")

    assert states(server) == ["running", "waiting", "waiting"]
    assert len(workshop.begun) == 1
    for _ in ids:
        workshop.may_end.release()
    for job_id in ids:
        assert server.ended(job_id)["state"] == "done"
    assert workshop.begun == [str(one) for one in projects]


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_soon(
    server: JobServer, workshop: Workshop, project: Path
) -> None:
    first, second = server.add(project), server.add(project)
    server.wait_until(first, lambda status: status["state"] == "running")

    answers = [server.ask("DELETE", f"/v1/jobs/{one}") for one in (second, first)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json["state"] == "cancelled"
    assert server.ended(first)["state"] == "cancelled"
    assert len(workshop.begun) == 1


def test_a_job_that_has_ended_is_forgotten_by_its_deletion(
    server: JobServer, workshop: Workshop, project: Path, folder: Path
) -> None:
    job_id = server.add(project)
    workshop.may_end.release()
    server.ended(job_id)

    answer = server.ask("DELETE", f"/v1/jobs/{job_id}")

    assert (answer.status_code, answer.data) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/results")):
        gone = server.ask(method, f"/v1/jobs/{job_id}{path}")
        assert (gone.status_code, gone.json["type"]) == (404, PROBLEM + "not-found")
    assert not (folder / job_id).exists()


def test_no_more_jobs_wait_than_there_is_room_for(
    server: JobServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_WAITING", 1)
    first = server.add(project)
    server.wait_until(first, lambda status: status["state"] == "running")
    server.add(project)

    answer = server.ask("POST", "/v1/jobs", {"project": str(project)})

    assert (answer.status_code, answer.json["type"]) == (503, PROBLEM + "busy")
    assert answer.headers["Retry-After"]


def test_old_jobs_make_room_unless_their_results_wait(
    server: JobServer, workshop: Workshop, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_KEPT", 2)
    ids = []
    for _ in range(3):
        ids.append(server.add(project))
        workshop.may_end.release()
        server.ended(ids[-1])

    kept = [job["id"] for job in server.ask("GET", "/v1/jobs").json["jobs"]]

    assert kept == ids[1:]


@pytest.mark.qupath
def test_without_a_model_a_job_fails_with_its_cure(
    qupath: QuPathProcess, folder: Path, project: Path
) -> None:
    with job_server(folder, None) as server:
        status = server.ended(server.add(project))

    assert status["state"] == "failed"
    assert status["reason"] == "The model cannot be loaded. There are no weights. Get some."


def test_without_qupath_a_job_fails_with_its_cure(
    folder: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "none"))
    with job_server(folder, None) as server:
        status = server.ended(server.add(project))

    assert status["state"] == "failed"
    assert "PAQUO_QUPATH_DIR" in status["reason"]


# A restart


def test_a_restart_takes_up_what_was_not_done(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        ids = [first.add(project) for _ in range(3)]
        workshop.may_end.release()
        first.ended(ids[0])
        first.wait_until(ids[1], lambda status: status["state"] == "running")
    with idle_server(folder, workshop) as second:
        for _ in range(2):
            workshop.may_end.release()
        ended = [second.ended(one) for one in ids]

    assert [one["state"] for one in ended] == ["done"] * 3
    assert [bool(one["notes"]) for one in ended] == [False, True, False]
    assert "goes on where it was" in ended[1]["notes"][0]
    assert len(workshop.begun) == 4


def test_a_restart_knows_what_qupath_shows(folder: Path, workshop: Workshop, project: Path) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project, open_image="1")
        first.wait_until(job_id, lambda status: status["state"] == "running")
        first.ask("PUT", f"/v1/jobs/{job_id}/open-images", {"images": ["2"]})
    with idle_server(folder, workshop) as second:
        second.wait_until(job_id, lambda status: status["state"] == "running")

    assert [sorted(one) for one in workshop.shown] == [["1"], ["2"]]


def test_a_cancelled_job_stays_cancelled(folder: Path, workshop: Workshop, project: Path) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project)
        first.ask("DELETE", f"/v1/jobs/{job_id}")
    with idle_server(folder, workshop) as second:
        assert second.ended(job_id)["state"] == "cancelled"


def test_a_job_in_whose_middle_servers_die_is_given_up(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project)
        first.wait_until(job_id, lambda status: status["state"] == "running")
    path = folder / job_id / "job.json"
    stored = json.loads(path.read_bytes())
    assert (stored["status"]["state"], stored["tries"]) == ("running", 0)
    path.write_text(json.dumps({**stored, "tries": 3}), encoding="utf-8")

    with idle_server(folder, workshop) as second:
        status = second.status(job_id)

    assert status["state"] == "failed"
    assert "ended 3 times in the middle of this job" in status["reason"]


def test_a_damaged_job_is_passed_over_and_stays(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        ids = [first.add(project) for _ in range(2)]
    damaged = folder / ids[0] / "job.json"
    damaged.write_bytes(damaged.read_bytes()[:-20])

    with idle_server(folder, workshop) as second:
        found = [job["id"] for job in second.ask("GET", "/v1/jobs").json["jobs"]]

    assert found == ids[1:]
    assert damaged.exists()


def test_two_servers_do_not_take_each_others_jobs(
    server: JobServer, folder: Path, workshop: Workshop, project: Path
) -> None:
    ours = server.add(project)
    with idle_server(folder, Workshop()) as other:
        theirs = other.add(project)

        assert other.ask("GET", f"/v1/jobs/{ours}").status_code == 404
        assert server.ask("GET", f"/v1/jobs/{theirs}").status_code == 404

    assert sorted(path.name for path in folder.iterdir()) == sorted([ours, "lock"])


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_jobs_are_their_owners_alone(server: JobServer, folder: Path, project: Path) -> None:
    job_id = server.add(project)

    for path in (folder, folder / job_id):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_nothing_is_taken_while_the_server_stops(server: JobServer, project: Path) -> None:
    server.jobs.stop()

    answer = server.ask("POST", "/v1/jobs", {"project": str(project)})

    assert (answer.status_code, answer.json["type"]) == (503, PROBLEM + "busy")
